"""What a check finds in folders whose faults are known."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_image_folder import write_images
from test_parquet_folder import png, write_parquet

from nasproxy.datasets.check import check_dataset
from nasproxy.datasets.duplicates import find_duplicates
from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import DatasetError


@pytest.fixture
def pets(tmp_path):
    root = tmp_path / "pets"
    write_images(root / "train" / "cat", 40)
    write_images(root / "train" / "dog", 9)
    write_images(root / "test" / "cat", 3, first=100)
    write_images(root / "test" / "dog", 2, first=100)
    return root


def test_a_sound_folder(pets):
    found = check_dataset(str(pets))
    assert found.problems == []
    assert found.counts == {"train": [40, 9], "test": [3, 2]}
    assert (found.survey.sizes, found.survey.modes, found.size) == ({(6, 8): 54}, {"L": 54}, (6, 8))
    assert found.duplicates.total == found.duplicates.conflicting == 0
    assert found.imbalance == 43 / 11
    assert found.pixels == 54 * 6 * 8
    loaded = load_dataset(str(pets))
    assert found.dataset is not None
    assert found.dataset.fingerprint == loaded.fingerprint
    assert found.notes == list(loaded.notes)
    assert any(note.startswith("Classes are imbalanced: ") for note in found.notes)


def test_broken_files_are_all_named_with_their_part(pets):
    for number in range(7):
        (pets / "train" / "dog" / f"z{number}.png").write_bytes(b"no")
    (pets / "test" / "cat" / "torn.png").write_bytes((pets / "test" / "cat" / "100.png").read_bytes()[:60])
    found = check_dataset(str(pets))
    assert [failure.name for failure in found.broken["train"]] == [f"dog/z{n}.png" for n in range(7)]
    assert [failure.name for failure in found.broken["test"]] == ["cat/torn.png"]
    assert found.counts == {"train": [40, 9], "test": [3, 2]}
    assert len(found.problems) == 8
    assert found.dataset is not None
    assert found.dataset.fingerprint == load_dataset(str(pets), skip_broken=True).fingerprint


def test_an_image_that_is_cut_off_is_in_no_count_though_its_header_is_sound(pets):
    write_images(pets / "train" / "dog", 1, (12, 16), mode="RGB", first=500)
    torn = pets / "train" / "dog" / "500.png"
    torn.write_bytes(torn.read_bytes()[:-100])
    found = check_dataset(str(pets))
    assert [failure.name for failure in found.broken["train"]] == ["dog/500.png"]
    assert found.counts == {"train": [40, 9], "test": [3, 2]}
    assert (found.survey.sizes, found.survey.modes) == ({(6, 8): 54}, {"L": 54})
    loaded = load_dataset(str(pets), skip_broken=True)
    assert found.survey.channels == loaded.channels == 3  # as the header said that has a part in what is decided
    assert "Images of mode L (54) were converted to 8-bit RGB." in loaded.notes


def test_duplicates_are_found_by_pixels_and_named(pets):
    train, test = pets / "train", pets / "test"
    shutil.copy(train / "cat" / "003.png", train / "cat" / "again.png")
    Image.open(train / "cat" / "003.png").save(test / "dog" / "leaked.bmp")
    (train / "cat" / "000.png").write_bytes(b"broken, so that places and names differ")
    found = check_dataset(str(pets))
    assert sum(found.duplicates.within.values()) + found.duplicates.between["train", "validation"] == 1
    assert found.duplicates.between["train", "test"] + found.duplicates.between["validation", "test"] in (1, 2)
    assert found.duplicates.conflicting == 1
    assert found.examples == [["train/cat/003.png", "train/cat/again.png", "test/dog/leaked.bmp"]]


def test_parquet(tmp_path):
    images = [png(0), png(1), b"no image", png(1), *(png(n) for n in range(4, 12))]
    write_parquet(tmp_path / "train-0.parquet", [0, 1] * 6, names=["cup", "pot"], images=images)
    found = check_dataset(str(tmp_path))
    assert [failure.name for failure in found.broken["train"]] == ["train-0.parquet row 2"]
    assert found.examples == [["train-0.parquet row 1", "train-0.parquet row 3"]]


def test_a_class_that_is_too_small_is_a_problem_not_an_error(pets):
    shutil.rmtree(pets / "test" / "dog")
    found = check_dataset(str(pets))
    assert found.dataset is None
    (problem,) = found.problems
    assert "The test part of pets has too few images of the class dog (0)" in problem


def test_nothing_but_broken_files(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"no")
    found = check_dataset(str(tmp_path))
    assert found.problems[-1] == "Nothing is left to train on."
    assert (len(found.problems), found.imbalance, found.dataset) == (3, None, None)


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(DatasetError, match="is empty"):
        check_dataset(str(tmp_path))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 1)), max_size=25))
def test_duplicates_against_comparing_each_with_each(images):
    parts = {}
    for name in "abc":
        own = [(value, label) for part, value, label in images if part == name]
        pixels = torch.tensor([value for value, _ in own], dtype=torch.uint8).view(-1, 1, 1, 1)
        parts[name] = Split(pixels, torch.tensor([label for _, label in own], dtype=torch.int64))
    found = find_duplicates(parts)
    values = {name: [v for part, v, _ in images if part == name] for name in "abc"}
    for name in "abc":
        assert found.within[name] == sum(v in values[name][:i] for i, v in enumerate(values[name]))
    for first, second in ("ab", "ac", "bc"):
        assert found.between[first, second] == sum(v in values[first] for v in values[second])
    pairs = {(value, label) for _, value, label in images}
    assert found.conflicting == sum(n > 1 for n in Counter(value for value, _ in pairs).values())
