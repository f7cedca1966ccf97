"""From the name of a proxy, or the path of a proxy file, to the images; made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nasproxy.coresets.random import RandomImages
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import ProxyError
from nasproxy.files import cached_file, make_folder
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.versions import library_versions


def make_proxy(
    dataset: ImageDataset,
    method: ProxyMethod,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_iteration: Callable[[int, float], None] | None = None,
    use_cache: bool = True,
) -> ProxySet:
    """The proxy that ``method`` makes of ``dataset``, from the cache if it was made before.

    Args:
        dataset: what to stand for.
        method: with its settings.
        seed: of everything drawn at random.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_iteration: called after each of ``method.steps`` with its number (from 1) and a loss.
        use_cache: False makes it in any case; what is made is kept either way.

    Raises:
        DatasetError: a class has too few images.
        DivergedError: a loss left the finite numbers.
        WriteError: the cache cannot be written.
    """
    settings = _settings(method, seed, device, precision)
    kept = cached_path(method.name, dataset.fingerprint, settings)
    if use_cache and kept.exists():
        try:
            return load_matching_proxy(kept, dataset)
        except ProxyError:
            # A damaged cache entry is no error of the user's: it is made again.
            kept.unlink(missing_ok=True)
    make_folder(kept.parent)  # before the work, which would be lost without it
    made = method.make(dataset, seed=seed, device=device, precision=precision, on_iteration=on_iteration)
    proxy = ProxySet(
        images=made.images,
        labels=made.labels,
        method=method.name,
        recipe=settings,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        seconds=made.seconds,
        history=made.losses,
        versions=library_versions(),
    )
    # What takes no steps is made again as fast as it is read.
    if method.steps:
        save_proxy(proxy, kept)
    return proxy


def cached_proxy(
    dataset: ImageDataset, method: ProxyMethod, *, seed: int, device: torch.device, precision: str
) -> Path:
    """Where the cache keeps this proxy, if it has been made."""
    return cached_path(method.name, dataset.fingerprint, _settings(method, seed, device, precision))


def _settings(method: ProxyMethod, seed: int, device: torch.device, precision: str) -> dict[str, Any]:
    if not method.steps:
        return {**asdict(method), "seed": seed}
    return {**asdict(method), "seed": seed, "precision": precision, "device": device.type}


def random_proxy(dataset: ImageDataset, ipc: int, *, seed: int) -> ProxySet:
    """``ipc`` random real training images of each class.

    Raises:
        DatasetError: a class has too few images.
    """
    return make_proxy(dataset, RandomImages(ipc), seed=seed, device=torch.device("cpu"), precision="float32")


def load_matching_proxy(path: Path, dataset: ImageDataset) -> ProxySet:
    """A proxy that was made before, checked against ``dataset``.

    Raises:
        ProxyError: the file is unusable, or was made from another dataset.
    """
    proxy = load_proxy(path)
    proxy.check_matches(dataset)
    return proxy


def cached_path(method: str, fingerprint: str, settings: dict[str, Any]) -> Path:
    """Where the proxy of this method, dataset and settings is kept."""
    return cached_file("proxies", method, {"method": method, "fingerprint": fingerprint, **settings})
