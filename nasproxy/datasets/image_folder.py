"""A folder of image files, one folder a class: ``class/x.png``, or ``train/class/x.png`` with ``test``, ``val``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nasproxy.datasets.decoding import EXTENSIONS
from nasproxy.datasets.encoded import Encoded, EncodedPart, Listing
from nasproxy.datasets.source import PartName
from nasproxy.errors import DatasetError, some

PART_FOLDERS: dict[PartName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of a part's folder, in any case."""

LAYOUT = "Expected FOLDER/CLASS/image.png, or FOLDER/train/CLASS/image.png (also test, val)."


def list_image_folder(root: Path) -> Listing:
    """Images below ``root``; a class is a folder and its name the class's, in alphabetical order.

    Files are taken by extension, folders within a class and links to folders included; hidden files and folders are
    left out.

    Raises:
        DatasetError: no such layout, no images, or parts whose classes differ.
        OSError: a folder cannot be read.
    """
    inside = {root: _subfolders(root)}
    inside.update({folder: _subfolders(folder) for folder in inside[root]})
    folders, notes = _part_folders(root, inside)
    class_names = [folder.name for folder in inside[folders["train"]]]
    if not class_names:
        raise DatasetError(f"{root} holds no folders of images.", LAYOUT)
    parts: dict[PartName, EncodedPart] = {}
    files: list[Path] = []
    for name, folder in folders.items():
        _check_same_classes(folder, inside[folder], class_names)
        found, labels, ignored = _list_part(folder, class_names)
        parts[name] = _encoded(folder, found, labels)
        files += found
        if ignored:
            what = "1 file that is no image" if ignored == 1 else f"{ignored:,} files that are no images"
            notes.append(f"{what} by extension, in {folder.name}: left out.")
    if not len(parts["train"].labels):
        raise DatasetError(f"The folders in {folders['train']} hold no image files ({_extensions()}).", LAYOUT)
    if folders["train"] == root:
        notes += _nested_note(root, inside, files)
    return Listing(parts, tuple(_printable(name) for name in class_names), notes, files)


def _part_folders(root: Path, inside: Mapping[Path, Sequence[Path]]) -> tuple[dict[PartName, Path], list[str]]:
    # A folder "train" that holds images, not folders, is a class: of vehicles, say.
    split = [folder for folder in inside[root] if inside[folder]]
    present = {part: [folder for folder in split if folder.name.lower() in PART_FOLDERS[part]] for part in PART_FOLDERS}
    if not present["train"]:
        return {"train": root}, []
    for part, folders in present.items():
        if len(folders) > 1:
            names = ", ".join(folder.name for folder in folders)
            raise DatasetError(f"{root} has several {part} parts: {names}.", "Keep one of them.")
    found = {part: folders[0] for part, folders in present.items() if folders}
    others = [_printable(folder.name) for folder in inside[root] if folder not in found.values()]
    return found, [f"Folders that are no part of the split were left out: {', '.join(others)}."] if others else []


def _nested_note(root: Path, inside: Mapping[Path, Sequence[Path]], files: Iterable[Path]) -> list[str]:
    """Where classes hold no images but several folders each, they may be parts of the data, or datasets."""
    classes = inside[root]
    if len(classes) < 2 or any(len(inside[folder]) < 2 for folder in classes):
        return []
    if any(file.parent.parent == root for file in files):
        return []
    named, within = (
        [folder.name for folder in classes],
        [[entry.name for entry in inside[folder]] for folder in classes],
    )
    if all(names == within[0] for names in within):
        return [
            f"The class folders {_shown(named)} hold the same folders: {_shown(within[0])}. "
            "If they were meant as parts of the data, name them train and test."
        ]
    split = [folder for folder in classes if any(map(_is_training_part, inside[folder]))]
    # Folders that classes share are kinds of images, as indoors and outdoors.
    if split or len({*itertools.chain(*within)}) == sum(map(len, within)):
        first = split[0] if split else classes[0]
        return [
            f"The class folders {_shown(named)} hold no images, only folders: {_printable(first.name)} holds "
            f"{_shown([entry.name for entry in inside[first]])}. If each is a dataset of its own, pass one of them: "
            f"{_printable(str(first))}."
        ]
    return []


def _is_training_part(folder: Path) -> bool:
    return folder.name.lower() in PART_FOLDERS["train"] and bool(_subfolders(folder))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _check_same_classes(folder: Path, subfolders: Sequence[Path], class_names: Sequence[str]) -> None:
    unknown = [entry.name for entry in subfolders if entry.name not in class_names]
    if unknown:
        raise DatasetError(
            f"{folder} has classes that the training part lacks: {', '.join(unknown[:5])}.",
            f"The training part has {some(class_names)}.",
        )


def _list_part(folder: Path, class_names: Sequence[str]) -> tuple[list[Path], list[int], int]:
    """Image files, their labels, and the number of other files."""
    files: list[Path] = []
    labels: list[int] = []
    ignored = 0
    for label, class_name in enumerate(class_names):
        for path in files_below(folder / class_name):
            if path.suffix.lower() not in EXTENSIONS:
                ignored += 1
                continue
            files.append(path)
            labels.append(label)
    return files, labels, ignored


def _encoded(folder: Path, files: Sequence[Path], labels: Sequence[int]) -> EncodedPart:
    named = [Encoded(_printable(path.relative_to(folder).as_posix()), path) for path in files]
    return EncodedPart(np.array(labels, np.int64), lambda: [named])


def files_below(folder: Path) -> list[Path]:
    """Regular files (never a pipe or a device) at any depth below ``folder``, by their path; none that is hidden.

    Links to folders are followed, but no folder is entered twice, nor by a link one that holds a folder on the way.

    Raises:
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        return []
    found: list[Path] = []
    entered: set[Path] = set()
    ways: dict[str, tuple[Path, ...]] = {}
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        place, way = Path(os.path.realpath(parent)), ways.get(os.path.dirname(parent), ())  # noqa: PTH120
        if place in entered or any(passed.is_relative_to(place) for passed in way):
            folders.clear()
            continue
        entered.add(place)
        ways[parent] = (*way, place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found.extend(path for path in paths if path.is_file())
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _extensions() -> str:
    return ", ".join(sorted(EXTENSIONS))


def _shown(names: Sequence[str]) -> str:
    return some([_printable(name) for name in names], 5)


def _printable(name: str) -> str:
    """A file name need not be UTF-8; what is printed and stored must be."""
    return os.fsencode(name).decode("utf-8", "replace")
