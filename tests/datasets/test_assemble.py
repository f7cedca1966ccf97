from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from nasproxy.datasets.assemble import assemble, fingerprint, measure_normalisation
from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.pixel_memory import PixelFile
from nasproxy.datasets.source import Source
from nasproxy.errors import DatasetError


def random_split(counts: list[int], seed: int = 0, channels: int = 3) -> Split:
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (len(labels), channels, 4, 5), generator=generator, dtype=torch.uint8)
    return Split(images, labels)


NAMES = ("cat", "dog")


def test_missing_parts_are_cut_and_said() -> None:
    dataset = assemble("pets", Source({"train": random_split([100, 50])}, NAMES, ("read with care",)))
    assert (len(dataset.test), len(dataset.validation), len(dataset.train)) == (30, 40, 80)
    assert torch.bincount(dataset.test.labels).tolist() == [20, 10]
    assert dataset.notes[0] == "read with care"
    assert "no test part; 30 images" in dataset.notes[1]


def test_a_dataset_and_its_parts_are_shown_in_a_few_lines() -> None:
    dataset = assemble("pets", Source({"train": random_split([1000, 500])}, NAMES))
    assert repr(dataset).splitlines() == [
        "ImageDataset(pets: 800 train, 400 validation, 300 test images of 3×4×5",
        "  2 classes: cat, dog",
        f"  fingerprint {dataset.fingerprint[:12]})",
    ]
    assert repr(dataset.test) == "Split(300 images of 3×4×5)"
    file = PixelFile("/data/pixels", 8, (300, 3, 4, 5))
    assert repr(replace(dataset.test, file=file)) == "Split(300 images of 3×4×5, in /data/pixels)"


def test_parts_of_the_source_are_kept() -> None:
    parts = {"train": random_split([3, 3]), "validation": random_split([1, 1], 1), "test": random_split([1, 1], 2)}
    dataset = assemble("pets", Source(parts, NAMES))
    assert (dataset.train, dataset.validation, dataset.test) == tuple(parts.values())
    assert dataset.notes == ()


def test_too_few_images_of_a_class() -> None:
    with pytest.raises(DatasetError, match=r"of the class dog \(2\); at least 3 of each class are needed.*test, cut"):
        assemble("pets", Source({"train": random_split([9, 2])}, NAMES))
    assemble("pets", Source({"train": random_split([9, 2]), "test": random_split([1, 1])}, NAMES))
    with pytest.raises(DatasetError, match=r"The test part of pets has too few images of the class dog \(0\)"):
        assemble("pets", Source({"train": random_split([9, 3]), "test": random_split([1])}, NAMES))


def test_smallest_dataset_has_one_image_of_each_class_in_each_part() -> None:
    dataset = assemble("pets", Source({"train": random_split([3, 3])}, NAMES))
    for part in (dataset.train, dataset.validation, dataset.test):
        assert part.labels.tolist() == [0, 1]


def test_one_class() -> None:
    with pytest.raises(DatasetError, match=r"one class only \(cat\)"):
        assemble("pets", Source({"train": random_split([9])}, ("cat",)))


def test_normalisation_sees_the_training_part_only() -> None:
    dataset = assemble("pets", Source({"train": random_split([20, 20])}, NAMES))
    pixels = dataset.train.images.numpy() / 255
    np.testing.assert_allclose(dataset.normalisation.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.normalisation.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)


def test_constant_channel_has_a_deviation_to_divide_by() -> None:
    split = Split(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(3, dtype=torch.long))
    normalisation = measure_normalisation(split)
    assert normalisation.mean[0] == pytest.approx(0.2)
    assert normalisation.std == (1 / 255,)


def test_fingerprint_tells_every_change() -> None:
    def parts() -> list[Split]:
        return [random_split([2, 2], seed) for seed in range(3)]

    original = fingerprint(NAMES, parts())
    assert original == fingerprint(NAMES, parts())
    assert len(original) == 32
    assert int(original, 16) >= 0

    pixel, label, moved, shape = parts(), parts(), parts(), parts()
    pixel[2].images[3, 2, 3, 4] ^= 1
    label[1].labels[0] = 1
    moved[0], moved[1] = moved[1], moved[0]
    shape[0] = Split(shape[0].images.reshape(4, 3, 5, 4), shape[0].labels)
    changed = [fingerprint(NAMES, variant) for variant in (pixel, label, moved, shape)]
    changed.append(fingerprint(("cat", "fox"), parts()))
    assert len({original, *changed}) == 6
