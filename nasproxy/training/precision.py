"""Which floating-point format a device is fast at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from nasproxy.errors import InputError, nearest
from nasproxy.kernels.fused import fused_maps
from nasproxy.training.convolution import FastConvolutions
from nasproxy.training.recipe import PRECISIONS


def resolve_precision(name: str, device: torch.device) -> str:
    """One of :data:`PRECISIONS` but ``auto``: what that means on ``device``, or the name itself.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PRECISIONS:
        raise InputError(f"No precision is called {name!r}.", nearest(name, PRECISIONS))
    if name != "auto":
        return name
    return "bfloat16" if _bfloat16_is_fast(device) else "float32"


def _bfloat16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # On a processor without the instructions bfloat16 is emulated, and slow.
    return device.type == "cpu" and (_cpu_has("_is_avx512_bf16_supported") or has_amx())


def _cpu_has(question: str) -> bool:
    check = getattr(torch.cpu, question, None)  # torch has no public one
    return check is not None and bool(check())


def in_bfloat16(precision: str) -> bool:
    """Whether matrix products of this precision are of bfloat16."""
    return precision in ("bfloat16", "bfloat16-direct")


def is_direct(precision: str) -> bool:
    """Whether all convolutions are to be torch's."""
    return precision.endswith("-direct")


def has_amx() -> bool:
    """Whether this processor multiplies whole tiles of matrices in bfloat16."""
    return _cpu_has("_is_amx_tile_supported")


def autocast(precision: str, device: torch.device, *, exact: bool = False) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs; weights, losses and updates stay float32.

    On a CPU convolutions are computed as in :class:`FastConvolutions`, and what follows them in a ConvNet as by
    :func:`fused_maps`; ``float32-direct`` and ``bfloat16-direct`` leave all to torch.

    Args:
        precision: one of :data:`PRECISIONS` but ``auto``.
        device: that the pass is on.
        exact: whether bfloat16 must not lose more than its own rounding, see :class:`FastConvolutions`.
    """
    context = torch.autocast(device.type, dtype=torch.bfloat16, enabled=in_bfloat16(precision))
    return context if device.type != "cpu" or is_direct(precision) else _fast(context, exact=exact)


@contextmanager
def _fast(context: AbstractContextManager[Any], *, exact: bool) -> Iterator[None]:
    with fused_maps(), FastConvolutions(amx=has_amx(), exact=exact), context:
        yield
