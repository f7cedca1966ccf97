"""The one way in: a name or a path becomes an ImageDataset."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nasproxy.datasets.assemble import assemble
from nasproxy.datasets.catalogue import available_datasets
from nasproxy.datasets.digits import read_digits
from nasproxy.datasets.encoded import Listing
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.image_folder import LAYOUT, list_image_folder
from nasproxy.datasets.kept import content_facts, keep, kept_file, load_kept
from nasproxy.datasets.parquet_folder import find_parquet, list_parquet
from nasproxy.datasets.resizing import Size, check_image_size
from nasproxy.datasets.source import Source
from nasproxy.datasets.torchvision_names import TORCHVISION_CLASSES, read_torchvision
from nasproxy.errors import DatasetError, WriteError, nearest


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
    with explained(name):
        source = read_named(name, data_dir, size)
        if source is not None:
            return assemble(name, source)
        return _decoded(folder_name(name), existing_folder(name), size, skip_broken=skip_broken)


def read_named(name: str, data_dir: Path | None, image_size: Size | None) -> Source | None:
    """The dataset that has this name; None if none has, and it must be a folder's.

    Raises:
        DatasetError: its files are missing or damaged and cannot be downloaded.
    """
    if name == "digits":
        return read_digits(image_size)
    return read_torchvision(name, data_dir, image_size) if name in TORCHVISION_CLASSES else None


def list_folder(root: Path) -> Listing:
    """What a folder of Parquet files or of images holds, none of them opened.

    Raises:
        DatasetError: it is neither.
        OSError: it cannot be read.
    """
    files = find_parquet(root)
    return list_parquet(files) if files else list_image_folder(root)


def folder_name(name: str) -> str:
    """A folder's own name: what is shared of a run must not tell where its data lie."""
    return Path(os.path.abspath(os.path.expanduser(name))).name  # noqa: PTH100, PTH111


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """What the system refuses while the dataset ``name`` is read, as a DatasetError."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"{error.filename or name} cannot be read: {error.strerror or error}.",
            "Check that the path is right and that you may read it.",
        ) from error
    except MemoryError as error:
        raise DatasetError(f"The images of {name} do not fit in memory.", "Pass a smaller --image-size.") from error


def _decoded(name: str, root: Path, size: Size | None, *, skip_broken: bool) -> ImageDataset:
    """From the cache, if it was decoded before and no file has changed since."""
    listing = list_folder(root)
    path, facts = kept_file(root, size, skip_broken=skip_broken), content_facts(listing)
    found = load_kept(path, name, facts)
    if found is not None:
        return found
    made = assemble(name, listing.decode(size, skip_broken=skip_broken))
    try:
        keep(made, path, facts)
    except WriteError as error:
        note = f"The decoded images could not be kept for the next time: {error}"
        return replace(made, notes=(*made.notes, note))
    return load_kept(path, name, facts) or made


def existing_folder(name: str) -> Path:
    """The folder that ``name`` is the path of.

    Raises:
        DatasetError: there is none, or it is empty.
        OSError: it cannot be read.
    """
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
        raise DatasetError(f"{path} is a file; a dataset is a folder.", _instead_of_file(path))
    if not any(path.iterdir()):
        raise DatasetError(f"The folder {path} is empty.", f"{LAYOUT} Or train*.parquet.")
    return path


def _instead_of_file(path: Path) -> str:
    """What to do about a file that was given as a dataset."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        return f"Give the folder that holds train*.parquet, and test*.parquet if there is such a part: {path.parent}"
    if kind in (".npz", ".npy"):
        return (
            "NumPy's arrays are not read. Save each image in the folder of its class, by"
            f" PIL.Image.fromarray(pixels).save(…), and give the folder that holds these. {LAYOUT}"
        )
    return f"Give the folder that holds it. {LAYOUT} Or the folder of train*.parquet."
