"""Which device, how many workers, and what share of it each takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nasproxy.errors import ClusterError, InputError, nearest
from nasproxy.search.cluster import Node
from nasproxy.search.settings import DEVICES
from nasproxy.training.memory import lacks_memory
from nasproxy.versions import usable_cores


def resolve_device(name: str, nodes: Sequence[Node] | None = None) -> torch.device:
    """The device that ``name`` means; ``auto`` is a GPU where there is one.

    Args:
        name: one of ``DEVICES``.
        nodes: of the cluster that workers run on; None is this machine.

    Raises:
        InputError: no such device, by name or there.
    """
    if name not in DEVICES:
        raise InputError(f"No device is called {name!r}.", nearest(name, DEVICES))
    if nodes is None:
        there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        finds = "PyTorch finds none on this machine"
    else:
        there = {"cpu": True, "cuda": any(node.gpus > 0 for node in nodes), "mps": False}
        finds = "Ray knows of none in this cluster"
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        usable = ", ".join(device for device, found in there.items() if found)
        raise InputError(f"--device {name} was asked for, but {finds}.", f"Usable there: {usable}.")
    return torch.device(name)


def check_usable(device: torch.device) -> None:
    """Makes sure that this process can compute on ``device``: its machine may have none, or one without a driver.

    Raises:
        ClusterError: it cannot.
    """
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # PyTorch raises AssertionError, RuntimeError and others
        raise ClusterError(
            f"The device {device} cannot be used here: {str(error).partition(chr(10))[0]}",
            "Mend it or leave that machine out, and go on with --resume.",
        ) from error


def breaks_device(error: Exception) -> bool:
    """Whether after ``error`` nothing works on the GPU any more until the process ends."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _BROKEN) and not lacks_memory(error)


_BROKEN = ("CUDA error", "device-side assert", "illegal memory access")


def default_workers(device: torch.device, threads: int, gpus_per_worker: float) -> int:
    """As many workers as the GPUs, or the cores, of this machine hold."""
    if device.type == "cuda":
        return max(1, _held(torch.cuda.device_count(), gpus_per_worker))
    return max(1, usable_cores() // threads) if device.type == "cpu" else 1


def check_workers(workers: int, device: torch.device, threads: int, gpus_per_worker: float) -> None:
    """Makes sure that the workers' threads fit the cores of this machine, or the workers its GPUs.

    Raises:
        InputError: they do not: each would run slower than one alone, or some would wait for a GPU for ever.
    """
    if device.type == "cuda" and workers > (most := _held(gpus := torch.cuda.device_count(), gpus_per_worker)):
        raise InputError(
            f"{workers} workers of {gpus_per_worker:g} GPUs each do not fit on the {gpus} of this machine.",
            f"Use {f'--workers {most} or fewer, or ' if most else ''}a smaller --gpus-per-worker.",
        )
    cores = usable_cores()
    if device.type == "cpu" and workers * threads > cores:
        raise InputError(
            f"{workers} workers of {threads} threads need {workers * threads} cores, this machine has {cores}.",
            f"Use --workers {max(1, cores // threads)}, or fewer --threads-per-worker.",
        )


def cluster_workers(
    workers: int | None, nodes: Sequence[Node], device: torch.device, threads: int, gpus_per_worker: float
) -> int:
    """The number of workers on a cluster: ``workers``, or as many as its nodes hold.

    Raises:
        ClusterError: its nodes hold fewer: the others would be waited for.
    """
    most = capacity(nodes, threads, gpus_per_worker if device.type == "cuda" else 0.0)
    if not 1 <= (workers or most) <= most:
        share = f" and {gpus_per_worker:g} GPUs" if device.type == "cuda" else ""
        raise ClusterError(
            f"The cluster holds {most} workers of {threads} threads{share}, not {workers or 'a single one'}.",
            "Use fewer --workers, --threads-per-worker or --gpus-per-worker, or add nodes.",
        )
    return workers or most


def capacity(nodes: Sequence[Node], threads: int, gpus_per_worker: float) -> int:
    """How many workers fit on ``nodes`` together; none spans two nodes, nor a share of one GPU two GPUs.

    Args:
        nodes: of a cluster.
        threads: cores of each worker.
        gpus_per_worker: share of a GPU of each; 0 on a CPU.
    """
    fit = (int(node.cpus // threads) for node in nodes)
    if gpus_per_worker == 0:
        return sum(fit)
    return sum(min(count, _held(int(node.gpus), gpus_per_worker)) for count, node in zip(fit, nodes, strict=True))


def _held(gpus: int, share: float) -> int:
    """How many workers fit on the GPUs of one machine."""
    # Of 1 / 0.1 and the like, a rounding error must not cost a worker.
    return gpus * int(1 / share + 1e-6) if share <= 1 else int(gpus / share + 1e-6)
