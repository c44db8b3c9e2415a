"""How networks learn: flow matching, distillation, optimiser, runs that go on, several processes."""
