"""Whether an error says that a device ran out of memory, in any of the ways in which torch says so."""

import torch

# A card that runs out in the middle of a queue of kernels raises this one (torch 2.8 and later).
ACCELERATOR_ERROR = getattr(torch, "AcceleratorError", None)
CUDA_OUT_OF_MEMORY = 2  # its error code


def is_out_of_memory(error: BaseException) -> bool:
    """Apple's devices raise a plain RuntimeError; they name themselves."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    if ACCELERATOR_ERROR is not None and isinstance(error, ACCELERATOR_ERROR):
        return getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY or "out of memory" in str(error).lower()
    return isinstance(error, RuntimeError) and "mps backend out of memory" in str(error).lower()
