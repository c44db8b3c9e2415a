"""The one exception for what an artist can put right."""


class InputError(ValueError):
    """Bad input, in one sentence: what was given, what is needed, what to do.

    ComfyUI shows the message on the node, so it must stand alone.
    """
