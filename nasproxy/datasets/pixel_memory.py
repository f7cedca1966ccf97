"""Where the pixels of a part lie: in memory while they fit, else in a file that is mapped into memory."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nasproxy.errors import InputError, WriteError
from nasproxy.files import cache_folder, make_folder

VARIABLE = "NASPROXY_MEMORY_MIB"
_ALWAYS = 64 * 2**20  # bytes that any machine has
_CONTAINER = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class PixelFile:
    """Pixels that stay in their file. What is sent to a worker is this, not the pixels.

    Args:
        path: the file; a worker on another machine must find it there as well.
        offset: bytes before the pixels.
        shape: (n, channels, height, width).
    """

    path: str
    offset: int
    shape: tuple[int, int, int, int]

    def open(self) -> UInt8[np.ndarray, "n channels height width"]:
        """The pixels, read when they are looked at and dropped from memory when that is needed for something else."""
        return np.memmap(self.path, np.uint8, "r", self.offset, self.shape)


def memory_budget(sharers: int = 1, available: int | None = None) -> int:
    """Bytes that one copy of a part's images may take in this process: half of what is available, shared.

    ``NASPROXY_MEMORY_MIB`` says otherwise. No result depends on it: only where pixels lie, and when they are
    normalised.

    Args:
        sharers: processes of this machine that each hold a copy.
        available: bytes; what this machine has now, unless given.

    Raises:
        InputError: the variable is not a number.
    """
    said = os.environ.get(VARIABLE)
    if said is None:
        return max(_ALWAYS, (_available() if available is None else available) // (2 * sharers))
    try:
        return int(float(said) * 2**20)
    except (ValueError, OverflowError):
        raise InputError(f"{VARIABLE} must be a number of MiB, got {said!r}.", f"Example: {VARIABLE}=2000") from None


def empty_pixels(shape: tuple[int, int, int, int]) -> UInt8[np.ndarray, "n channels height width"]:
    """Room for pixels; in a file without a name, in the cache folder, where memory should not hold them.

    Raises:
        WriteError: neither memory nor disk has room.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= memory_budget():
        return np.empty(shape, np.uint8)
    folder = make_folder(cache_folder() / "images")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, np.uint8, "r+", 0, shape)
    except OSError as error:
        raise WriteError(
            f"{size / 2**30:.1f} GiB of images exceed memory, and {folder} cannot hold them: "
            f"{error.strerror or error}.",
            "Free some space, set NASPROXY_CACHE to a larger disk, or pass a smaller --image-size.",
        ) from error


def take_rows(images: UInt8[Tensor, "n c h w"], positions: Int64[Tensor, " k"]) -> UInt8[Tensor, "k c h w"]:
    """``images[positions]``, in a file where that does not fit in memory."""
    channels, height, width = (int(side) for side in images.shape[1:])
    room = torch.from_numpy(empty_pixels((len(positions), channels, height, width)))
    return torch.index_select(images, 0, positions, out=room)


def as_tensor(pixels: np.ndarray) -> Tensor:
    """A tensor on the same memory, which may be read-only: pixels are never written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def _reserve(file: int, size: int) -> None:
    """A full disk must be an error here: a write to a mapped page that has no place kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    blank = bytes(2**20)
    for start in range(0, size, len(blank)):
        os.pwrite(file, blank[: size - start], start)


def _available() -> int:
    """Bytes that this machine, or this container, could still give."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass  # not Linux
    try:
        limit, used = (int((_CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        kinds = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit
        return found
    # Files that were read count as used, but go when memory is wanted, as MemAvailable has it too.
    dropped = sum(int(kinds.get(name, 0)) for name in ("active_file", "inactive_file"))
    return min(found, limit - used + dropped)
