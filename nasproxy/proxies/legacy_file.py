"""The ``.pt`` files that the code published with the paper writes, read without executing anything in them.

Each is a dictionary: ``data`` holds a pair of images and labels for each experiment, ``accs_all_exps`` the test
accuracies that the authors' script measured, a list for each network.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasproxy.datasets.image_dataset import ImageDataset, Normalisation
from nasproxy.errors import InputError, ProxyError, nearest
from nasproxy.proxies.proxy_set import FULL_SPLIT, SOURCES, ProxySet
from nasproxy.versions import library_versions

AUTHORS_NORMALISATION = {
    "mnist": Normalisation((0.1307,), (0.3081,)),
    "fashion-mnist": Normalisation((0.2861,), (0.3530,)),
    "svhn": Normalisation((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Normalisation((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tiny-imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""What the authors' code normalises each dataset by; nasproxy measures its own on the training part."""
OWN = "own"
"""The word for the normalisation that nasproxy measured."""
_WHERE = "Expected is a file that the authors' code wrote: a dictionary with 'data', a list of [images, labels]."

# The accuracies are NumPy scalars; the function that makes one from bytes has another name since NumPy 2.
_SCALAR = np.float64(0).__reduce__()[0]
_ALLOWED: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype(np.float64)),
    type(np.dtype(np.float32)),
]


def load_legacy_proxy(
    path: Path, dataset: ImageDataset, *, experiment: int = 0, normalisation: str | None = None
) -> ProxySet:
    """One experiment's images as a proxy of ``dataset``, which the file does not name.

    The authors condense the full training split, so the proxy's recipe says that validation images may be among its
    sources.

    Args:
        path: of the ``.pt`` file.
        dataset: that the images were condensed from; its class order must be the file's.
        experiment: which of the file's, from 0.
        normalisation: what the images are normalised by: the name of one of the authors' datasets, or ``own`` for that
            of ``dataset``; None goes by the name of ``dataset``.

    Raises:
        ProxyError: the file is damaged, foreign, or its images are none of ``dataset``.
        InputError: there is no such experiment or normalisation.
    """
    scale = _normalisation(normalisation, dataset)
    content = _read(path)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list | tuple) or not data:
        raise ProxyError(f"{path} holds no list called 'data'.", _WHERE)
    if not 0 <= experiment < len(data):
        raise InputError(
            f"{path} holds {len(data)} experiments; there is no {experiment}.", f"Choose one of 0 to {len(data) - 1}."
        )
    images, labels = _pair(path, data[experiment])
    proxy = ProxySet(
        images=_renormalised(images, scale, dataset.normalisation) if images.shape[1] == dataset.channels else images,
        labels=labels,
        method="imported",
        recipe={
            "file": path.name,
            "experiment": experiment,
            "accuracies": _accuracies(content),
            SOURCES: FULL_SPLIT,
        },
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        seconds=0.0,
        history=(),
        versions=library_versions(),
    )
    proxy.check_matches(dataset)
    if int(labels.min()) < 0 or len(labels.unique()) != dataset.num_classes or int(labels.max()) >= dataset.num_classes:
        raise ProxyError(
            f"{path} has images of {len(labels.unique())} classes, numbered {int(labels.min())} to"
            f" {int(labels.max())}; {dataset.name} has {dataset.num_classes}.",
            "Give the --dataset that the images were condensed from.",
        )
    return proxy


def _normalisation(name: str | None, dataset: ImageDataset) -> Normalisation:
    known = [*AUTHORS_NORMALISATION, OWN]
    if name == OWN:
        return dataset.normalisation
    if name is None and dataset.name not in AUTHORS_NORMALISATION:
        raise InputError(
            f"What the images are normalised by does not follow from the name of the dataset {dataset.name}.",
            f"Say --normalisation, one of {', '.join(known)}.",
        )
    found = AUTHORS_NORMALISATION.get(name or dataset.name)
    if found is None:
        raise InputError(f"No normalisation is called {name!r}.", nearest(str(name), known))
    if len(found.mean) != dataset.channels:
        raise InputError(
            f"The normalisation of {name or dataset.name} has {len(found.mean)} channels, the images of {dataset.name}"
            f" have {dataset.channels}.",
            "Give another --normalisation or --dataset.",
        )
    return found


def _read(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of foreign files, which the checks below are for
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ProxyError(f"There is no file {path}.", "Give the path of a .pt or a proxy file.") from error
    except Exception as error:  # torch.load meets hostile bytes with any exception there is
        # Not torch's advice, which is to load it nevertheless.
        lines = [line for line in str(error).splitlines() if line.strip() and "weights_only" not in line]
        reason = (lines or [type(error).__name__])[0].strip()
        raise ProxyError(f"{path} cannot be read, or holds more than tensors and numbers: {reason}", _WHERE) from error


def _pair(path: Path, pair: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of an experiment, checked."""
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise ProxyError(f"An experiment of {path} is no pair of images and labels.", _WHERE)
    images, labels = (part.detach() for part in pair)
    if images.layout != torch.strided or labels.layout != torch.strided or images.is_meta or labels.is_meta:
        raise ProxyError(f"The tensors of {path} are not plain ones.", _WHERE)
    if images.ndim != 4 or labels.shape != images.shape[:1] or images.numel() == 0:
        shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
        raise ProxyError(f"Images and labels of {path} do not belong together: their shapes are {shapes}.", _WHERE)
    if not images.is_floating_point() or labels.is_floating_point() or labels.is_complex():
        raise ProxyError(f"The images of {path} are {images.dtype}, the labels {labels.dtype}.", _WHERE)
    images, labels = images.float().contiguous().clone(), labels.long().contiguous().clone()
    if not bool(torch.isfinite(images).all()):
        raise ProxyError(f"Pixels of {path} are not finite.", "Condense again with a smaller image learning rate.")
    return images, labels


def _renormalised(images: Tensor, before: Normalisation, after: Normalisation) -> Tensor:
    """From one normalised space to another, without a stop at 256 levels."""
    (old_mean, old_std), (mean, std) = (one.columns(dtype=torch.float64) for one in (before, after))
    return ((images.double() * old_std + old_mean - mean) / std).float()


def _accuracies(content: Mapping[Any, Any]) -> dict[str, float]:
    """The mean over all experiments of what the authors' script measured, for each network that has any."""
    found = content.get("accs_all_exps")
    means: dict[str, float] = {}
    for name, values in found.items() if isinstance(found, dict) else ():
        if not isinstance(values, list | tuple):
            continue
        numbers = [float(v) for v in values if isinstance(v, int | float | np.number)]
        if numbers and all(map(math.isfinite, numbers)):
            means[str(name)] = fmean(numbers)
    return means
