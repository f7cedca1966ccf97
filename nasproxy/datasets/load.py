"""The one way in: a name or a path becomes an ImageDataset."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from nasproxy.datasets.assemble import assemble
from nasproxy.datasets.catalogue import available_datasets
from nasproxy.datasets.digits import read_digits
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.image_folder import LAYOUT, read_image_folder
from nasproxy.datasets.parquet_folder import find_parquet, read_parquet
from nasproxy.datasets.resizing import Size, check_image_size
from nasproxy.datasets.source import Source
from nasproxy.datasets.torchvision_names import TORCHVISION_CLASSES, read_torchvision
from nasproxy.errors import DatasetError, nearest


def load_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_broken: bool = False,
) -> ImageDataset:
    """Loads, resizes, splits and fingerprints a dataset.

    Args:
        name: one of ``available_datasets()``, or the path of a folder in ImageFolder layout or of Hugging Face image
            Parquet. A name wins over a folder of that name in the current directory; ``./name`` means the folder.
        data_dir: where the torchvision datasets are, or go; ``default_data_dir()`` unless given.
        image_size: pixels, one number for a square or (height, width). By default images keep their size; where a
            folder's differ, or exceed 64, they get the most common one, scaled to at most 64.
        skip_broken: leave images that cannot be decoded out, and count them in the notes.

    Raises:
        DatasetError: anything that makes ``name`` unusable as a dataset.

    Example:
        >>> load_dataset("digits").image_size
        (16, 16)
    """
    size = check_image_size(image_size)
    try:
        # A folder's own name: what is shared of a run must not tell where its data lie.
        source = _read(name, data_dir, size, skip_broken=skip_broken)
        return assemble(Path(os.path.abspath(os.path.expanduser(name))).name, source)  # noqa: PTH100, PTH111
    except OSError as error:
        raise DatasetError(
            f"{error.filename or name} cannot be read: {error.strerror or error}.",
            "Check that the path is right and that you may read it.",
        ) from error
    except MemoryError as error:
        raise DatasetError(f"The images of {name} do not fit in memory.", "Pass a smaller --image-size.") from error


def _read(name: str, data_dir: Path | None, size: Size | None, *, skip_broken: bool) -> Source:
    if name == "digits":
        return read_digits(size)
    if name in TORCHVISION_CLASSES:
        return read_torchvision(name, data_dir, size)
    root = _existing_folder(name)
    if files := find_parquet(root):
        return read_parquet(files, size, skip_broken=skip_broken)
    return read_image_folder(root, size, skip_broken=skip_broken)


def _existing_folder(name: str) -> Path:
    path = Path(name)
    with contextlib.suppress(RuntimeError):  # "~stranger", which may yet be a folder of that name
        path = path.expanduser()
    if not name or not os.path.exists(path):  # noqa: PTH110  (Path.exists raises for a name that is too long)
        raise DatasetError(
            f"There is no dataset called '{name}', and no folder of that path.",
            f"{nearest(name, (info.name for info in available_datasets()))} Or give the path of a folder of images "
            "(one folder a class) or of Hugging Face image Parquet.",
        )
    if not path.is_dir():
        raise DatasetError(f"{path} is a file; a dataset is a folder.", f"Give the folder that holds it. {LAYOUT}")
    if not any(path.iterdir()):
        raise DatasetError(f"The folder {path} is empty.", f"{LAYOUT} Or train*.parquet.")
    return path
