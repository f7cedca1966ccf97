"""The compiled kernels of this folder, where they were compiled and the processor is one that they are for."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

VERSION = 116817813
"""A checksum of the sources. A library of others is not called: what was compiled may be older than they are."""


class Tail(ctypes.Structure):
    """What follows a convolution; ``struct tail`` of ``maps.c``.

    ``groups`` of channels are normalised together in each image, 0 where statistics are given. ``activation`` and
    ``pooling`` are positions in :data:`nasproxy.kernels.fused.ACTIVATIONS` and ``POOLINGS``. ``narrow`` maps are of
    bfloat16. ``per_pixel`` says that scale and shift are of each pixel and channel. ``team`` is :func:`team`,
    of ``threads`` threads, which do the work in as many ``parts``.
    """

    _fields_ = (
        ("team", ctypes.c_void_p),
        ("images", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("activation", ctypes.c_int32),
        ("pooling", ctypes.c_int32),
        ("narrow", ctypes.c_int32),
        ("per_pixel", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("parts", ctypes.c_int32),
        ("eps", ctypes.c_float),
    )


class Tiled(ctypes.Structure):
    """Maps and their tiles; ``struct tiled`` of ``winograd.c``.

    ``down`` and ``across`` are how many tiles cover an image, ``apart`` how many numbers lie from one point of a tile
    to the next. The rest is as in :class:`Tail`.
    """

    _fields_ = (
        ("team", ctypes.c_void_p),
        ("images", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("down", ctypes.c_int64),
        ("across", ctypes.c_int64),
        ("apart", ctypes.c_int64),
        ("narrow", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("parts", ctypes.c_int32),
    )


class Kernels:
    """The functions of ``maps.c`` and ``winograd.c``, whose comments say what they take and give."""

    def __init__(self, library: ctypes.CDLL) -> None:
        # Without argtypes: with some of the arguments named, ctypes would pass the rest as a variadic function's, which
        # Apple's processors find elsewhere.
        self._library = library

    def __call__(self, name: str, shape: Tail | Tiled, *buffers: Any) -> None:
        """Calls a function with the places of tensors in memory, None where it needs none.

        Raises:
            ValueError: a tensor does not lie in memory as C reads it.
            MemoryError: there was none for what the function needs between.
        """
        places = [None if buffer is None else ctypes.c_void_p(_place(buffer, shape)) for buffer in buffers]
        if getattr(self._library, f"nasproxy_{name}")(ctypes.byref(shape), *places):
            raise MemoryError("Convolving, normalising and pooling maps needs more memory than there is.")


def _place(buffer: Any, shape: Tail | Tiled) -> int:
    """Where a tensor lies: maps that a tail is given are channels-last, all else is in the order of its dimensions."""
    import torch

    tail = isinstance(shape, Tail)
    narrow = shape.narrow and buffer.dim() >= (4 if tail else 3)
    dtype = torch.bfloat16 if narrow else torch.float32
    layout = torch.channels_last if tail and buffer.dim() == 4 else torch.contiguous_format
    fits = buffer.dtype == dtype and buffer.is_contiguous(memory_format=layout) and not buffer.is_neg()
    if buffer.device.type != "cpu" or not fits:
        raise ValueError(
            f"The kernels take {dtype} on a CPU, {layout}; got {buffer.dtype} on {buffer.device}, {tuple(buffer.shape)}"
            f" with strides {buffer.stride()}."
        )
    place: int = buffer.data_ptr()
    return place


def can_run() -> bool:
    """Whether the kernels are there, and can use as many threads as torch."""
    import torch

    return kernels() is not None and (torch.get_num_threads() == 1 or team() is not None)


def shares(numbers: int) -> dict[str, Any]:
    """By whom so many numbers are worked on: the team, threads and parts of :class:`Tail` and :class:`Tiled`."""
    import torch

    threads = torch.get_num_threads()
    return {"team": team(), "threads": threads, "parts": max(1, min(threads, numbers // _LEAST))}


_LEAST = 2**16  # numbers of a part: with fewer, to share them takes longer than it saves


@cache
def kernels() -> Kernels | None:
    """The kernels; None where :func:`why_none` says why."""
    library = _library()
    if library is None or _version(library) != VERSION or not library.nasproxy_supported():
        return None
    return Kernels(library)


def why_none() -> str | None:
    """Why there are no kernels here, and what can be done; None if there are."""
    if kernels() is not None:
        return None
    slower = "on a processor networks train and images condense more slowly than they could"
    library = _library()
    if library is None and _file() is not None:
        return f"nasproxy's kernels cannot be loaded here: {slower}. Install it again (python -m pip install)."
    # Of a version that called them otherwise, or of another Python's: whoever compiled it had a compiler.
    others = any(Path(__file__).parent.glob(f"_*{EXTENSION_SUFFIXES[-1]}"))
    if library is None and not others:
        return (
            f"nasproxy was installed without a C compiler: {slower}. With one (gcc, clang), install it again (python -m"
            " pip install)."
        )
    if library is None or _version(library) != VERSION:
        return f"nasproxy's kernels are of another version: {slower}. Install it again (python -m pip install)."
    return f"This processor has no AVX2: {slower}."


def _version(library: Any) -> int:
    return int(library.nasproxy_version()) if hasattr(library, "nasproxy_version") else 0


@cache
def _library() -> ctypes.CDLL | None:
    found = _file()
    try:
        return None if found is None else ctypes.CDLL(str(found))
    except OSError:  # compiled for another processor, say
        return None


def _file() -> Path | None:
    paths = (Path(__file__).with_name(f"_compiled{suffix}") for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


@cache
def team() -> int | None:
    """Where in memory the function lies that runs another one in several threads: OpenMP's, as torch has loaded it.

    None if torch has another way to run in threads; the kernels then run in one.
    """
    function = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value
