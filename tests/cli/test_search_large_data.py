"""A search on images that memory should not hold gives the table of one that holds them."""

from __future__ import annotations

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from PIL import Image
from tiny_search import SPACE, finish, invoke, read_table, recorded_trainings, search_words, start, write_space

from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.pixel_memory import VARIABLE
from nasproxy.search.bench import Bench
from nasproxy.training.on_demand import ImagesOnDemand

SMALL = "0.004"  # MiB: about five images


@pytest.fixture
def photos(folder):
    """Two classes of 40, larger than the 16 pixels that are asked for."""
    rng = np.random.default_rng(0)
    for label in ("dark", "light"):
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(40):
            low = 0 if label == "dark" else 90
            pixels = rng.integers(low, low + 160, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{number}.png")
    return folder / "photos"


def words(photos, out, *more):
    space = write_space(photos.parent)
    return search_words(space, out, "--dataset", str(photos), "--image-size", "16", "--seed", "3", *more)


@pytest.mark.parametrize("proxy", ["early-stopping", pytest.param("herding", marks=pytest.mark.slow)])
def test_the_same_table_inline(photos, folder, monkeypatch, proxy):
    held = []
    original = Bench._on_device
    monkeypatch.setattr(Bench, "_on_device", lambda *given: held.append(original(*given)) or held[-1])
    assert invoke(*words(photos, folder / "held", "--proxy", proxy)).code == 0
    assert not any(isinstance(images, ImagesOnDemand) for images in held)
    del held[:]
    monkeypatch.setenv(VARIABLE, SMALL)
    monkeypatch.setenv("NASPROXY_CACHE", str(folder / "another cache"))
    assert invoke(*words(photos, folder / "mapped", "--proxy", proxy)).code == 0
    assert any(isinstance(images, ImagesOnDemand) for images in held)
    assert_frame_equal(read_table(folder / "held"), read_table(folder / "mapped"))


@pytest.mark.slow
def test_condensing_too(photos, folder, monkeypatch):
    quick = ["--ipc", "1", "--iterations", "2", "--dataset", str(photos), "--image-size", "16", "--json"]
    held = invoke("condense", *quick, "--out", "held.safetensors").json["loss"]
    monkeypatch.setenv(VARIABLE, SMALL)
    monkeypatch.setenv("NASPROXY_CACHE", str(folder / "another cache"))
    assert invoke("condense", *quick, "--out", "mapped.safetensors").json["loss"] == held


@pytest.mark.slow
def test_the_same_table_on_ray_whose_workers_map_the_file_themselves(photos, folder, monkeypatch):
    assert invoke(*words(photos, folder / "held", "--proxy", "early-stopping")).code == 0
    monkeypatch.setenv(VARIABLE, SMALL)
    assert load_dataset(str(photos), image_size=16).train.file is not None
    more = ["--proxy", "early-stopping", "--executor", "tune", "--workers", "2"]
    said = finish(start(words(photos, folder / "mapped", *more)))
    assert said.code == 0, said.err
    assert_frame_equal(read_table(folder / "held"), read_table(folder / "mapped"))


GONE = """
import inspect
import pathlib


def lose_images():
    # Not while the driver looks at the networks: when one is to be trained.
    if any(frame.filename.endswith("bench.py") for frame in inspect.stack()):
        for path in pathlib.Path(CACHE).rglob("*.safetensors"):
            path.unlink()


class Wait("""


@pytest.mark.parametrize("executor", ["inline", pytest.param("tune", marks=pytest.mark.slow)])
def test_a_worker_that_finds_no_images_ends_the_search_and_blames_no_candidate(photos, folder, monkeypatch, executor):
    cache = folder / "a cache"
    monkeypatch.setenv(VARIABLE, SMALL)
    monkeypatch.setenv("NASPROXY_CACHE", str(cache))
    asked = words(photos, folder / "run", "--proxy", "early-stopping", "--executor", executor, "--json")
    text = SPACE.replace("\nclass Wait(", GONE.replace("CACHE", repr(str(cache))))
    write_space(folder, text.replace("        activation = {", "        lose_images()\n        activation = {"))
    said = finish(start(asked))
    assert said.code == 2, said.err
    assert said.json["error"]["kind"] == "cluster"
    assert "cannot be read here" in said.json["error"]["message"]
    assert "NASPROXY_CACHE" in said.json["error"]["hint"]
    assert not recorded_trainings(folder / "run")
