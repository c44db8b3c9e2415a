"""Which network a file holds: names of weights, sizes, the job it was trained for and the models it needs."""
