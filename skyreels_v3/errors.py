"""The one exception for things an artist can put right."""


class InputError(ValueError):
    """Bad input, told in one sentence: what was given, what is needed, what to do.

    ComfyUI shows the message on the node, so it must stand alone.
    """
