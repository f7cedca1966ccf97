"""Which device, how many workers, and what share of it each takes."""

from __future__ import annotations

import torch

from nasproxy.errors import InputError, nearest
from nasproxy.versions import usable_cores

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """The device that ``name`` means on this machine; ``auto`` is a GPU where there is one.

    Raises:
        InputError: no such device, by name or on this machine.
    """
    if name not in DEVICES:
        raise InputError(f"No device is called {name!r}.", nearest(name, DEVICES))
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        usable = ", ".join(device for device, found in there.items() if found)
        raise InputError(
            f"--device {name} was asked for, but PyTorch finds none on this machine.", f"Usable here: {usable}."
        )
    return torch.device(name)


def default_workers(device: torch.device, threads: int, gpus_per_worker: float) -> int:
    """As many workers as the GPUs, or the cores, hold."""
    if device.type == "cuda":
        return max(1, int(torch.cuda.device_count() / gpus_per_worker))
    return max(1, usable_cores() // threads) if device.type == "cpu" else 1


def check_workers(workers: int, device: torch.device, threads: int) -> None:
    """Makes sure that the workers' threads fit the cores.

    Raises:
        InputError: they do not: each would run slower than one alone.
    """
    cores = usable_cores()
    if device.type == "cpu" and workers * threads > cores:
        raise InputError(
            f"{workers} workers of {threads} threads need {workers * threads} cores, this machine has {cores}.",
            f"Use --workers {max(1, cores // threads)}, or fewer --threads-per-worker.",
        )
