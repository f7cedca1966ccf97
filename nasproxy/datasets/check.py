"""Looking a dataset over before anything is trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nasproxy.datasets.assemble import assemble, class_counts
from nasproxy.datasets.duplicates import Duplicates, find_duplicates, groups_of_names
from nasproxy.datasets.encoded import Broken, EncodedPart, decode_what_can_be
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import existing_folder, explained, folder_name, list_folder, read_named
from nasproxy.datasets.resizing import Size, check_image_size
from nasproxy.datasets.source import PartName, Source
from nasproxy.datasets.survey import Survey
from nasproxy.errors import DatasetError


@dataclass(frozen=True)
class DatasetFindings:
    """What there is, what is wrong with it, and what would be made of it.

    Args:
        name: of the dataset.
        class_names: one name a class, in label order.
        counts: for each part that the source itself has, the readable images of each class.
        survey: sizes and modes of the images as they came.
        broken: for each part the images that cannot be decoded.
        duplicates: by the pixels that would be trained on, in the parts that would be made.
        examples: names of images of equal pixels, one list for each such picture.
        size: (height, width) that the images would get.
        dataset: what ``load_dataset`` would give, without the broken images; None where it would refuse.
        refusal: why it would, with what to do.
        notes: what it would say.
    """

    name: str
    class_names: tuple[str, ...]
    counts: Mapping[PartName, Sequence[int]]
    survey: Survey
    broken: Mapping[PartName, Sequence[Broken]]
    duplicates: Duplicates
    examples: Sequence[Sequence[str]]
    size: Size
    dataset: ImageDataset | None
    refusal: str | None = None
    notes: Sequence[str] = field(default=())

    @property
    def problems(self) -> list[str]:
        """What must be mended before anything can be trained."""
        found = [
            f"{part}: {failure.name} cannot be decoded: {failure.reason}"
            for part, failures in self.broken.items()
            for failure in failures
        ]
        return found + ([self.refusal] if self.refusal else [])

    @property
    def imbalance(self) -> float | None:
        """How many times as many images the largest class has as the smallest; None where that has none."""
        counts = [sum(of_class) for of_class in zip(*self.counts.values(), strict=True)]
        return max(counts) / min(counts) if min(counts) else None

    @property
    def pixels(self) -> int:
        """Values of all images that would be used: bytes as uint8, a quarter of those as float32."""
        height, width = self.size
        return sum(sum(counts) for counts in self.counts.values()) * self.survey.channels * height * width


def check_dataset(
    name: str, *, data_dir: Path | None = None, image_size: int | tuple[int, int] | None = None
) -> DatasetFindings:
    """Decodes every image of a dataset and compares all with each other. The arguments are ``load_dataset``'s.

    Raises:
        DatasetError: it is no dataset at all.
    """
    size = check_image_size(image_size)
    with explained(name):
        source = read_named(name, data_dir, size)
        if source is not None:
            return _judge(name, source, _survey_of(source), {}, {})
        listing = list_folder(existing_folder(name))
        decoded = decode_what_can_be(listing.parts, size)
        found = Source(decoded.parts, listing.class_names, listing.notes)
        return _judge(folder_name(name), found, decoded.survey, decoded.broken, listing.parts)


def _judge(
    name: str,
    source: Source,
    survey: Survey,
    broken: Mapping[PartName, Sequence[Broken]],
    encoded: Mapping[PartName, EncodedPart],
) -> DatasetFindings:
    made, refusal = _assembled(name, source)
    own = {str(part): split for part, split in source.parts.items()}
    parts = own
    if made is not None:
        parts = {"train": made.train, "validation": made.validation, "test": made.test}
    duplicates = find_duplicates(parts)
    named = duplicates.total > 0 and bool(encoded)
    names = {str(part): _readable_names(encoded[part], broken[part]) for part in encoded} if named else {}
    height, width = (int(side) for side in source.parts["train"].images.shape[2:])
    return DatasetFindings(
        name=name,
        class_names=source.class_names,
        counts={part: class_counts(split, len(source.class_names)) for part, split in source.parts.items()},
        survey=survey,
        broken={part: failures for part, failures in broken.items() if failures},
        duplicates=duplicates,
        examples=groups_of_names(own, names) if named else [],
        size=(height, width),
        dataset=made,
        refusal=refusal,
        notes=[*survey.mode_notes(), *(source.notes if made is None else made.notes)],
    )


def _assembled(name: str, source: Source) -> tuple[ImageDataset | None, str | None]:
    if not len(source.parts["train"]):
        return None, "Nothing is left to train on."
    try:
        return assemble(name, source), None
    except DatasetError as error:
        return None, str(error)


def _survey_of(source: Source) -> Survey:
    """Of images that come as arrays."""
    survey = Survey()
    for split in source.parts.values():
        _, channels, height, width = split.images.shape
        survey.add("L" if channels == 1 else "RGB", (int(height), int(width)), len(split))
    return survey


def _readable_names(part: EncodedPart, broken: Sequence[Broken]) -> list[str]:
    unreadable = {failure.name for failure in broken}
    return [item.name for batch in part.batches() for item in batch if item.name not in unreadable]
