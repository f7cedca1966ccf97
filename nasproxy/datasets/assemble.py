"""From a source's own parts to the three-part dataset: class checks, cuts, normalisation, fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch

from nasproxy.datasets.image_dataset import ImageDataset, Normalisation, Split
from nasproxy.datasets.source import PartName, Source
from nasproxy.datasets.splitting import hold_out, validation_size
from nasproxy.errors import DatasetError

NAMES_SHOWN = 5
IMBALANCED = 3.0  # times as many images of the largest class as of the smallest
_PIECE = 4096  # images counted at once


def assemble(name: str, source: Source) -> ImageDataset:
    """Cuts the parts that ``source`` lacks from its training part, and measures what the other rooms need.

    A missing test part is a fifth of the training part; a missing validation part then a tenth of what is left (see
    ``validation_size``).

    Raises:
        DatasetError: fewer than two classes, or a class has too few images for one in each part.
    """
    _check_classes(name, source)
    num_classes = len(source.class_names)
    train, validation, test = source.parts["train"], source.parts.get("validation"), source.parts.get("test")
    notes = list(source.notes)
    if test is None:
        train, test = hold_out(train, len(train) // 5, num_classes)
        notes.append(f"There is no test part; {len(test):,} images, a fifth of each class, were cut from train.")
    if validation is None:
        train, validation = hold_out(train, validation_size(len(train)), num_classes)
    notes += imbalance_notes(source.class_names, train)
    return ImageDataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=source.class_names,
        normalisation=measure_normalisation(train),
        fingerprint=fingerprint(source.class_names, (train, validation, test)),
        notes=tuple(notes),
    )


def class_counts(split: Split, num_classes: int) -> list[int]:
    """How many images of each class there are."""
    counts: list[int] = torch.bincount(split.labels, minlength=num_classes).tolist()
    return counts


def imbalance_notes(class_names: Sequence[str], train: Split) -> list[str]:
    """What the user should know where the largest class has more than three times the images of the smallest."""
    counts = class_counts(train, len(class_names))
    few, many = min(counts), max(counts)
    if many <= IMBALANCED * few:
        return []
    large, small = class_names[counts.index(many)], class_names[counts.index(few)]
    return [
        f"Classes are imbalanced: {many:,} training images of {large}, {few:,} of {small}. Every part keeps their "
        f"shares, and always answering {large} is right for {100 * many / len(train):.1f} % of the images."
    ]


def measure_normalisation(split: Split) -> Normalisation:
    """Mean and (population) standard deviation of each channel, pixels scaled to [0, 1].

    A channel's deviation counts as at least one gray level, 1/255, so that a constant channel can be divided by it.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in split.images.unbind(1):
        # A histogram is exact, so the result does not depend on the number of threads that sum, nor on the pieces.
        counts = sum(torch.bincount(piece.flatten(), minlength=256) for piece in channel.split(_PIECE))
        weights = torch.as_tensor(counts).double() / channel.numel()
        mean = (weights * levels).sum()
        means.append(mean.item())
        stds.append(max((weights * (levels - mean) ** 2).sum().sqrt().item(), 1 / 255))
    return Normalisation(tuple(means), tuple(stds))


def fingerprint(class_names: Sequence[str], parts: Sequence[Split]) -> str:
    """32 hexadecimal digits (blake2b) of the class names and of each part's pixels and labels, in order."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([list(class_names), [list(part.images.shape) for part in parts]]).encode())
    for part in parts:
        digest.update(part.images.contiguous().view(-1).numpy().data)
        digest.update(part.labels.numpy().astype("<i8").tobytes())
    return digest.hexdigest()


def _check_classes(name: str, source: Source) -> None:
    if len(source.class_names) < 2:
        raise DatasetError(
            f"{name} has one class only ({', '.join(source.class_names)}); at least two are needed.",
            "Put the images of each class in a folder of its own, or give them different labels.",
        )
    missing: list[PartName] = [part for part in ("validation", "test") if part not in source.parts]
    for part, split in source.parts.items():
        _check_counts(name, source.class_names, part, split, missing if part == "train" else [])


def _check_counts(name: str, class_names: Sequence[str], part: str, split: Split, cut: Sequence[PartName]) -> None:
    needed = 1 + len(cut)
    counts = class_counts(split, len(class_names))
    small = [f"{c} ({n})" for c, n in zip(class_names, counts, strict=True) if n < needed]
    if not small:
        return
    more = f" and {len(small) - NAMES_SHOWN} more classes" if len(small) > NAMES_SHOWN else ""
    reason = f": one for {part} itself and one each for {' and '.join(cut)}, cut from it" if cut else ""
    raise DatasetError(
        f"The {part} part of {name} has too few images of the class {', '.join(small[:NAMES_SHOWN])}{more}; "
        f"at least {needed} of each class {'is' if needed == 1 else 'are'} needed{reason}.",
        "Add images, or remove the class from every part.",
    )
