"""Files of the published code, as its last lines write them, and files that only look like it."""

from __future__ import annotations

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_dataset

from nasproxy.errors import InputError, ProxyError
from nasproxy.proxies.legacy_file import AUTHORS_NORMALISATION, load_legacy_proxy
from nasproxy.proxies.make import random_proxy

DATASET = tiny_dataset((5, 5, 5), channels=3)
IPC = 2


def experiment(seed: int = 0, **changes):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(3 * IPC, 3, 8, 8, generator=generator)
    labels = torch.tensor(np.array([np.ones(IPC) * c for c in range(3)]), dtype=torch.long).view(-1)
    return [changes.get("images", images), changes.get("labels", labels)]


def write(path: Path, **changes) -> Path:
    content = {
        "data": [experiment(0), experiment(1)],
        "accs_all_exps": {"ConvNet": [np.float64(0.25), np.float64(0.75)], "MLP": []},
    }
    torch.save(content | changes, path)
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "res_DC_CIFAR10_ConvNet_2ipc.pt")


def load(path: Path, **more):
    return load_legacy_proxy(path, DATASET, **{"normalisation": "cifar10", **more})


def test_images_come_into_our_normalisation_and_keep_their_pixels(file):
    proxy = load(file, experiment=1)
    images, labels = experiment(1)
    assert torch.equal(proxy.labels, labels)
    proxy.check_matches(DATASET)
    theirs = AUTHORS_NORMALISATION["cifar10"]
    for channel in range(3):
        pixels = images[:, channel] * theirs.std[channel] + theirs.mean[channel]
        ours = proxy.images[:, channel] * DATASET.normalisation.std[channel] + DATASET.normalisation.mean[channel]
        torch.testing.assert_close(ours, pixels, rtol=0, atol=1e-5)
    assert proxy.recipe == {
        "file": file.name,
        "experiment": 1,
        "accuracies": {"ConvNet": 0.5},
        "sources": "full training split",
    }
    assert "full training split" in str(proxy.doubt)
    assert random_proxy(DATASET, 1, seed=0).doubt is None
    assert (proxy.dataset, proxy.class_names) == (DATASET.name, DATASET.class_names)
    torch.testing.assert_close(load(file, normalisation="own").images, experiment(0)[0])


def test_tiny_imagenet_is_known_by_name(file):
    dataset = replace(DATASET, name="tiny-imagenet")
    pixels = experiment()[0] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels += torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in vars(DATASET.normalisation).values())
    torch.testing.assert_close(load_legacy_proxy(file, dataset).images, (pixels - mean) / std, rtol=0, atol=1e-5)


def test_names_of_numpy_before_2_are_read_too(file, tmp_path):
    old = tmp_path / "old.pt"
    new, renamed = b"numpy._core.multiarray\nscalar", b"numpy.core.multiarray\nscalar"
    with zipfile.ZipFile(file) as read, zipfile.ZipFile(old, "w", zipfile.ZIP_STORED) as written:
        for name in read.namelist():
            content = read.read(name)
            assert name.rpartition("/")[2] != "data.pkl" or new in content
            written.writestr(name, content.replace(new, renamed))
    assert torch.equal(load(old).images, load(file).images)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"experiment": 2}, "holds 2 experiments"),
        ({"experiment": -1}, "0 to 1"),
        ({"normalisation": "cifar"}, "Did you mean cifar10"),
        ({"normalisation": "mnist"}, "has 1 channels"),
        ({"normalisation": None}, "--normalisation, one of mnist"),
    ],
)
def test_what_the_file_cannot_answer_is_an_error(file, more, words):
    with pytest.raises(InputError) as caught:
        load(file, **more)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": []},
        {"data": torch.zeros(3)},
        {"data": [torch.zeros(3)]},
        {"data": [experiment()[:1]]},
        {"data": [[torch.zeros(2, 3, 8, 8), [0, 1]]]},
        {"data": [experiment(images=torch.zeros(4, 3, 8, 8))]},
        {"data": [experiment(images=torch.zeros(6, 3, 8))]},
        {"data": [experiment(images=torch.zeros(0, 3, 8, 8), labels=torch.zeros(0).long())]},
        {"data": [experiment(images=torch.full((6, 3, 8, 8), torch.nan))]},
        {"data": [experiment(images=torch.zeros(6, 3, 8, 8).long())]},
        {"data": [experiment(images=torch.zeros(6, 3, 8, 8).to_sparse())]},
        {"data": [experiment(images=torch.zeros(6, 1, 8, 8))]},
        {"data": [experiment(images=torch.zeros(6, 3, 4, 4))]},
        {"data": [experiment(labels=torch.zeros(6))]},
        {"data": [experiment(labels=torch.zeros(6).long())]},
        {"data": [experiment(labels=torch.tensor([0, 0, 1, 1, 3, 3]))]},
        {"data": [experiment(labels=torch.tensor([-1, 0, 1, 1, 2, 2]))]},
    ],
)
def test_other_content_is_an_error(tmp_path, changes):
    with pytest.raises(ProxyError) as caught:
        load(write(tmp_path / "odd.pt", **changes))
    assert caught.value.hint


@pytest.mark.parametrize("odd", [None, 3, {"ConvNet": None}, {"ConvNet": ["high"]}, {"ConvNet": [float("nan")]}])
def test_odd_accuracies_are_left_out(tmp_path, odd):
    assert load(write(tmp_path / "odd.pt", accs_all_exps=odd)).recipe["accuracies"] == {}


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_hostile_file_is_refused_and_does_nothing(tmp_path):
    trap = tmp_path / "trap"
    for name, content in (("a.pt", {"data": [experiment()], "accs_all_exps": Hostile(trap)}), ("b.pt", Hostile(trap))):
        torch.save(content, tmp_path / name)
        with pytest.raises(ProxyError, match=r"more than tensors and numbers: .*mkdir") as found:
            load(tmp_path / name)
        assert "weights_only" not in str(found.value)
    (tmp_path / "c.pt").write_bytes(pickle.dumps(Hostile(trap)))
    with pytest.raises(ProxyError):
        load(tmp_path / "c.pt")
    assert not trap.exists()


def test_a_file_that_is_none_or_damaged_is_refused(file, tmp_path):
    for content in (b"", b"words, and more of them", b"\x80\x02", file.read_bytes()[:-100], file.read_bytes()[:500]):
        (tmp_path / "bad.pt").write_bytes(content)
        with pytest.raises(ProxyError):
            load(tmp_path / "bad.pt")
    with pytest.raises(ProxyError, match="There is no file"):
        load(tmp_path / "nothing.pt")
    with pytest.raises(ProxyError):
        load(tmp_path)
