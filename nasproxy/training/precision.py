"""Which floating-point format a device is fast at."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from nasproxy.errors import InputError, nearest
from nasproxy.training.convolution import WinogradConvolutions
from nasproxy.training.recipe import PRECISIONS


def resolve_precision(name: str, device: torch.device) -> str:
    """``bfloat16``, ``float32`` or ``float32-direct``: what ``auto`` means on ``device``, or the name itself.

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
    if device.type == "cpu":
        # torch has no public question for this; on a processor without the instructions bfloat16 is emulated, and slow.
        checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(check() for check in checks if check is not None)
    return False


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs; weights, losses and updates stay float32.

    In float32 on a CPU, wide 3×3 convolutions are Winograd's; ``float32-direct`` leaves all of them to torch.
    """
    if precision == "float32" and device.type == "cpu":
        return WinogradConvolutions()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
