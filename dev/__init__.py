"""The workshop: what tests, benchmarks and the demo stand on. No artist installs it."""
