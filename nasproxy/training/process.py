"""What a process sets once, before it trains anything on a CPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from nasproxy.errors import RunError
from nasproxy.versions import usable_cores

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc, malloc.h
_KEEP, _PAD = 2**31 - 1, 256 * 2**20


_held = threading.RLock()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within, no other thread of this process may train; at the end, threads and flags are what they were.

    PyTorch's global random numbers, and what :func:`prepare_process` sets, belong to the process: two threads that
    train would change each other's scores. It may be entered again within. That freed memory is kept stays so.

    Raises:
        RunError: another thread is within.
    """
    if not _held.acquire(blocking=False):
        raise RunError(
            "Another thread of this process is searching, comparing, condensing or training already.",
            "Wait for it, or use another process: PyTorch's random numbers and flags are shared by all threads.",
        )
    try:
        with _restored():
            yield
    finally:
        _held.release()


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    cudnn, tf32 = torch.backends.cudnn, None
    threads, deterministic = torch.get_num_threads(), cudnn.deterministic
    with contextlib.suppress(RuntimeError):  # it cannot be read where only one of cuDNN's operators was set
        tf32 = cudnn.allow_tf32
    flushes = (torch.tensor([1e-40]) * 1.5).item() == 0  # PyTorch does not tell
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)
        cudnn.deterministic = deterministic
        if tf32 is not None:
            cudnn.allow_tf32 = tf32


def prepare_process(threads: int) -> None:
    """Sets the number of threads, lets denormal numbers be zero, and keeps freed memory in the process.

    Activations of a small network are a few MiB each: above glibc's default threshold, so that every step would return
    them to the system and fault every page in again. Denormals slow sigmoid networks that stop learning. Both are set
    in every process that trains, so that the same seed gives the same score in each; on a GPU, cuDNN is told to use no
    kernel whose sums come in another order each time, and to compute float32 in all its 24 bits instead of the 11 of
    TensorFloat-32.

    Args:
        threads: intra-operation threads of PyTorch.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _KEEP)
            mallopt(_M_TRIM_THRESHOLD, _KEEP)
            mallopt(_M_TOP_PAD, _PAD)


def default_threads() -> int:
    """Threads of a process that computes alone: one for each core, or fewer where ``OMP_NUM_THREADS`` says so."""
    asked = re.match(r"\s*0*([1-9]\d{0,8})\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))  # "4,2" is of two levels
    cores = usable_cores()
    return cores if asked is None else min(int(asked[1]), cores)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use: of the GPU for CUDA, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Where it is there, for ru_maxrss starts at what the parent process had used, even over exec.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8")) if status.exists() else None
    if found is not None:
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
