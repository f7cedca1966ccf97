"""Datasets that were decoded before: images are decoded and resized once, and mapped from a file after that.

One ``.safetensors`` file for each folder and image size, so that a changed folder replaces what was kept of it. It is
written piece by piece, as no more than a part of it may fit in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import PIL
import torch

from nasproxy.datasets.assemble import fingerprint
from nasproxy.datasets.encoded import Listing
from nasproxy.datasets.image_dataset import ImageDataset, Normalisation, Split
from nasproxy.datasets.pixel_memory import PixelFile, as_tensor, memory_budget
from nasproxy.datasets.resizing import Size
from nasproxy.files import cached_file, make_folder, replacing
from nasproxy.tensor_file import read_tensors

_VERSION = 1  # of what decoding, resizing and splitting make of the same files
_KEY = "nasproxy"  # of the one metadata entry, a JSON document
_PARTS = ("train", "validation", "test")
_PIECE = 4096  # images written at once


def kept_file(root: Path, image_size: Size | None, *, skip_broken: bool) -> Path:
    """Where the cache keeps the images of a folder in a size."""
    facts = {"root": os.fsdecode(os.path.realpath(root)), "size": image_size, "skip_broken": skip_broken}
    return cached_file("images", "decoded", facts)


def content_facts(listing: Listing) -> str:
    """A hash of all that decides what is decoded, without opening the files.

    Of each file its name, size, and times of last change: that of its content can be set back, the other cannot.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((_VERSION, PIL.__version__, listing.class_names)).encode("utf-8", "surrogateescape"))
    for path in listing.files:
        facts = path.stat()
        digest.update(os.fsencode(path))
        digest.update(f"\0{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}\0".encode())
    for name, part in listing.parts.items():
        digest.update(name.encode())
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def load_kept(path: Path, name: str, facts: str) -> ImageDataset | None:
    """What was kept, under ``name``; None if nothing was, or it is damaged or of other files, and to be made again."""
    if not path.exists():
        return None
    try:
        said, found = read_tensors(path, _KEY, names=[f"{part}.labels" for part in _PARTS])
        labels = {part: found[f"{part}.labels"].clone() for part in _PARTS}
        if said["facts"] != facts:
            return None
        splits = {part: _split(pixels, labels[part]) for part, pixels in _pixel_files(path).items()}
        class_names = tuple(map(str, said["class_names"]))
        if fingerprint(class_names, [splits[part] for part in _PARTS]) != said["fingerprint"]:
            return None
        return ImageDataset(
            name=name,
            **splits,
            class_names=class_names,
            normalisation=Normalisation(tuple(map(float, said["mean"])), tuple(map(float, said["std"]))),
            fingerprint=said["fingerprint"],
            notes=tuple(map(str, said["notes"])),
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError):
        return None


def keep(dataset: ImageDataset, path: Path, facts: str) -> None:
    """Writes ``dataset`` where :func:`load_kept` finds it.

    Raises:
        WriteError: the disk is full, or the cache cannot be written.
    """
    parts = {part: getattr(dataset, part) for part in _PARTS}
    tensors = {f"{name}.labels": part.labels for name, part in parts.items()}
    tensors.update({f"{name}.images": part.images for name, part in parts.items()})
    scale = dataset.normalisation
    said = {"facts": facts, "class_names": dataset.class_names, "fingerprint": dataset.fingerprint}
    document = json.dumps({**said, **asdict(scale), "notes": list(dataset.notes)})
    make_folder(path.parent)
    with replacing(path) as file:
        file.write(_header(tensors, document))
        for tensor in tensors.values():
            for piece in tensor.split(_PIECE):
                file.write(piece.contiguous().numpy().data)


def _header(tensors: Mapping[str, torch.Tensor], document: str) -> bytes:
    """Of the safetensors format: its length in 8 bytes, then JSON, padded so that what follows is aligned."""
    entries: dict[str, Any] = {"__metadata__": {_KEY: document}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        kind = {torch.uint8: "U8", torch.int64: "I64"}[tensor.dtype]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _pixel_files(path: Path) -> dict[str, PixelFile]:
    """Where the images of each part lie in a file that ``read_tensors`` has checked."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    found = {}
    for part in _PARTS:
        entry = entries[f"{part}.images"]
        images, channels, height, width = entry["shape"]
        if entry["dtype"] != "U8":
            raise ValueError(f"{part} is not uint8 images")
        offset = 8 + length + entry["data_offsets"][0]
        found[part] = PixelFile(str(path), offset, (images, channels, height, width))
    return found


def _split(found: PixelFile, labels: torch.Tensor) -> Split:
    pixels = as_tensor(found.open())
    if len(labels) != len(pixels) or labels.dtype != torch.int64:
        raise ValueError("images and labels differ in number")
    if pixels.numel() <= memory_budget():
        return Split(pixels.clone(), labels)
    return Split(pixels, labels, found)
