"""Trainings that run out of memory are told from those that fail otherwise."""

import pytest
import torch

from nasproxy.training.memory import lacks_memory, release_memory

MORE_THAN_THERE_IS = 2**60  # bytes


def test_pytorch_on_the_host_says_so():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(MORE_THAN_THERE_IS, dtype=torch.uint8)
    assert lacks_memory(caught.value)


def test_python_says_so():
    with pytest.raises(MemoryError) as caught:
        bytearray(MORE_THAN_THERE_IS)
    assert lacks_memory(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_says_so_and_gives_back_what_was_freed():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(MORE_THAN_THERE_IS // 2**10, dtype=torch.uint8, device="cuda")
    assert lacks_memory(caught.value)
    torch.empty(2**28, dtype=torch.uint8, device="cuda")
    before = torch.cuda.memory_reserved()
    release_memory(torch.device("cuda"))
    assert torch.cuda.memory_reserved() <= before - 2**28


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_gpus_say_so(error: Exception):
    assert lacks_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory")])
def test_other_failures_do_not(error: Exception):
    assert not lacks_memory(error)


def test_memory_is_released_on_the_host():
    release_memory(torch.device("cpu"))
