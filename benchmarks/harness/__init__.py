"""What the benchmarks share: timing in turns, aims, the code they are compared with."""
