"""What is raised where memory runs out, in every form that is known."""

import torch


def _plain(words: str) -> RuntimeError:
    return RuntimeError(words)


ACCELERATOR = getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError)
OUT_OF_MEMORY = {
    "torch": torch.cuda.OutOfMemoryError("Allocation on device"),
    "accelerator": ACCELERATOR("CUDA error: out of memory"),
    "cuda": _plain("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "hip": _plain("HIP error: out of memory"),
    "mps": _plain("MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1.2 GB)"),
    "intel": _plain("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    "directml": _plain("Could not allocate tensor with 9 bytes. There is not enough GPU video memory available!"),
    "cublas": _plain("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cudnn": _plain("cuDNN error: CUDNN_STATUS_NOT_ENOUGH_WORKSPACE"),
    "cpu": _plain("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: tried 30 GB"),
    "windows": _plain("DefaultCPUAllocator: not enough memory: you tried to allocate 30198988800 bytes."),
}
