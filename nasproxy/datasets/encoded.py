"""Many encoded images, in parts, to arrays of one size and channel count.

Two passes: the headers decide size and channels, then each image is decoded straight into its place. Only one batch
of encoded images is in memory at a time. One thread does it all: Pillow holds the interpreter lock while it decodes,
and a pool was never faster (measured on JPEG and PNG of 32 to 800 pixels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import UnidentifiedImageError

from nasproxy.datasets.decoding import FORMATS, Content, decode_image, read_header, strict_pillow
from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.pixel_memory import empty_pixels
from nasproxy.datasets.resizing import Size, choose_size
from nasproxy.datasets.source import PartName, Source
from nasproxy.datasets.survey import Survey
from nasproxy.errors import DatasetError, some

NAMES_SHOWN = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """One image: how messages call it, and what it holds (None where the source has nothing)."""

    name: str
    content: Content | None


@dataclass(frozen=True)
class EncodedPart:
    """Train, validation or test, still in the source's file formats.

    Args:
        labels: one class index an image.
        batches: the images in that order; called once a pass.
    """

    labels: Int64[np.ndarray, " n"]
    batches: Callable[[], Iterable[Sequence[Encoded]]]


@dataclass(frozen=True)
class Listing:
    """What a folder holds, before any image is opened.

    Args:
        parts: train and whichever others there are.
        class_names: one name a class, in label order.
        notes: what listing had to do that the user should know.
        files: all that the images and labels come from.
    """

    parts: Mapping[PartName, EncodedPart]
    class_names: tuple[str, ...]
    notes: Sequence[str]
    files: Sequence[Path]

    def decode(self, image_size: Size | None, *, skip_broken: bool) -> Source:
        """Decodes every part to one size and channel count; notes say what had to be converted, resized or skipped.

        Args:
            image_size: (height, width), or None for the most common size of the training images, at most 64 a side.
            skip_broken: leave broken images out, and say so in the notes, instead of raising.

        Raises:
            DatasetError: broken images without ``skip_broken``, or nothing but broken ones.
        """
        decoded = decode_what_can_be(self.parts, image_size)
        broken = [failure for failures in decoded.broken.values() for failure in failures]
        if broken and (not skip_broken or not len(decoded.parts["train"])):
            raise _broken_error(broken, sum(len(part.labels) for part in self.parts.values()), skip_broken=skip_broken)
        size_notes = [] if image_size else decoded.survey.size_notes(decoded.size)
        notes = (*self.notes, *decoded.survey.mode_notes(), *size_notes, *_skip_notes(broken))
        return Source(decoded.parts, self.class_names, notes)


@dataclass(frozen=True)
class Broken:
    """An image that could not be decoded."""

    name: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """All parts in one size and channel count.

    Args:
        parts: the images that could be decoded.
        broken: those that could not.
        survey: what the headers of the images that could be decoded said.
        size: (height, width) that the images have now.
    """

    parts: Mapping[PartName, Split]
    broken: Mapping[PartName, Sequence[Broken]]
    survey: Survey
    size: Size


def decode_what_can_be(parts: Mapping[PartName, EncodedPart], image_size: Size | None) -> Decoded:
    """Decodes every part to one size and channel count, and says what is broken; see :meth:`Listing.decode`."""
    with strict_pillow():
        surveys = {name: _survey(part) for name, part in parts.items()}
        everything = Survey.union(surveys.values())
        train_sizes = surveys["train"].sizes
        size = image_size or (choose_size(train_sizes) if train_sizes else (1, 1))
        decoded = {name: _decode(part, size, everything) for name, part in parts.items()}
    splits = {name: split for name, (split, _) in decoded.items()}
    return Decoded(splits, {name: broken for name, (_, broken) in decoded.items()}, everything, size)


def _survey(part: EncodedPart) -> Survey:
    survey = Survey()
    for batch in part.batches():
        for header in _attempt_each(read_header, batch):
            if not isinstance(header, Broken):
                survey.add(*header)
    return survey


def _decode(part: EncodedPart, size: Size, survey: Survey) -> tuple[Split, list[Broken]]:
    """Broken images are taken from ``survey``, which their headers may have got them into."""
    channels = survey.channels
    images = empty_pixels((len(part.labels), channels, *size))
    readable = np.ones(len(part.labels), bool)
    broken: list[Broken] = []

    def decode(content: Content) -> UInt8[np.ndarray, "channels height width"]:
        return decode_image(content, size, channels)

    position = 0
    for batch in part.batches():
        for item, result in zip(batch, _attempt_each(decode, batch), strict=True):
            if isinstance(result, Broken):
                readable[position] = False
                broken.append(result)
                header = next(_attempt_each(read_header, [item]))
                if not isinstance(header, Broken):
                    survey.remove(*header)
            else:
                images[position - len(broken)] = result
            position += 1
    kept = len(images) - len(broken)
    return Split(torch.from_numpy(images[:kept]), torch.from_numpy(part.labels[readable])), broken


def _attempt_each(function: Callable[[Content], T], batch: Sequence[Encoded]) -> Iterator[T | Broken]:
    for item in batch:
        if item.content is None:
            yield Broken(item.name, "it holds no image bytes")
            continue
        result: T | Broken
        try:
            result = function(item.content)
        except Exception as error:  # decoders meet hostile bytes with any exception there is
            result = Broken(item.name, _reason(error))
        yield result


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text is the address of a buffer
        return f"not one of {', '.join(FORMATS)}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _broken_error(broken: Sequence[Broken], total: int, *, skip_broken: bool) -> DatasetError:
    shown = some([f"{failure.name} ({failure.reason})" for failure in broken], NAMES_SHOWN, "; ")
    return DatasetError(
        f"{len(broken):,} of {total:,} images cannot be decoded: {shown}.",
        "Nothing is left to train on." if skip_broken else "Repair or remove them, or pass --skip-broken to go on.",
    )


def _skip_notes(broken: Sequence[Broken]) -> list[str]:
    if not broken:
        return []
    shown = some([failure.name for failure in broken], NAMES_SHOWN)
    return [f"{len(broken):,} broken image{'s were' if len(broken) > 1 else ' was'} skipped: {shown}."]
