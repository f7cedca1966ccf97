"""Functions of a trial as search spaces: against hand-made lists of their points, and through whole searches."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter

import optuna
import pandas as pd
import pytest
import torch
from tiny_search import invoke, write_space
from torch import nn

from nasproxy.errors import SpaceError
from nasproxy.search.proposals import Proposals
from nasproxy.spaces import define_by_run
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.define_by_run import DefineByRun
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import ABSENT, SearchSpace

SHAPE = {"in_channels": 1, "num_classes": 3, "image_size": (4, 4)}


def blocks(trial):
    """Three widths for each of up to three layers, and a dropout only where there is no normalisation."""
    depth = trial.suggest_int("depth", 1, 3)
    widths = [trial.suggest_categorical(f"width_{number}", [4, 8, 16]) for number in range(depth)]
    dropout = (
        trial.suggest_float("dropout", 0.0, 0.3, step=0.1)
        if trial.suggest_categorical("drop", [True, 1]) is True
        else 0.0
    )

    def build(*, in_channels, num_classes, image_size):
        sizes = [in_channels * math.prod(image_size), *widths]
        layers = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
        return nn.Sequential(nn.Flatten(), *layers, nn.Dropout(dropout), nn.Linear(widths[-1], num_classes))

    return build


def listed_by_hand():
    for depth in (1, 2, 3):
        for widths in itertools.product([4, 8, 16], repeat=depth):
            named = {f"width_{number}": width for number, width in enumerate(widths)}
            for dropout in (0.0, 0.1, 0.2, 0.3):
                yield {"depth": depth, **named, "drop": True, "dropout": dropout}
            yield {"depth": depth, **named, "drop": 1}


def texts(configs):
    return [json.dumps(config) for config in configs]


def build_nothing(*, in_channels, num_classes, image_size):
    raise NotImplementedError


def test_lists_every_point_once_and_in_order():
    space = DefineByRun(blocks)
    expected = texts(listed_by_hand())
    assert texts(space) == expected
    assert texts(space[index] for index in range(len(space))) == expected
    assert len(space) == len(expected) == 5 * (3 + 9 + 27)
    assert len({Candidate.of(config).id for config in space}) == len(space)
    assert not space.sampled
    assert space.name == "blocks"


def test_choices_have_all_values_and_say_what_is_not_always_asked():
    assert {name: list(values) for name, values in DefineByRun(blocks).choices.items()} == {
        "depth": [1, 2, 3],
        "width_0": [4, 8, 16],
        "drop": [True, 1],
        "dropout": [0.0, 0.1, 0.2, 0.3, ABSENT],
        "width_1": [4, 8, 16, ABSENT],
        "width_2": [4, 8, 16, ABSENT],
    }


def test_builds_what_the_function_builds():
    config = {"depth": 2, "width_0": 4, "width_1": 16, "drop": True, "dropout": 0.2}
    network = DefineByRun(blocks).build(config, **SHAPE)
    assert network(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [4, 16, 3]
    assert network[-2].p == 0.2


def test_a_pruned_point_is_invalid_with_its_reason():
    def wide(trial):
        width, depth = trial.suggest_int("width", 1, 3), trial.suggest_int("depth", 1, 2)
        if width * depth > 4:
            raise optuna.TrialPruned(f"{width} times {depth} is too much")
        return build_nothing

    space = DefineByRun(wide)
    answers = {(config["width"], config["depth"]): space.is_valid(config, (4, 4)) for config in space}
    assert answers.pop((3, 2)) == "3 times 2 is too much"
    assert set(answers.values()) == {True}
    assert len(answers) == 5


def test_distributions_are_those_that_optuna_was_asked_for():
    config = {"depth": 1, "width_0": 8, "drop": True, "dropout": 0.1}
    asked = DefineByRun(blocks).distributions(config)
    recorded = optuna.create_study().ask()
    blocks(recorded)
    assert asked["depth"] == recorded.distributions["depth"] == optuna.distributions.IntDistribution(1, 3)
    assert asked["width_0"] == recorded.distributions["width_0"]
    assert asked["dropout"] == optuna.distributions.FloatDistribution(0.0, 0.3, step=0.1)
    assert set(asked) == set(config)


def test_ranges_may_depend_on_earlier_answers():
    def triangle(trial):
        trial.suggest_int("inner", 1, trial.suggest_int("outer", 1, 4))
        return build_nothing

    space = DefineByRun(triangle)
    assert [(c["outer"], c["inner"]) for c in space] == [(o, i) for o in range(1, 5) for i in range(1, o + 1)]
    assert space.choices["inner"] == (1, 2, 3, 4)
    assert space.distributions({"outer": 2, "inner": 1})["inner"].high == 2


def test_steps_logarithms_and_single_values():
    def odd(trial):
        trial.suggest_int("stepped", 2, 9, step=3)
        trial.suggest_int("logarithmic", 1, 3, log=True)
        trial.suggest_float("tenths", 0.1, 0.5, step=0.1)
        trial.suggest_int("one", 7, 7)
        return build_nothing

    with pytest.warns(UserWarning, match="not divisible"):  # Optuna's own: 2, 5, 8
        choices = DefineByRun(odd).choices
    assert choices["stepped"] == (2, 5, 8)
    assert choices["logarithmic"] == (1, 2, 3)
    assert choices["tenths"] == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert choices["one"] == (7,)


def many(trial):
    """A million points; the first answer decides how many questions follow."""
    for number in range(trial.suggest_int("questions", 1, 6)):
        trial.suggest_categorical(f"answer_{number}", list(range(10)))
    trial.suggest_int("scale", 1, 64, log=True)
    return build_nothing


def test_a_large_function_is_sampled_the_same_in_every_process(monkeypatch):
    monkeypatch.setattr(define_by_run, "ENUMERATED", 600)
    space = DefineByRun(many)
    assert space.sampled
    assert len(space) == len(set(texts(space))) == 600
    assert texts(DefineByRun(many)) == texts(space)
    lengths = Counter(config["questions"] for config in space)
    # Walks, not leaves: 1.8 standard deviations of a binomial of 600 at 1/6 are 16; one answer alone has few points.
    assert all(abs(lengths[number] - 100) < 60 for number in range(2, 7))
    assert sum(config["scale"] <= 8 for config in space) > 250  # half of a logarithmic range, an eighth of a linear one
    sample = space.sample(50, seed=1)
    assert set(texts(sample)) < set(texts(space))
    assert len(set(texts(sample))) == 50


def test_a_sample_takes_every_answer_as_often():
    space = DefineByRun(blocks)
    depths = Counter(config["depth"] for seed in range(20) for config in space.sample(12, seed))
    assert all(40 < depths[depth] < 120 for depth in (1, 2, 3))  # uniform over points would be 18, 55, 166
    assert texts(space.sample(len(space), seed=0)) == texts(space)
    assert space.sample(0, seed=0) == []
    with pytest.raises(ValueError, match="cannot sample 196"):
        space.sample(196, seed=0)


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sampler_proposes_every_point_once_by_asking_the_function(sampler):
    space = DefineByRun(blocks)
    candidates = [Candidate.of(config) for config in space][:60]
    proposals = Proposals(sampler, candidates, space.choices, ["accuracy"], 0, space.suggest)
    found = []
    for _ in range(60):
        (candidate,) = proposals.ask(1)
        proposals.tell(candidate, [candidate.config["width_0"] / 16])
        found.append(candidate.id)
    assert sorted(found) == sorted(candidate.id for candidate in candidates)
    assert proposals.ask(1) == []


def test_a_trial_of_optunas_gives_a_point_of_the_space():
    space = DefineByRun(blocks)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = set(texts(space))
    for _ in range(30):
        assert json.dumps(space.suggest(study.ask())) in points


def test_a_space_of_classes_is_suggested_as_before():
    class Two(SearchSpace):
        name = "two"
        choices = {"a": [1, 2], "b": [None, True, 1]}  # noqa: RUF012

        def build(self, config, *, in_channels, num_classes, image_size):
            raise NotImplementedError

    space, candidates = Two(), [Candidate.of(config) for config in Two()]
    either = [Proposals("tpe", candidates, space.choices, ["accuracy"], 3, how) for how in (None, space.suggest)]
    orders = [[proposals.ask(1)[0].id for _ in candidates] for proposals in either]
    assert orders[0] == orders[1]
    assert set(space.distributions({"a": 1, "b": True})) == {"a", "b"}


HEAD = "import random\nfrom torch import nn\n"


@pytest.mark.parametrize(
    ("body", "message", "hint"),
    [
        (
            "trial.suggest_float('x', 0.0, 1.0)\n    return build",
            "my_space.py:5: .*x is any number from 0.0 to 1.0",
            "step=",
        ),
        ("trial.suggest_float('x', 1.0, 2.0, log=True)\n    return build", "x is any number", "step="),
        ("trial.suggest_int('x', 1, 5000)\n    return build", "x has 5,000 values", "step="),
        ("trial.suggest_categorical('x', [])\n    return build", "x has no values", ""),
        (
            "trial.suggest_categorical('x', [(1, 2)])\n    return build",
            r"x holds \(1, 2\) of type tuple",
            "turn it into",
        ),
        (
            "trial.suggest_categorical('x', [None, ''])\n    return build",
            "x holds None and '', which tables do not tell apart",
            "another way",
        ),
        ("trial.suggest_int('x', 5, 1)\n    return build", "my_space.py:5: ValueError: .*low", ""),
        ("return build", r"space \(my_space.py:4\) asks its trial nothing", "suggest_int"),
        ("trial.suggest_int('x', 1, 2)", r"\(my_space.py:4\) returns NoneType instead of a function", "return build"),
        (
            "trial.suggest_int('x', 1, 2)\n    return lambda images: 1",
            r"<lambda> \(my_space.py:6\) of my_space takes \(images\), which does not fit",
            "Write def build(*, in_channels, num_classes, image_size)",
        ),
        (
            "trial.suggest_int('x', 1, 2)\n    return nn.ReLU()",
            "returns ReLU instead of a function",
            "without building",
        ),
        ("1 / 0", "my_space.py:5: ZeroDivisionError", ""),
        ("trial.suggest_int('a b', 1, 2)\n    return build", "'a b'", "letters"),
        (
            "while trial.suggest_int(f'x{len(trial.params)}', 0, 1) < 2: pass",
            "more than 1000 parameters",
            "come to an end",
        ),
        ("trial.suggest_int('x', 1, 2); trial.suggest_int('x', 1, 3)\n    return build", "asked x twice", "Rename"),
        (
            "trial.suggest_categorical('x', [1, 2] if trial.suggest_int('y', 0, 1) else [3])\n    return build",
            r"space \(my_space.py:4\) asks for x as .*at another point",
            "another name",
        ),
        (
            "trial.suggest_int(random.choice('abcdefgh'), 1, 2)\n    trial.suggest_int('y', 1, 900)\n    return build",
            None,
            "",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, body, message, hint):
    text = f"{HEAD}build = lambda **shape: nn.Flatten()\ndef space(trial):\n    {body}\n"
    path = write_space(tmp_path, text)
    if message is None:  # chance is noticed where a point is built again
        loaded = SpaceSource.parse(str(path)).load()
        with pytest.raises(SpaceError, match="depend on earlier answers alone"):
            [loaded.is_valid(config, (4, 4)) for config in loaded]
        return
    with pytest.raises(SpaceError, match=message) as caught:
        SpaceSource.parse(f"{path}:space").load()
    assert hint in caught.value.hint


@pytest.mark.parametrize(("file", "name"), [("mixed.py", "mixed"), ("no-word.py", "space")])
def test_a_function_called_space_goes_by_the_name_of_its_file_where_that_is_a_name(tmp_path, file, name):
    text = f"{HEAD}def space(trial):\n    trial.suggest_int('x', 1, 2)\n    return lambda **shape: nn.Flatten()\n"
    source = SpaceSource.parse(str(write_space(tmp_path, text, file)))
    (tmp_path / file).unlink()  # as on another node
    assert source.load().name == name


def test_a_function_is_found_without_its_name_and_its_errors_in_build_are_located(tmp_path):
    body = "import math\n\ndef helper(trial, x): ...\n\ndef narrow(trial, more=1):\n    trial.suggest_int('x', 1, 2)\n"
    path = write_space(tmp_path, body + "    def build(**shape):\n        return {}['x']\n    return build\n")
    space = SpaceSource.parse(str(path)).load()
    assert (space.name, len(space)) == ("narrow", 2)
    said = invoke("spaces", "check", str(path))
    assert said.code == 1
    assert "my_space.py:8: KeyError" in said.out
    with pytest.raises(SpaceError, match=r"helper \(my_space.py:3\) of .* takes \(trial, x\) instead of a trial alone"):
        SpaceSource.parse(f"{path}:helper").load()
    meant = write_space(tmp_path, "def space(trail): ...\n", "meant.py")
    with pytest.raises(SpaceError, match=r"space \(meant.py:1\) of .* takes \(trail\) instead"):
        SpaceSource.parse(str(meant)).load()


BLOCKS = """
from torch import nn


