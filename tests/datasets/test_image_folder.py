from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nasproxy.datasets.image_folder import list_image_folder
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import DatasetError


def write_images(folder: Path, count: int, size: tuple[int, int] = (6, 8), *, mode: str = "L", first: int = 0) -> None:
    """Random PNG images, the same for the same folder name and numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        rng = np.random.default_rng([number, *folder.name.encode()])
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03}.png")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    write_images(root / "dog", 20)
    write_images(root / "cat", 10)
    return root


def test_classes_are_folders_in_alphabetical_order(pets: Path) -> None:
    dataset = load_dataset(str(pets))
    assert dataset.name == pets.name
    assert dataset.class_names == ("cat", "dog")
    assert (dataset.channels, dataset.image_size) == (1, (6, 8))
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [16, 8, 6]
    assert torch.bincount(dataset.test.labels).tolist() == [2, 4]


def test_pixels_and_labels_are_those_of_the_files(pets: Path) -> None:
    dataset = load_dataset(str(pets))
    parts = (dataset.train, dataset.validation, dataset.test)
    loaded = sorted(
        (label, image.numpy().tobytes())
        for part in parts
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    )
    on_disk = sorted(
        (label, np.asarray(Image.open(path)).tobytes())
        for label, name in enumerate(("cat", "dog"))
        for path in (pets / name).iterdir()
    )
    assert loaded == on_disk


def test_order_on_disk_does_not_matter(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, fingerprints = os.walk, []
    for backwards in (False, True):

        def ordered_walk(top: Path, backwards: bool = backwards, **options: Any) -> Iterator[tuple[str, list, list]]:
            for parent, folders, names in walk(top, **options):
                yield parent, folders, sorted(names, reverse=backwards)

        monkeypatch.setattr(os, "walk", ordered_walk)
        fingerprints.append(load_dataset(str(pets)).fingerprint)
    assert fingerprints[0] == fingerprints[1]


def test_given_parts_are_used(tmp_path: Path) -> None:
    for part, count in {"train": 9, "valid": 3, "test": 2}.items():
        write_images(tmp_path / part / "a", count, mode="RGB")
        write_images(tmp_path / part / "b", count, mode="RGB")
    write_images(tmp_path / "unlabelled" / "a", 1)
    dataset = load_dataset(str(tmp_path))
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [18, 6, 4]
    assert dataset.channels == 3
    assert dataset.notes == ("Folders that are no part of the split were left out: unlabelled.",)


def test_train_can_be_a_class(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        write_images(tmp_path / name, 5)
    assert load_dataset(str(tmp_path)).class_names == ("bus", "train")


def test_two_validation_parts(tmp_path: Path) -> None:
    for part in ("train", "val", "validation"):
        write_images(tmp_path / part / "a", 1)
    with pytest.raises(DatasetError, match="several validation parts: val, validation"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize("names", [("Train", "VAL", "Test"), ("Training", "Validation", "testing")])
def test_parts_in_any_case(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for part, count in zip(names, (9, 3, 2), strict=True):
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, count)
    dataset = load_dataset(str(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [18, 6, 4]


@pytest.mark.parametrize("names", [("Train", "train"), ("train", "training")])
def test_two_training_parts(tmp_path: Path, names: tuple[str, str]) -> None:
    for part in names:
        (tmp_path / part / "a").mkdir(parents=True, exist_ok=True)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell Train from train")
    with pytest.raises(DatasetError, match=f"several train parts: {', '.join(names)}"):
        load_dataset(str(tmp_path))


def test_parts_of_other_names_are_pointed_out(tmp_path: Path) -> None:
    for part in ("evaluation", "learning"):
        for name in ("cat", "dog"):
            write_images(tmp_path / part / name, 3)
    expected = (
        "The class folders evaluation, learning hold the same folders: cat, dog. "
        "If they were meant as parts of the data, name them train and test."
    )
    assert list_image_folder(tmp_path).notes == [expected]
    write_images(tmp_path / "learning", 1, first=900)
    assert list_image_folder(tmp_path).notes == [], "a class that holds images is no part"


@pytest.mark.parametrize("inside", [(("images",), ("images",)), (("indoors", "outdoors"), ("indoors", "wild"))])
def test_folders_within_classes_are_no_parts(tmp_path: Path, inside: tuple[tuple[str, ...], ...]) -> None:
    for name, folders in zip(("cat", "dog"), inside, strict=True):
        for folder in folders:
            write_images(tmp_path / name / folder, 3)
    assert list_image_folder(tmp_path).notes == []


def test_datasets_taken_for_classes_are_pointed_out(tmp_path: Path) -> None:
    for folder in ("few/cat", "few/dog", "photos/car", "photos/bus"):
        write_images(tmp_path / folder, 3)
    expected = (
        "The class folders few, photos hold no images, only folders: few holds cat, dog. "
        f"If each is a dataset of its own, pass one of them: {tmp_path / 'few'}."
    )
    assert list_image_folder(tmp_path).notes == [expected]
    write_images(tmp_path / "photos" / "dog", 3)
    assert list_image_folder(tmp_path).notes == [], "what classes share is no class"
    for folder in ("whole/train/cat", "whole/train/dog", "whole/test/cat"):
        write_images(tmp_path / folder, 3)
    (note,) = list_image_folder(tmp_path).notes
    assert "few, photos, whole hold no images, only folders: whole holds test, train." in note
    assert note.endswith(f"pass one of them: {tmp_path / 'whole'}.")
    write_images(tmp_path / "few", 1)
    assert list_image_folder(tmp_path).notes == []


def test_links_to_folders_are_followed_once(pets: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", 5)
    (tmp_path / "elsewhere" / "back").symlink_to(pets / "cat")
    (pets / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (pets / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (pets / "cat" / "all").symlink_to(pets)
    (pets / "cow").symlink_to(tmp_path / "elsewhere")
    listing = list_image_folder(pets)
    assert listing.class_names == ("cat", "cow", "dog")
    assert np.bincount(listing.parts["train"].labels).tolist() == [15, 15, 20]
    assert len({path.resolve() for path in listing.files if path.is_relative_to(pets / "cat")}) == 15


def test_what_is_no_image_is_left_out(pets: Path) -> None:
    (pets / "cat" / "notes.txt").write_text("furry")
    (pets / "cat" / "._000.png").write_bytes(b"left by a file manager")
    (pets / ".git" / "objects").mkdir(parents=True)
    os.mkfifo(pets / "cat" / "pipe.png")  # opening it would wait for ever
    write_images(pets / "cat" / "more", 1, first=900)
    dataset = load_dataset(str(pets))
    assert dataset.class_names == ("cat", "dog")
    assert sum(len(part) for part in (dataset.train, dataset.validation, dataset.test)) == 31
    assert "1 file that is no image by extension, in pets" in dataset.notes[0]


def test_mixed_modes_become_rgb(pets: Path) -> None:
    write_images(pets / "cat", 2, mode="RGBA", first=100)
    dataset = load_dataset(str(pets))
    assert dataset.channels == 3
    assert dataset.notes[0] == "Images of mode L (30), RGBA (2) were converted to 8-bit RGB; transparency was dropped."


def test_mixed_sizes_get_the_most_common(pets: Path) -> None:
    write_images(pets / "cat", 2, (12, 100), first=100)
    dataset = load_dataset(str(pets))
    assert dataset.image_size == (6, 8)
    expected = "Images of 2 sizes from 6x8 to 12x100 pixels (height x width) were resized to 6x8; see --image-size."
    assert dataset.notes[0] == expected
    chosen = load_dataset(str(pets), image_size=(10, 9))
    assert chosen.image_size == (10, 9)
    assert len(chosen.notes) == 1
    assert chosen.fingerprint != dataset.fingerprint


def test_large_images_shrink_to_64(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / name, 3, (100, 200))
    dataset = load_dataset(str(tmp_path))
    assert dataset.image_size == (32, 64)
    assert "resized to 32x64" in dataset.notes[0]
    assert load_dataset(str(tmp_path), image_size=(100, 200)).image_size == (100, 200)


def break_images(pets: Path) -> None:
    whole = (pets / "dog" / "000.png").read_bytes()
    (pets / "dog" / "000.png").write_bytes(whole[: len(whole) // 2])
    (pets / "dog" / "001.png").write_bytes(b"")
    (pets / "dog" / "002.png").write_text("<html>Not found</html>")


def test_broken_images_are_named(pets: Path) -> None:
    break_images(pets)
    with pytest.raises(DatasetError) as caught:
        load_dataset(str(pets))
    assert caught.value.message.startswith("3 of 30 images cannot be decoded: dog/000.png (")
    assert "dog/001.png (not one of BMP, " in caught.value.message
    assert "0x" not in caught.value.message, "no address of an object"
    assert "--skip-broken" in caught.value.hint
    assert caught.value.exit_code == 2


def test_broken_images_can_be_skipped(pets: Path) -> None:
    break_images(pets)
    dataset = load_dataset(str(pets), skip_broken=True)
    assert dataset.notes[0] == "3 broken images were skipped: dog/000.png, dog/001.png, dog/002.png."
    for name in ("000.png", "001.png", "002.png"):
        (pets / "dog" / name).unlink()
    assert load_dataset(str(pets)).fingerprint == dataset.fingerprint


def test_nothing_but_broken_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"junk")
    with pytest.raises(DatasetError, match=r"2 of 2 images cannot be decoded.*Nothing is left"):
        load_dataset(str(tmp_path), skip_broken=True)


def test_classes_must_agree(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_images(tmp_path / "train" / name, 3)
        write_images(tmp_path / "test" / name, 1)
    write_images(tmp_path / "test" / "c", 1)
    with pytest.raises(DatasetError, match=r"classes that the training part lacks: c\. The training part has a, b"):
        load_dataset(str(tmp_path))
    shutil.rmtree(tmp_path / "test" / "c")
    shutil.rmtree(tmp_path / "test" / "b")
    with pytest.raises(DatasetError, match=r"test part.*too few images of the class b \(0\)"):
        load_dataset(str(tmp_path))


def test_empty_class(pets: Path) -> None:
    (pets / "cow").mkdir()
    with pytest.raises(DatasetError, match=r"the class cow \(0\); at least 3"):
        load_dataset(str(pets))


def test_images_without_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    with pytest.raises(DatasetError, match="holds no folders of images"):
        load_dataset(str(tmp_path))


def test_folders_without_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.csv").write_text("1,2")
    with pytest.raises(DatasetError, match="hold no image files"):
        load_dataset(str(tmp_path))


def test_names_that_are_not_utf8_can_be_printed(tmp_path: Path) -> None:
    folders = [os.fsencode(tmp_path) + b"/caf\xe9", os.fsencode(tmp_path) + b"/pub"]
    for folder in folders:
        try:
            os.mkdir(folder)  # noqa: PTH102  (bytes)
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        write_images(Path(os.fsdecode(folder)), 0)
        for number in range(3):
            Image.new("L", (4, 4), number).save(Path(os.fsdecode(folder)) / f"{number}.png")
    assert load_dataset(str(tmp_path)).class_names == ("caf\ufffd", "pub")
