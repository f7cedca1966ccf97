"""From the name of a proxy, or the path of a proxy file, to the images; made once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nasproxy.condensation.gradient_matching import condense
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.random import draw_per_class
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import ProxyError
from nasproxy.files import cache_folder, make_folder
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.versions import library_versions

PROXIES = ("condensed", "random")
"""What ``--proxy`` can name."""


def condensed_proxy(
    dataset: ImageDataset,
    recipe: MatchingRecipe,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_iteration: Callable[[int, float], None] | None = None,
    use_cache: bool = True,
) -> ProxySet:
    """The condensed set of ``dataset`` by gradient matching, from the cache if it was made before.

    Args:
        dataset: what to condense.
        recipe: the method's settings.
        seed: of the condensation.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_iteration: called after each outer iteration with its number (from 1) and its mean matching loss.
        use_cache: False computes in any case; what is made is kept either way.

    Raises:
        DatasetError: a class has too few images.
        DivergedError: the matching loss left the finite numbers.
        WriteError: the cache cannot be written.
    """
    settings = _settings(recipe, seed, device, precision)
    kept = cached_path("dc", dataset.fingerprint, settings)
    if use_cache and kept.exists():
        try:
            return load_matching_proxy(kept, dataset)
        except ProxyError:
            # A damaged cache entry is no error of the user's: it is made again.
            kept.unlink(missing_ok=True)
    make_folder(kept.parent)  # before the work, which would be lost without it
    made = condense(dataset, recipe, seed=seed, device=device, precision=precision, on_iteration=on_iteration)
    proxy = _proxy_set(dataset, made.images, made.labels, "dc", settings, made.seconds, made.losses)
    save_proxy(proxy, kept)
    return proxy


def cached_condensed(
    dataset: ImageDataset, recipe: MatchingRecipe, *, seed: int, device: torch.device, precision: str
) -> Path:
    """Where the cache keeps this condensed set, if it has been made."""
    return cached_path("dc", dataset.fingerprint, _settings(recipe, seed, device, precision))


def _settings(recipe: MatchingRecipe, seed: int, device: torch.device, precision: str) -> dict[str, Any]:
    return {**asdict(recipe), "seed": seed, "precision": precision, "device": device.type}


def random_proxy(dataset: ImageDataset, ipc: int, *, seed: int) -> ProxySet:
    """``ipc`` random real training images of each class.

    Raises:
        DatasetError: a class has too few images.
    """
    positions = draw_per_class(dataset, ipc, torch.Generator().manual_seed(seed))
    images = dataset.normalisation.apply(dataset.train.images[positions])
    settings = {"ipc": ipc, "seed": seed}
    return _proxy_set(dataset, images, dataset.train.labels[positions], "random", settings, 0.0, ())


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
    text = json.dumps({"method": method, "fingerprint": fingerprint, **settings}, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    return cache_folder() / "proxies" / f"{method}-{digest}.safetensors"


def _proxy_set(
    dataset: ImageDataset,
    images: torch.Tensor,
    labels: torch.Tensor,
    method: str,
    settings: dict[str, Any],
    seconds: float,
    history: tuple[float, ...],
) -> ProxySet:
    return ProxySet(
        images=images,
        labels=labels,
        method=method,
        recipe=settings,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        seconds=seconds,
        history=history,
        versions=library_versions(),
    )
