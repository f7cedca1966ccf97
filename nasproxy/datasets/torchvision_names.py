"""The datasets that torchvision knows how to fetch and check."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.resizing import Size, resize_images
from nasproxy.datasets.source import Source
from nasproxy.errors import DatasetError
from nasproxy.files import cache_folder

TORCHVISION_CLASSES = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "svhn": "SVHN",
    "usps": "USPS",
}
NETWORK_TIMEOUT = 30.0  # seconds without an answer
REASON_LENGTH = 300  # characters; torchvision lists every mirror it tried


def default_data_dir() -> Path:
    """Where downloads go.

    Raises:
        InputError: see :func:`~nasproxy.files.cache_folder`.
    """
    return cache_folder() / "datasets"


def read_torchvision(name: str, data_dir: Path | None = None, image_size: Size | None = None) -> Source:
    """A torchvision dataset's official training and test parts, downloaded where ``data_dir`` lacks them.

    Raises:
        DatasetError: the files are missing or damaged and cannot be downloaded.
    """
    folder = data_dir or default_data_dir()
    train, names = _read_part(name, folder, image_size, train=True)
    test, _ = _read_part(name, folder, image_size, train=False)
    return Source({"train": train, "test": test}, names)


def _read_part(name: str, folder: Path, image_size: Size | None, *, train: bool) -> tuple[Split, tuple[str, ...]]:
    dataset = _open(name, folder, train=train)
    pixels = torch.from_numpy(np.ascontiguousarray(dataset.data))
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[-1] == 3:
        pixels = pixels.movedim(3, 1).contiguous()
    if image_size:
        pixels = resize_images(pixels, image_size)
    labels = torch.as_tensor(dataset.labels if name == "svhn" else dataset.targets).long()
    names = getattr(dataset, "classes", range(10))  # SVHN and USPS are digits and name none
    return Split(pixels, labels), tuple(str(class_name) for class_name in names)


def _open(name: str, folder: Path, *, train: bool) -> Any:
    from torchvision import datasets

    dataset_class = getattr(datasets, TORCHVISION_CLASSES[name])
    part = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    # Any exception: torchvision's parsers and the network fail in many ways, all with the same remedy. The CIFAR
    # loaders unpickle, but only files whose MD5 is that of the official archive's.
    with contextlib.suppress(Exception):
        return dataset_class(folder, download=False, **part)
    try:
        with _quiet_download():
            return dataset_class(folder, download=True, **part)
    except Exception as error:
        reason = " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__
        raise DatasetError(
            f"The dataset {name} is not usable in {folder}, and downloading it there failed: {reason}",
            "Pass the folder that holds torchvision's files for it with --data-dir (remove a damaged file first), "
            "or give --dataset a folder of images or of Parquet files instead.",
        ) from error


@contextlib.contextmanager
def _quiet_download() -> Iterator[None]:
    """Keeps stdout for results, and gives up on a network that swallows packets."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(previous)
