"""The proxy file: images, labels and their history in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.errors import InputError, ProxyError
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.tensor_file import TensorFileError, read_tensors, write_tensors

LEGACY = (".pt", ".pth")
"""Suffixes of the files that the authors' code writes, see :mod:`nasproxy.proxies.legacy_file`."""
_SCHEMA = 1
_KEY = "nasproxy"  # of the one metadata entry, a JSON document
_ROUNDING = 1e-3  # of probabilities that add up to 1


def save_proxy(proxy: ProxySet, path: Path | str) -> Path:
    """Writes ``proxy`` to ``path`` (.safetensors), atomically; returns the path.

    Raises:
        WriteError: the file cannot be written.
    """
    path = Path(path)
    facts: dict[str, Any] = {
        "schema": _SCHEMA,
        "method": proxy.method,
        "recipe": dict(proxy.recipe),
        "dataset": proxy.dataset,
        "fingerprint": proxy.fingerprint,
        "class_names": proxy.class_names,
        "normalisation": asdict(proxy.normalisation),
        "seconds": proxy.seconds,
        "history": proxy.history,
        "versions": dict(proxy.versions),
        "evaluations": proxy.evaluations,
        "finished": proxy.finished,
    }
    tensors = {"images": proxy.images.float(), "labels": proxy.labels}
    if proxy.soft_labels is not None:
        tensors["soft_labels"] = proxy.soft_labels.float()
    return write_tensors(path, tensors, _KEY, facts)


def load_proxy(path: Path | str) -> ProxySet:
    """Reads a proxy file.

    Raises:
        ProxyError: there is no such file; it is truncated, not safetensors, or not one of nasproxy's.
    """
    if not os.path.isfile(path):  # noqa: PTH113, Path.is_file raises for a name that is too long
        raise ProxyError(f"There is no proxy file {path}.", "Make one with nasproxy condense --out FILE.")
    try:
        return _proxy(*read_tensors(path, _KEY, parse=_parse))
    except TensorFileError as error:
        hint = "Make the proxy again, or copy the file again."
        if Path(path).suffix.lower() in LEGACY:
            hint = f"Import a file of the authors' code by nasproxy proxy convert {path} --dataset NAME."
        raise ProxyError(f"{path} is not a whole safetensors file: {error}.", hint) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ProxyError(
            f"{path} is a safetensors file, but not a proxy that nasproxy wrote: {_reason(error)}.",
            "Make one with nasproxy condense --out FILE.",
        ) from error


def check_replaceable(path: Path) -> None:
    """Makes sure that writing a proxy to ``path`` overwrites nothing but a proxy.

    Raises:
        InputError: another file is there.
    """
    if not path.exists():
        return
    try:
        load_proxy(path)
    except ProxyError as error:
        raise InputError(
            f"{path} would be overwritten, which is no proxy file of nasproxy: {error.message}",
            "Choose another --out, or move it away.",
        ) from error


def _finite(given: Any) -> float:
    """A number of the document, or of a text in it; ``1e999`` is infinite by its size."""
    number = float(given)
    if not math.isfinite(number):
        raise ValueError(f"{given} is no number of a proxy")
    return number


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _proxy(facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> ProxySet:
    if facts["schema"] != _SCHEMA:
        raise ValueError(f"schema {facts['schema']}, expected {_SCHEMA}")
    images, labels = tensors["images"], tensors["labels"]
    class_names = tuple(str(name) for name in facts["class_names"])
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels) or images.numel() == 0:
        raise ValueError(f"images {tuple(images.shape)} and labels {tuple(labels.shape)} do not belong together")
    if images.dtype != torch.float32 or labels.dtype != torch.int64 or not bool(torch.isfinite(images).all()):
        raise ValueError("expected finite float32 images and int64 labels")
    if int(labels.min()) < 0 or int(labels.max()) >= len(class_names):
        raise ValueError(f"a label lies outside the {len(class_names)} classes")
    soft_labels = tensors.get("soft_labels")
    if soft_labels is not None:
        _check_soft_labels(soft_labels, len(labels), len(class_names))
    scale = facts["normalisation"]
    if images.shape[1] not in (1, 3) or not len(scale["mean"]) == len(scale["std"]) == images.shape[1]:
        raise ValueError(f"{images.shape[1]} channels, {len(scale['mean'])} means and {len(scale['std'])} deviations")
    if not all(map(math.isfinite, (*scale["mean"], *scale["std"]))) or min(scale["std"]) <= 0:
        raise ValueError(f"no images are normalised by {scale}")
    return ProxySet(
        images=images,
        labels=labels,
        method=str(facts["method"]),
        recipe=dict(facts["recipe"]),
        dataset=str(facts["dataset"]),
        fingerprint=str(facts["fingerprint"]),
        class_names=class_names,
        normalisation=Normalisation(tuple(map(float, scale["mean"])), tuple(map(float, scale["std"]))),
        seconds=_finite(facts["seconds"]),
        history=tuple(map(_finite, facts["history"])),
        versions=dict(facts["versions"]),
        # Files of the first version have neither.
        evaluations=tuple((int(step), _finite(accuracy)) for step, accuracy in facts.get("evaluations", ())),
        finished=bool(facts.get("finished", True)),
        soft_labels=soft_labels,
    )


def _check_soft_labels(soft_labels: torch.Tensor, images: int, classes: int) -> None:
    if soft_labels.shape != (images, classes) or soft_labels.dtype != torch.float32:
        raise ValueError(
            f"soft labels are {soft_labels.dtype} {tuple(soft_labels.shape)}, expected float32 {(images, classes)}"
        )
    sums = soft_labels.sum(dim=1)
    if not bool((soft_labels >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), atol=_ROUNDING):
        raise ValueError("soft labels are no probabilities")


def _reason(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
