"""The official schedules, solvers and guidance."""
