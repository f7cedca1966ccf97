"""A folder of image files, one folder a class: ``class/x.png``, or ``train/class/x.png`` with ``test``, ``val``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nasproxy.datasets.decoding import EXTENSIONS
from nasproxy.datasets.encoded import Encoded, EncodedPart, Listing
from nasproxy.datasets.source import PartName
from nasproxy.errors import DatasetError

PART_FOLDERS: dict[PartName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
LAYOUT = "Expected FOLDER/CLASS/image.png, or FOLDER/train/CLASS/image.png (also test, val)."


def list_image_folder(root: Path) -> Listing:
    """Images below ``root``; a class is a folder and its name the class's, in alphabetical order.

    Files are taken by extension, folders within a class included; hidden files and folders are left out.

    Raises:
        DatasetError: no such layout, no images, or parts whose classes differ.
        OSError: a folder cannot be read.
    """
    folders, notes = _part_folders(root)
    class_names = [folder.name for folder in _subfolders(folders["train"])]
    if not class_names:
        raise DatasetError(f"{root} holds no folders of images.", LAYOUT)
    parts: dict[PartName, EncodedPart] = {}
    files: list[Path] = []
    for name, folder in folders.items():
        _check_same_classes(folder, class_names)
        found, labels, ignored = _list_part(folder, class_names)
        parts[name] = _encoded(folder, found, labels)
        files += found
        if ignored:
            what = "1 file that is no image" if ignored == 1 else f"{ignored:,} files that are no images"
            notes.append(f"{what} by extension, in {folder.name}: left out.")
    if not len(parts["train"].labels):
        raise DatasetError(f"The folders in {folders['train']} hold no image files ({_extensions()}).", LAYOUT)
    return Listing(parts, tuple(_printable(name) for name in class_names), notes, files)


def _part_folders(root: Path) -> tuple[dict[PartName, Path], list[str]]:
    # A folder "train" that holds images, not folders, is a class: of vehicles, say.
    split = {folder.name: folder for folder in _subfolders(root) if _subfolders(folder)}
    if "train" not in split:
        return {"train": root}, []
    found: dict[PartName, Path] = {}
    for part, names in PART_FOLDERS.items():
        present = [name for name in names if name in split]
        if len(present) > 1:
            raise DatasetError(f"{root} has several {part} parts: {', '.join(present)}.", "Keep one of them.")
        if present:
            found[part] = split[present[0]]
    others = [_printable(folder.name) for folder in _subfolders(root) if folder not in found.values()]
    return found, [f"Folders that are no part of the split were left out: {', '.join(others)}."] if others else []


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _check_same_classes(folder: Path, class_names: Sequence[str]) -> None:
    unknown = [entry.name for entry in _subfolders(folder) if entry.name not in class_names]
    if unknown:
        raise DatasetError(
            f"{folder} has classes that the training part lacks: {', '.join(unknown[:5])}.",
            f"The training part has {', '.join(class_names[:10])}{', …' if len(class_names) > 10 else ''}.",
        )


def _list_part(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], list[int], int]:
    """Image files, their labels, and the number of other files."""
    files: list[Path] = []
    labels: list[int] = []
    ignored = 0
    for label, class_name in enumerate(class_names):
        for path in _files(folder / class_name):
            if path.suffix.lower() not in EXTENSIONS:
                ignored += 1
                continue
            files.append(path)
            labels.append(label)
    return files, labels, ignored


def _encoded(folder: Path, files: Sequence[Path], labels: Sequence[int]) -> EncodedPart:
    named = [Encoded(_printable(path.relative_to(folder).as_posix()), path) for path in files]
    return EncodedPart(np.array(labels, np.int64), lambda: [named])


def _files(folder: Path) -> list[Path]:
    """Regular files (never a pipe or a device) at any depth below ``folder``, by their path."""
    if not folder.is_dir():
        return []
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found.extend(path for path in paths if path.is_file())
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _extensions() -> str:
    return ", ".join(sorted(EXTENSIONS))


def _printable(name: str) -> str:
    """A file name need not be UTF-8; what is printed and stored must be."""
    return os.fsencode(name).decode("utf-8", "replace")
