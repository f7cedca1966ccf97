"""The datasets that have a name. Imports nothing heavy, so that listing them is instant."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """A line of ``nasproxy datasets list``.

    Args:
        name: what ``--dataset`` takes.
        description: one line: how many images of what, their size.
        needs_download: whether first use fetches files into the data folder.
    """

    name: str
    description: str
    needs_download: bool


_NAMED = (
    DatasetInfo("digits", "1,797 handwritten digits from scikit-learn, 10 classes, gray, 8x8 shown at 16x16", False),
    DatasetInfo("cifar10", "60,000 photographs of animals and vehicles, 10 classes, colour, 32x32", True),
    DatasetInfo("cifar100", "60,000 photographs of everyday things, 100 classes, colour, 32x32", True),
    DatasetInfo("mnist", "70,000 handwritten digits, 10 classes, gray, 28x28", True),
    DatasetInfo("fashion-mnist", "70,000 pictures of clothing, 10 classes, gray, 28x28", True),
    DatasetInfo("svhn", "99,289 house-number digits from street photographs, 10 classes, colour, 32x32", True),
    DatasetInfo("usps", "9,298 handwritten digits from envelopes, 10 classes, gray, 16x16", True),
)


def available_datasets() -> list[DatasetInfo]:
    """Every dataset with a name, the default first; any folder of images or of image Parquet files works too."""
    return list(_NAMED)
