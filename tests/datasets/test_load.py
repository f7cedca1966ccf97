from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nasproxy.datasets.catalogue import available_datasets
from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.torchvision_names import TORCHVISION_CLASSES
from nasproxy.errors import DatasetError


def test_digits() -> None:
    dataset = load_dataset("digits")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (1038, 400, 359)
    assert (dataset.channels, dataset.image_size, dataset.num_classes) == (1, (16, 16), 10)
    assert dataset.class_names == tuple("0123456789")
    shares = [torch.bincount(part.labels) / len(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert max((shares[0] - share).abs().max() for share in shares[1:]) < 0.005
    assert load_dataset("digits").fingerprint == dataset.fingerprint


def test_digits_keep_their_pixels_at_8x8() -> None:
    dataset = load_dataset("digits", image_size=8)
    parts = (dataset.train, dataset.validation, dataset.test)
    loaded = np.concatenate([part.images.numpy().reshape(-1, 64) for part in parts]) * (16 / 255)
    original = load_digits().data
    assert sorted(map(tuple, loaded.round().astype(int))) == sorted(map(tuple, original.astype(int)))


def test_catalogue_lists_what_load_takes() -> None:
    infos = available_datasets()
    assert [info.name for info in infos if info.needs_download] == list(TORCHVISION_CLASSES)
    assert infos[0].name == "digits"
    assert not infos[0].needs_download


def test_catalogue_imports_nothing_heavy() -> None:
    code = "import sys, nasproxy.datasets.catalogue; print({'torch', 'numpy', 'PIL', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_unknown_name() -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset("cifar-10")
    assert "no dataset called 'cifar-10', and no folder of that path" in caught.value.message
    assert caught.value.hint.startswith("Did you mean cifar10?")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "~no-such-user/images"])
def test_odd_names(name: str) -> None:
    with pytest.raises(DatasetError, match="There is no dataset called"):
        load_dataset(name)


def test_paths_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is empty"):
        load_dataset(str(tmp_path))
    file = tmp_path / "images.zip"
    file.write_bytes(b"PK")
    with pytest.raises(DatasetError, match="is a file; a dataset is a folder"):
        load_dataset(str(file))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train.parquet", "Give the folder that holds train*.parquet, and test*.parquet if there is such a part: {}"),
        ("IMAGES.NPZ", "NumPy's arrays are not read. Save each image in the folder of its class"),
        ("images.npy", "NumPy's arrays are not read."),
        ("images.zip", "Give the folder that holds it. Expected FOLDER/CLASS/image.png"),
    ],
)
def test_a_file_says_what_to_give_instead(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(DatasetError, match="is a file; a dataset is a folder") as caught:
        load_dataset(str(tmp_path / name))
    assert caught.value.hint.startswith(said.format(tmp_path))


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # the tests may run as root, whom no permission stops
    with pytest.raises(DatasetError, match=r"cannot be read: Permission denied"):
        load_dataset(str(tmp_path))
