"""What the shapes of a file's tensors do not tell."""

# Heads of the encoders that are published in these widths; others have heads of 16 numbers.
PUBLISHED = {768: 12, 1024: 16, 1280: 16}


def heads(width: int) -> int:
    return PUBLISHED.get(width) or width // 16
