"""Trainings that run out of memory: how they are told from others, and what is done after one."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

# What PyTorch says in a plain RuntimeError: its allocator on the host, the CUDA runtime, and cuBLAS and cuDNN, which
# take memory of their own: cuBLAS, where it is first called without any left, is "not initialized".
_SAID = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def lacks_memory(error: Exception) -> bool:
    """Whether ``error`` says that there was no memory, on the host or on a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def release_memory(device: torch.device) -> None:
    """Gives freed memory back to the system, so that another training or process may have it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in musl
        if trim is not None:
            trim(0)