def space(trial):
    depth = trial.suggest_int("depth", 1, 2)
    widths = [trial.suggest_categorical(f"width_{number}", [4, 8]) for number in range(depth)]
    dropout = trial.suggest_float("dropout", 0.0, 0.2, step=0.1) if depth == 1 else 0.0

    def build(*, in_channels, num_classes, image_size):
        layers = [nn.Flatten()]
        for width in widths:
            layers += [nn.LazyLinear(width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Dropout(dropout), nn.LazyLinear(num_classes))

    return build
"""
WORDS = ["--proxy", "random", "--ipc", "2", "--epochs", "2", "--finalist-epochs", "1", "--top-k", "2"]
WORDS += ["--image-size", "8", "--device", "cpu"]


@pytest.fixture
def search(tmp_path, monkeypatch):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    space = f"{write_space(tmp_path, BLOCKS)}:space"
    return lambda *more: invoke("search", "--space", space, "--out", str(tmp_path / "run"), *WORDS, "--json", *more)


def test_a_search_ends_in_a_winner_and_optuna_finds_its_parameters(search, tmp_path):
    said = search("--executor", "inline")
    assert said.code == 0, said.err
    assert (said.json["candidates"], said.json["evaluated"]) == (10, 10)
    table = pd.read_csv(tmp_path / "run" / "results.csv")
    assert set(table.loc[table["params_depth"] == 1, "params_width_1"]) == {ABSENT}
    assert set(table.loc[table["params_depth"] == 2, "params_dropout"]) == {ABSENT}
    assert (tmp_path / "run" / "winner" / "classify.py").exists()
    assert (tmp_path / "run" / "report.html").exists()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "run" / "study.log"))
    )
    trials = optuna.load_study(study_name="nasproxy", storage=storage).trials
    points = {json.dumps(trial.params) for trial in trials}
    assert len(points) == 10
    assert all(trial.distributions["depth"] == optuna.distributions.IntDistribution(1, 2) for trial in trials)
    assert {("dropout" in trial.params) for trial in trials if trial.params["depth"] == 2} == {False}


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--limit", "6"), ("--sampler", "tpe", "--trials", "6")])
def test_a_part_of_it_is_searched_and_resumed(search, tmp_path, more):
    said = search("--executor", "inline", *more)
    assert said.code == 0, said.err
    assert said.json["evaluated"] == 6
    study = tmp_path / "run" / "study.log"
    lines = study.read_bytes().splitlines(keepends=True)
    study.write_bytes(b"".join(lines[: len(lines) // 2]))
    again = search("--executor", "inline", "--resume", *more)
    assert again.code == 0, again.err
    assert again.json["top"] == said.json["top"]


@pytest.mark.slow
def test_workers_of_tune_find_the_function(search, tmp_path):
    said = search("--executor", "tune", "--workers", "2", "--scheduler", "none")
    assert said.code == 0, said.err
    assert said.json["evaluated"] == 10


@pytest.mark.slow
def test_a_comparison_and_its_scores_take_conditional_parameters(search, tmp_path):
    space = f"{write_space(tmp_path, BLOCKS)}:space"
    words = ["--proxies", "random,parameters", "--ipc", "2", "--epochs", "1", "--finalist-epochs", "1", "--top-k", "3"]
    words += ["--executor", "inline", "--image-size", "8", "--out", str(tmp_path / "compared")]
    said = invoke("compare", "--space", space, *words, "--json")
    assert said.code == 0, said.err
    scores = pd.read_csv(tmp_path / "compared" / "scores.csv")
    assert set(scores.loc[scores["params_depth"] == 1, "params_width_1"]) == {ABSENT}
