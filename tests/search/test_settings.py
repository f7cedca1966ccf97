import json
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.errors import InputError
from nasproxy.search.halving import Rung, halving_rungs
from nasproxy.search.settings import SearchSettings
from nasproxy.training.recipe import TrainingRecipe

COUNTS = [
    "ipc",
    "epochs",
    "repeats",
    "top_k",
    "finalist_epochs",
    "finalist_batch_size",
    "limit",
    "max_parameters",
    "max_multiply_adds",
    "workers",
    "threads_per_worker",
]

CHANGED = {
    "dataset": "mnist",
    "space": "other",
    "proxy": "random",
    "preset": "paper",
    "ipc": 3,
    "soft_labels": True,
    "epochs": 7,
    "learning_rate": 0.3,
    "augmentation": "siamese:crop",
    "norm_statistics": "real",
    "repeats": 4,
    "top_k": 3,
    "finalist_epochs": 9,
    "finalist_learning_rate": 0.5,
    "finalist_batch_size": 17,
    "finalist_augmentation": "crop",
    "calibrate": 32,
    "min_correlation": 0.5,
    "limit": 33,
    "max_parameters": 34,
    "max_multiply_adds": 35,
    "sampler": "tpe",
    "trials": 36,
    "objectives": ("accuracy", "parameters"),
    "scheduler": "none",
    "time_budget": 1.5,
    "executor": "inline",
    "workers": 2,
    "threads_per_worker": 2,
    "gpus_per_worker": 0.5,
    "address": "head:6379",
    "device": "cpu",
    "precision": "float32",
    "storage": "sqlite:///study.db",
    "seed": 8,
    "out": Path("somewhere"),
    "data_dir": Path("data"),
    "image_size": (24, 32),
    "skip_broken": True,
    "tensorboard": True,
    "evaluate_at": (2, 5),
}
"""Every setting, with a value that is not the default."""

NEEDS = {"trials": {"sampler": "random"}}
"""Settings that make no sense without others."""

TOGETHER = CHANGED | {"executor": "tune"}
"""As many of them as go together: a cluster is not for the inline executor."""

APART = {"time_budget", "out", "workers", "gpus_per_worker", "executor", "address", "data_dir", "storage"}
APART |= {"calibrate", "min_correlation", "tensorboard"}
"""Scores do not depend on these."""


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, -(10**30)])
def test_a_count_below_one_is_refused_by_its_option(name, value):
    with pytest.raises(InputError, match=f"^--{name.replace('_', '-')} must be 1 or more, got {value}"):
        SearchSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("preset", "quik", "quick"),
        ("scheduler", "halvin", "halving"),
        ("norm_statistics", "rael", "real"),
        ("executor", "tunes", "tune"),
        ("precision", "bfloat", "bfloat16"),
        ("augmentation", "siamse", "siamese"),
        ("finalist_augmentation", "crop-flipp", "crop-flip"),
    ],
)
def test_an_unknown_name_is_refused_and_the_nearest_shown(name, value, meant):
    with pytest.raises(InputError, match=f"{value!r}") as caught:
        SearchSettings(**{name: value})
    assert f"Did you mean {meant}?" in caught.value.hint


def test_siamese_augmentation_is_of_known_kinds_and_for_proxies_alone():
    with pytest.raises(InputError, match="'colour'") as caught:
        SearchSettings(augmentation="siamese:colour-crop")
    assert "Did you mean color?" in caught.value.hint
    with pytest.raises(InputError, match="No finalist augmentation is called 'siamese'"):
        SearchSettings(finalist_augmentation="siamese")


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["gpus_per_worker", "finalist_learning_rate", "time_budget"])
def test_a_share_or_rate_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(InputError):
        SearchSettings(**{name: value})


def test_a_gpu_and_a_half_is_refused():
    with pytest.raises(InputError, match="whole number"):
        SearchSettings(gpus_per_worker=1.5)


def test_a_seed_that_torch_cannot_take_is_refused():
    with pytest.raises(InputError, match="--seed"):
        SearchSettings(seed=-1)
    with pytest.raises(InputError, match="--seed"):
        SearchSettings(seed=2**64)


@pytest.mark.parametrize("epochs", [(0,), (8,), (1, 8), (-1,)])
def test_scores_are_taken_within_the_training(epochs):
    with pytest.raises(InputError, match="1 to 7"):
        SearchSettings(epochs=7, evaluate_at=epochs)
    SearchSettings(epochs=7, evaluate_at=(1, 7))


def test_presets_fill_in_what_is_not_said():
    quick, paper = SearchSettings().resolved(), SearchSettings(preset="paper").resolved()
    assert (quick.repeats, quick.scheduler) == (1, "halving")
    assert quick.finalist_epochs is not None
    assert 1 <= quick.finalist_epochs < 100
    assert (paper.repeats, paper.finalist_epochs, paper.scheduler) == (5, 100, "none")
    assert quick.proxy_method() == MatchingRecipe.quick(10)
    assert paper.proxy_method() == MatchingRecipe.paper(10)


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_presets_leave_alone_what_is_said(preset):
    said = SearchSettings(preset=preset, repeats=2, finalist_epochs=3, scheduler="halving")
    assert said.resolved() == said
    assert SearchSettings(preset=preset).resolved().resolved() == SearchSettings(preset=preset).resolved()


def test_rungs_follow_the_scheduler():
    settings = SearchSettings(epochs=100, top_k=10)
    assert replace(settings, scheduler="none").rungs(720) == [Rung(100, 720)]
    assert replace(settings, scheduler="halving").rungs(720) == halving_rungs(720, 100, 10)


