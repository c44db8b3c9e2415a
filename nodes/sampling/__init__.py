"""The official solver, schedules and guidance as SAMPLER, SIGMAS and GUIDER."""
