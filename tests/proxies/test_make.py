"""Proxies by name: drawn, or condensed once and kept."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
import torch
from tiny import tiny_dataset, with_other_held_out_images

from nasproxy import versions
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.errors import DatasetError, InputError, WriteError
from nasproxy.proxies.make import make_proxy, random_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy

RECIPE = MatchingRecipe(ipc=1, iterations=2, matching_steps=1, width=4, depth=1)


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((7, 5))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Asks for the condensed proxy, and counts the iterations that were computed."""

    def __init__(self, dataset):
        self.dataset, self.iterations = dataset, 0

    def __call__(self, dataset=None, recipe=RECIPE, seed=0, precision="float32", **more):
        def count(iteration, loss):
            self.iterations += 1

        where = {"device": torch.device("cpu"), "precision": precision}
        return make_proxy(dataset or self.dataset, recipe, seed=seed, on_iteration=count, **where, **more)


@pytest.fixture
def make(cache, dataset):
    return Maker(dataset)


def kept(cache):
    return sorted(cache.rglob("*.*"))


def test_a_random_proxy_is_stratified_real_training_images(dataset):
    proxy = random_proxy(dataset, 3, seed=0)
    assert proxy.labels.tolist() == [0, 0, 0, 1, 1, 1]
    pixels = dataset.normalisation.invert(proxy.images)
    for image, label in zip(pixels, proxy.labels, strict=True):
        same = (dataset.train.images == image).flatten(1).all(1)
        assert dataset.train.labels[same].tolist() == [label]
    assert len({image.numpy().tobytes() for image in pixels}) == 6


def test_a_random_proxy_says_where_it_comes_from(dataset):
    proxy = random_proxy(dataset, 2, seed=4)
    assert (proxy.method, dict(proxy.recipe)) == ("random", {"ipc": 2, "seed": 4})
    assert (proxy.dataset, proxy.fingerprint) == (dataset.name, dataset.fingerprint)
    assert (proxy.class_names, proxy.normalisation) == (dataset.class_names, dataset.normalisation)
    assert "torch" in proxy.versions
    proxy.check_matches(dataset)


def test_the_seed_of_a_random_proxy_decides(dataset):
    draws = [random_proxy(dataset, 2, seed=seed).images for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_random_proxy_comes_from_the_training_part_alone(dataset):
    one, other = (random_proxy(d, 3, seed=0) for d in (dataset, with_other_held_out_images(dataset)))
    assert torch.equal(one.images, other.images)


def test_a_class_that_is_too_small_is_an_error(dataset, make, cache):
    with pytest.raises(DatasetError, match="class 'class 1' has 5 training images"):
        random_proxy(dataset, 6, seed=0)
    with pytest.raises(DatasetError, match="class 'class 1' has 5 training images"):
        make(recipe=replace(RECIPE, ipc=6))
    assert kept(cache) == []


@pytest.mark.parametrize("ipc", [0, -1])
def test_less_than_one_image_a_class_is_an_error(dataset, ipc):
    with pytest.raises(InputError):
        random_proxy(dataset, ipc, seed=0)


def test_a_condensed_proxy_is_made_once_and_kept(make, cache):
    first = make()
    assert make.iterations == 2
    again = make()
    assert make.iterations == 2
    assert torch.equal(first.images, again.images)
    assert first.history == again.history
    assert (first.method, first.recipe["seed"], first.recipe["iterations"]) == ("dc", 0, 2)
    assert len(first.history) == 2
    assert first.seconds > 0
    first.check_matches(make.dataset)
    assert [torch.equal(load_proxy(path).images, first.images) for path in kept(cache)] == [True]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"precision": "bfloat16"},
        {"recipe": replace(RECIPE, iterations=1)},
        {"recipe": replace(RECIPE, image_learning_rate=0.05)},
        {"dataset": tiny_dataset((7, 5), seed=1)},
        {"dataset": with_other_held_out_images(tiny_dataset((7, 5)))},
    ],
    ids=["seed", "precision", "iterations", "learning rate", "images", "held-out images"],
)
def test_whatever_else_is_asked_for_is_another_file(make, cache, other):
    if "dataset" in other:
        # ``replace`` leaves the fingerprint as it was; real datasets get theirs from their content.
        other = {"dataset": replace(other["dataset"], fingerprint="f" * 32)}
    make()
    before = make.iterations
    make(**other)
    assert make.iterations > before
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("package", ["nasproxy", "torch"])
def test_another_version_makes_it_anew(make, cache, monkeypatch, package):
    make()
    monkeypatch.setattr(versions, "version", lambda name: "0.0.1" if name == package else version(name))
    make()
    assert make.iterations == 4
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: b"x" * 500])
def test_a_damaged_entry_is_made_anew(make, cache, damage):
    first = make()
    (path,) = kept(cache)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = make()
    assert make.iterations == 4
    assert torch.equal(again.images, first.images)
    assert torch.equal(load_proxy(path).images, first.images)
    assert kept(cache) == [path]


def test_an_entry_of_another_dataset_is_made_anew(make, cache):
    first = make()
    (path,) = kept(cache)
    save_proxy(random_proxy(tiny_dataset((7, 5), seed=1), 1, seed=0), path)
    assert torch.equal(make().images, first.images)


def test_the_cache_can_be_passed_by_but_is_filled(make, cache):
    first = make(use_cache=False)
    again = make(use_cache=False)
    assert make.iterations == 4
    assert torch.equal(first.images, again.images)
    make()
    assert make.iterations == 4
    assert len(kept(cache)) == 1


