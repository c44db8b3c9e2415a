"""Whether an error says that a device ran out of memory, in any of the ways in which torch and its libraries say so."""

import torch

# A card that runs out in the middle of a queue of kernels raises this one (torch 2.8 and later).
ACCELERATOR_ERROR = getattr(torch, "AcceleratorError", None)
CUDA_OUT_OF_MEMORY = 2  # its error code

# What is found in a plain RuntimeError.
WORDS = (
    "out of memory",  # "CUDA error: out of memory", "HIP error: out of memory", "MPS backend out of memory"
    "out_of_device_memory",  # "UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY" of Intel's cards
    "not enough gpu video memory",  # DirectML
    "cublas_status_alloc_failed",
    "hipblas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_not_enough_workspace",
    "cudnn_status_internal_error_host_allocation_failed",
    "cudnn_status_internal_error_device_allocation_failed",
    "can't allocate memory",  # a processor's allocator on Linux and macOS
    "not enough memory: you tried to allocate",  # the same on Windows
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether smaller or fewer tensors may do what just failed."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    if ACCELERATOR_ERROR is not None and isinstance(error, ACCELERATOR_ERROR):
        return getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY or "out of memory" in str(error).lower()
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
