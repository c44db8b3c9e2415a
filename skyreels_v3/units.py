"""How bytes are told to people."""

GB = 10**9  # as makers of cards and disks count, and as every sentence of the pack does


def gb(count: float) -> str:
    """Bytes as text, in GB with one decimal."""
    return f"{count / GB:.1f} GB"