def test_a_cache_that_cannot_be_written_is_an_error(make, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(WriteError) as caught:
        make()
    assert "set NASPROXY_CACHE to a folder that can be written" in caught.value.hint


def test_an_interrupted_condensation_leaves_no_entry(cache, dataset):
    def interrupt(iteration, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_proxy(dataset, RECIPE, seed=0, device=torch.device("cpu"), precision="float32", on_iteration=interrupt)
    assert kept(cache) == []


MISMADE = """
from dataclasses import dataclass
from typing import Any
import numpy as np
import torch
from nasproxy import Condensed, NasproxyError, ProxyMethod, make_proxy
from nasproxy.testing import tiny_dataset

@dataclass(frozen=True)
class Mine(ProxyMethod):
    name = "mine"
    def make(self, dataset, **where):
        return made

where = {"seed": 0, "device": torch.device("cpu"), "precision": "float32"}
dataset = tiny_dataset((7, 5))
images, labels = torch.rand(4, dataset.channels, *dataset.image_size), torch.tensor([0, 0, 1, 1])
made = Condensed(images.double().requires_grad_(), labels, (np.float32(1),), np.float64(2.0))
for _ in range(2):
    proxy = make_proxy(dataset, Mine(), **where)
    assert len(proxy) == 4 and not proxy.images.requires_grad and proxy.history == (1.0,)
for made in (
    (images, labels),
    Condensed(images.numpy(), labels, (), 0.0),
    Condensed(images.to("meta"), labels, (), 0.0),
    Condensed(images, labels[:3], (), 0.0),
    Condensed(images[:0], labels[:0], (), 0.0),
    Condensed(images.repeat(1, 3, 1, 1), labels, (), 0.0),
    Condensed(images[:, :, 1:], labels, (), 0.0),
    Condensed(images.byte(), labels, (), 0.0),
    Condensed(images, labels.int(), (), 0.0),
    Condensed(images / 0, labels, (), 0.0),
    Condensed(images.double() + 1e300, labels, (), 0.0),
    Condensed(images, labels + 1, (), 0.0),
    Condensed(images, labels - 1, (), 0.0),
    Condensed(images, labels, (float("nan"),), 0.0),
    Condensed(images, labels, (), torch.tensor(1.0)),
    Condensed(images, labels, None, 0.0),
):
    try:
        make_proxy(dataset, Mine(), **where, use_cache=False)
    except NasproxyError as error:
        print(error)
"""


def test_what_a_strangers_method_made_is_refused_with_what_is_wrong(cache):
    """In a process of its own: under the tests tensors are checked against their annotations."""
    said = subprocess.run([sys.executable, "-c", MISMADE], capture_output=True, text=True, check=True).stdout
    dataset = tiny_dataset((7, 5))
    height, width = dataset.image_size
    begin = f"The method mine made no proxy of {dataset.name}: "
    end = " Mend __main__.Mine.make, which the tests of nasproxy.testing.ProxyMethodTests help with."
    lines = said.splitlines()
    assert {(line.startswith(begin), line.endswith(end)) for line in lines} == {(True, True)}
    assert [line.removeprefix(begin).removesuffix(end) for line in lines] == [
        "expected a Condensed, got a tuple.",
        "expected images that are a Tensor, got a ndarray.",
        "expected images on the CPU, got them on meta.",
        "expected 4 labels, one for each image, got labels of shape (3,).",
        f"expected images of shape (n, 1, {height}, {width}), got (0, 1, {height}, {width}).",
        f"expected images of shape (n, 1, {height}, {width}), got (4, 3, {height}, {width}).",
        f"expected images of shape (n, 1, {height}, {width}), got (4, 1, {height - 1}, {width}).",
        "expected images of a floating-point type and labels of int64, got torch.uint8 and torch.int64.",
        "expected images of a floating-point type and labels of int64, got torch.float32 and torch.int32.",
        "some pixels are infinite or not a number.",
        "some pixels are infinite or not a number.",
        "expected labels from 0 to 1, one for each class, got 1 to 2.",
        "expected labels from 0 to 1, one for each class, got -1 to 0.",
        "expected seconds and losses that are finite numbers, got 0.0 and (nan,).",
        "expected seconds and losses that are finite numbers, got tensor(1.) and ().",
        "expected seconds and losses that are finite numbers, got 0.0 and None.",
    ]


SLOW = """
from dataclasses import dataclass
from nasproxy.coresets.random import RandomImages

@dataclass(frozen=True)
class Slow(RandomImages):
    name = "slow"
    def make(self, dataset, **where):
        made.append(dataset)
        return super().make(dataset, **where)

made = []
"""


def test_what_a_strangers_method_makes_is_kept_until_its_file_changes(cache, make, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for edit, module in enumerate(("slow_method", "edited_method")):
        (tmp_path / f"{module}.py").write_text(SLOW + "# edited" * edit)
        found = importlib.import_module(module)
        for _ in range(2):
            make(recipe=found.Slow(ipc=2))
        assert len(found.made) == 1
    make(recipe=found.Slow(ipc=2), precision="bfloat16")
    assert len(found.made) == 2
    assert len(kept(cache)) == 3


def test_a_method_that_no_file_holds_is_made_anew(cache, make):
    typed: dict[str, Any] = {"__name__": "typed"}
    exec(SLOW, typed)  # noqa: S102, as a notebook does
    for _ in range(2):
        make(recipe=typed["Slow"](ipc=2))
    assert len(typed["made"]) == 2


def test_random_images_are_not_kept(cache, make):
    random_proxy(make.dataset, 2, seed=0)
    assert kept(cache) == []