@given(st.integers(1, 100_000), st.none() | st.integers(1, 10_000))
def test_the_finalists_batch_is_a_sixteenth_of_the_images(images, said):
    recipe = SearchSettings(finalist_epochs=5, finalist_batch_size=said).finalist_recipe(images)
    expected = said or sorted((16, images // 16, 256))[1]
    assert recipe == TrainingRecipe(5, learning_rate=0.01, batch_size=expected)


def test_the_table_of_this_file_is_complete():
    assert list(CHANGED) == [field.name for field in fields(SearchSettings)]
    assert all(value != getattr(SearchSettings(), name) for name, value in CHANGED.items())


@pytest.mark.parametrize("name", CHANGED)
def test_the_identity_differs_exactly_where_scores_can(name):
    needed = {"trials": {"sampler": "random"}, "min_correlation": {"calibrate": 9}}.get(name, {})
    ours, other = SearchSettings(**needed), SearchSettings(**needed, **{name: CHANGED[name]})
    assert (ours.identity() != other.identity()) == (name not in APART)
    assert name in other.as_json()


@pytest.mark.parametrize("settings", [SearchSettings(), SearchSettings().resolved(), SearchSettings(**TOGETHER)])
def test_json_keeps_identity_and_settings(settings):
    for document in (settings.identity(), settings.as_json()):
        assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(settings.as_json()) == set(CHANGED)
    assert set(settings.identity()) == set(CHANGED) - APART


def test_runs_of_before_there_was_a_learning_rate_to_choose_go_on():
    assert SearchSettings().identity()["learning_rate"] is None


UNTYPED = """
import json
from pathlib import Path
import numpy as np
from nasproxy import CompareSettings, NasproxyError, SearchSettings

settings = SearchSettings(out="runs/mine", data_dir="d", dataset=Path("photos"), space=Path("my.py"),
                          proxy=Path("p.st"), seed=np.int64(3), epochs=np.int32(4))
assert (settings.out.parts, str(settings.data_dir)) == (("runs", "mine"), "d")
assert [settings.dataset, settings.space, settings.proxy] == ["photos", "my.py", "p.st"]
assert json.loads(json.dumps(settings.as_json()))["seed"] == 3
others = SearchSettings(objectives=["accuracy"], evaluate_at=range(1, 3), image_size=np.array([8, 9]), time_budget=5,
                        min_correlation=np.float32(0.5), calibrate=np.int8(9))
assert (others.objectives, others.evaluate_at, others.image_size) == (("accuracy",), (1, 2), (8, 9))
assert SearchSettings(image_size=16).image_size == (16, 16)
json.dumps(others.as_json())
for wrong in ({"epochs": "2"}, {"seed": 1.0}, {"limit": np.float64(3)}, {"image_size": "16"}, {"image_size": (8, 8, 8)},
              {"image_size": (8.0, 8)}, {"epochs": True}, {"calibrate": 3.5}, {"learning_rate": "0.1"},
              {"time_budget": True}, {"gpus_per_worker": None}, {"dataset": 5}, {"dataset": None}, {"space": b"x"},
              {"preset": ["quick"]}, {"device": 0}, {"address": 6379}, {"out": 7}, {"objectives": "accuracy"},
              {"objectives": (1,)}, {"evaluate_at": 3}, {"evaluate_at": (1.5,)}, {"skip_broken": "no"}):
    try:
        SearchSettings(**wrong)
    except NasproxyError as error:
        print(error.message)
search = SearchSettings(scheduler="none")
assert CompareSettings(search, proxies=["snip", Path("random")], sample=np.int64(9)).proxies == ("snip", "random")
for wrong in ({"search": "digits"}, {"proxies": "random"}, {"proxies": (1,)}, {"sample": "9"}):
    try:
        CompareSettings(**{"search": search, **wrong})
    except NasproxyError as error:
        print(error.message)
"""


def test_folders_may_be_texts_names_paths_and_numbers_numpys():
    """In a process of its own: under the tests arguments are checked against their annotations."""
    said = subprocess.run([sys.executable, "-c", UNTYPED], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == [
        "--epochs must be a whole number, got '2'.",
        "--seed must be a whole number, got 1.0.",
        "--limit must be a whole number, got np.float64(3.0).",
        "--image-size must be a whole number, or two: height and width, got '16'.",
        "--image-size must be a whole number, or two: height and width, got (8, 8, 8).",
        "--image-size must be a whole number, or two: height and width, got (8.0, 8).",
        "--epochs must be a whole number, got True.",
        "--calibrate must be a whole number, got 3.5.",
        "--learning-rate must be a number, got '0.1'.",
        "--time-budget must be a number, got True.",
        "--gpus-per-worker must be a number, got None.",
        "--dataset must be a text, got 5.",
        "--dataset must be a text, got None.",
        "--space must be a text, got b'x'.",
        "--preset must be a text, got ['quick'].",
        "--device must be a text, got 0.",
        "--address must be a text, got 6379.",
        "--out must be a path, got 7.",
        "--objectives must be several texts, got 'accuracy'.",
        "--objectives must be several texts, got (1,).",
        "--evaluate-at must be several whole numbers, got 3.",
        "--evaluate-at must be several whole numbers, got (1.5,).",
        "--skip-broken must be True or False, got 'no'.",
        "--search must be a SearchSettings, got 'digits'.",
        "--proxies must be several texts, got 'random'.",
        "--proxies must be several texts, got (1,).",
        "--sample must be a whole number, got '9'.",
    ]


def test_a_field_of_a_subclass_is_left_as_it_is():
    @dataclass(frozen=True)
    class More(SearchSettings):
        pairs: tuple[tuple[int, float], ...] = ((1, 0.5),)

    settings = More(dataset="digits", limit=3, pairs=((2, 0.25),))
    assert (settings.pairs, settings.limit) == (((2, 0.25),), 3)
