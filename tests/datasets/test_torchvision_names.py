from __future__ import annotations

import bz2
import hashlib
import pickle
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.torchvision_names import default_data_dir
from nasproxy.errors import DatasetError

LABELS = np.arange(60) % 10


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        print("connecting")
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, *shape), dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_usps(folder: Path) -> np.ndarray:
    pixels = random_pixels(256)
    lines = [
        f"{label + 1} " + " ".join(f"{i + 1}:{value:.6f}" for i, value in enumerate((row + 0.5) / 255 * 2 - 1))
        for label, row in zip(LABELS, pixels, strict=True)
    ]
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode()))
    return pixels.reshape(-1, 1, 16, 16)


def write_mnist(folder: Path) -> np.ndarray:
    pixels = random_pixels(28, 28)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = np.array([0x803, 60, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = np.array([0x801, 60], ">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + LABELS.astype(np.uint8).tobytes())
    return pixels[:, None]


def write_svhn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    pixels = random_pixels(32, 32, 3)
    labels = np.where(LABELS == 0, 10, LABELS)[:, None]
    official = {}
    for part in ("train", "test"):
        path = folder / f"{part}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": labels})
        official[part] = ["http://localhost/", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", {**datasets.SVHN.split_list, **official})
    return pixels.transpose(0, 3, 1, 2)


def write_cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    pixels = random_pixels(3, 32, 32)
    base = folder / "cifar-10-batches-py"
    base.mkdir()
    batch = {"data": pixels.reshape(60, -1), "labels": LABELS.tolist()}
    contents = {"data_batch_1": batch, "test_batch": batch, "batches.meta": {"label_names": list("abcdefghij")}}
    for name, content in contents.items():
        (base / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["data_batch_1", md5(base / "data_batch_1")]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5(base / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(base / "batches.meta")}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return pixels


@pytest.mark.parametrize("name", ["usps", "mnist", "svhn", "cifar10"])
def test_files_in_data_dir_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in ("svhn", "cifar10"):
        expected = {"svhn": write_svhn, "cifar10": write_cifar10}[name](tmp_path, monkeypatch)
    else:
        expected = {"usps": write_usps, "mnist": write_mnist}[name](tmp_path)
    dataset = load_dataset(name, data_dir=tmp_path)
    assert np.array_equal(dataset.test.images.numpy(), expected)
    assert dataset.test.labels.tolist() == LABELS.tolist()
    assert dataset.num_classes == 10
    assert (len(dataset.train), len(dataset.validation), dataset.notes) == (40, 20, ())
    assert load_dataset(name, data_dir=tmp_path, image_size=12).image_size == (12, 12)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist", "svhn", "usps"])
def test_failed_download(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset(name, data_dir=tmp_path / "data")
    assert f"The dataset {name} is not usable in {tmp_path / 'data'}, and downloading it" in caught.value.message
    assert "no route to host" in caught.value.message
    assert "--data-dir" in caught.value.hint
    assert caught.value.exit_code == 2
    printed = capsys.readouterr()
    assert "connecting" in printed.err
    assert printed.out == "", "stdout is for results"


def test_altered_pickle_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (trap,)

    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError):
        load_dataset("cifar10", data_dir=tmp_path)
    assert not trap.exists()


def test_damaged_file(tmp_path: Path) -> None:
    write_usps(tmp_path)
    path = tmp_path / "usps.t.bz2"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match="remove a damaged file first"):
        load_dataset("usps", data_dir=tmp_path)


def test_default_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path))
    assert default_data_dir() == tmp_path / "datasets"
    default_data_dir().mkdir()
    write_usps(default_data_dir())
    assert len(load_dataset("usps").test) == 60
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NASPROXY_CACHE", "~/mine")
    assert default_data_dir() == tmp_path / "mine" / "datasets"
    monkeypatch.delenv("NASPROXY_CACHE")
    assert "nasproxy" in default_data_dir().parts
