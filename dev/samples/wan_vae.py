"""What every VAE of Wan 2.1 has in common, however wide it is. Source: Wan 2.1 (arXiv 2503.20314)."""

LATENTS = 16  # channels
MULTIPLIERS = (1, 2, 4, 4)  # of the width, from the finest pictures to the coarsest
# Of the latents: what ComfyUI takes away from and divides an encoding by.
MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508]
MEAN += [0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
STD = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743]
STD += [3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.916]
