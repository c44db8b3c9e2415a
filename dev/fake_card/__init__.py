"""A graphics card that is not there: what a processor can find out about the paths that only a card takes.

Within `with_card(profile)` torch.cuda answers as the card, and every tensor is one of torch's fake tensors, which have
shapes, dtypes and devices but no numbers: a forward of the whole 14B network takes seconds and no memory. It tells
errors (devices, dtypes, shapes, what the card refuses, launches beyond a tensor's memory), the most bytes that live at
once, the traffic, the launches, and every wait of the host for the card. Times are rooflines: they rank, they do not
predict. What it cannot tell: real times, fragmentation, workspaces of libraries, numbers, races, drivers.
"""
