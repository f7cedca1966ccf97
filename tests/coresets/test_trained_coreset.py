"""Herding, k-center and forgetting as proxies: which images, from what, with which errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import tiny_dataset, with_other_held_out_images

from nasproxy.coresets.features import features
from nasproxy.coresets.forgetting import Forgetting
from nasproxy.coresets.herding import Herding
from nasproxy.coresets.k_center import KCenter
from nasproxy.coresets.whole_training import trained_on_whole
from nasproxy.errors import DatasetError, InputError
from nasproxy.proxies.make import make_proxy
from nasproxy.proxies.proxy_file import load_proxy

METHODS = [Herding, KCenter, Forgetting]
SMALL = {"epochs": 2, "width": 4, "depth": 1}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(dataset, method, seed=0, **more):
    return make_proxy(dataset, method, seed=seed, device=CPU, precision="float32", **more)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("counts", "channels", "size"),
    [((6, 4), 1, (8, 8)), ((3, 9, 5, 4, 3), 3, (16, 12)), ((3, 4), 3, (64, 64)), ((4, 3), 1, (28, 28))],
)
def test_makes_different_real_images_of_each_class_in_order(method, counts, channels, size):
    dataset = tiny_dataset(counts, channels=channels, size=size)
    proxy = make(dataset, method(ipc=3, **SMALL))
    assert proxy.labels.tolist() == [c for c in range(len(counts)) for _ in range(3)]
    sources = dict(
        zip([image.numpy().tobytes() for image in dataset.train.images], dataset.train.labels.tolist(), strict=True)
    )
    pixels = [image.numpy().tobytes() for image in dataset.normalisation.invert(proxy.images)]
    assert [sources[image] for image in pixels] == proxy.labels.tolist()
    assert len(set(pixels)) == len(pixels)


@pytest.mark.parametrize("method", METHODS)
def test_the_default_network_takes_a_step(method):
    assert len(make(tiny_dataset((3, 2)), method(ipc=2, epochs=1))) == 4


@pytest.mark.parametrize("method", METHODS)
def test_a_class_that_is_too_small_is_named_before_the_training(method, cache):
    told = []
    with pytest.raises(DatasetError, match="6 images per class were asked for, but class 'class 1' has 5"):
        make(tiny_dataset((9, 5)), method(ipc=6, **SMALL), on_iteration=lambda *step: told.append(step))
    assert told == []
    assert not list(cache.rglob("*.safetensors"))


@pytest.mark.parametrize("method", METHODS)
def test_the_training_part_alone_decides(method, monkeypatch, cache):
    dataset = tiny_dataset((9, 8))
    first = make(dataset, method(ipc=2, **SMALL))
    monkeypatch.setenv("NASPROXY_CACHE", str(cache.with_name("other")))
    assert torch.equal(first.images, make(with_other_held_out_images(dataset), method(ipc=2, **SMALL)).images)


def chosen(dataset, proxy):
    pixels = dataset.normalisation.invert(proxy.images)
    return [int((dataset.train.images == image).flatten(1).all(1).nonzero()) for image in pixels]


def trained(dataset):
    method = Herding(ipc=1, **SMALL)
    return trained_on_whole(dataset, method.training, seed=0, device=CPU, precision="float32")


def test_herding_begins_with_the_image_closest_to_the_mean_of_unit_features():
    dataset = tiny_dataset((12, 9))
    rows = features(trained(dataset).network, dataset.train.images, dataset.normalisation)
    rows = rows / rows.norm(dim=1, keepdim=True)
    found = chosen(dataset, make(dataset, Herding(ipc=1, **SMALL)))
    for label, position in enumerate(found):
        own = dataset.train.labels == label
        distances = (rows - rows[own].mean(0)).norm(dim=1)
        assert distances[position] == distances[own].min()


def test_k_center_takes_the_farthest_image_second():
    dataset = tiny_dataset((12, 9))
    rows = features(trained(dataset).network, dataset.train.images, dataset.normalisation)
    found = chosen(dataset, make(dataset, KCenter(ipc=2, **SMALL)))
    for label in (0, 1):
        own = dataset.train.labels == label
        first, second = found[2 * label : 2 * label + 2]
        to_mean = (rows - rows[own].mean(0)).norm(dim=1)
        assert to_mean[first] == to_mean[own].min()
        apart = (rows - rows[first]).norm(dim=1)
        assert apart[second] == apart[own].max()


def test_forgetting_takes_the_most_forgotten():
    dataset = tiny_dataset((12, 9))
    events = trained(dataset).forgetting
    found = chosen(dataset, make(dataset, Forgetting(ipc=4, **SMALL)))
    for label in (0, 1):
        own = events[dataset.train.labels == label].sort(descending=True).values
        assert events[found[4 * label : 4 * label + 4]].tolist() == own[:4].tolist()


def test_one_training_serves_all_three(cache):
    dataset = tiny_dataset((9, 8))
    proxies = [make(dataset, method(ipc=ipc, **SMALL)) for method in METHODS for ipc in (1, 2)]
    assert len(list((cache / "trainings").iterdir())) == 1
    assert len(list((cache / "proxies").iterdir())) == 6
    assert len({proxy.history for proxy in proxies}) == 1
    once = trained(dataset).seconds
    assert all(proxy.seconds >= once for proxy in proxies)


@pytest.mark.parametrize("method", METHODS)
def test_the_file_says_how_it_was_made(method, cache):
    told = []
    proxy = make(tiny_dataset(), method(ipc=1, **SMALL), seed=3, on_iteration=lambda *step: told.append(step))
    assert [epoch for epoch, _ in told] == [1, 2]
    assert tuple(loss for _, loss in told) == proxy.history
    (path,) = (cache / "proxies").iterdir()
    found = load_proxy(path)
    assert found.method == method.name
    assert dict(found.recipe) == {"ipc": 1, **SMALL, "seed": 3, "precision": "float32", "device": "cpu"}


@pytest.mark.parametrize("method", METHODS)
def test_presets(method):
    quick, paper = (method.preset(name, 5) for name in ("quick", "paper"))
    assert type(quick) is method
    assert (quick.ipc, quick.width, quick.depth, quick.steps) == (5, 128, 3, quick.epochs)
    assert (quick.epochs, paper.epochs) == (20, 100)
    assert replace(paper, epochs=20) == quick
    assert (method.verb, method.loss_name) == ("Selecting", "training loss")


@pytest.mark.parametrize("name", ["ipc", "epochs", "width", "depth"])
def test_settings_below_one_are_refused(name):
    with pytest.raises(InputError, match=f"{name} must be 1 or more, got 0"):
        Herding(**{name: 0})


def test_the_time_is_estimated_without_a_trace(cache):
    seconds = [
        KCenter(ipc=1, epochs=epochs, width=4, depth=1).expected_seconds(
            tiny_dataset(), device=CPU, precision="float32"
        )
        for epochs in (1, 10_000)
    ]
    assert 0 < seconds[0] < seconds[1]
    assert not cache.exists()


@pytest.mark.parametrize("method", METHODS)
def test_images_that_exceed_memory_give_the_same_choice(method, monkeypatch, tmp_path):
    dataset = tiny_dataset((20, 9), channels=3)
    held = make(dataset, method(ipc=2, **SMALL))
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "another"))
    monkeypatch.setenv("NASPROXY_MEMORY_MIB", "0")
    mapped = make(dataset, method(ipc=2, **SMALL))
    assert torch.equal(mapped.images, held.images)
    assert mapped.history == held.history
