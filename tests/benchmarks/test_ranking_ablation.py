"""The ablation of ranking: what is measured, that nothing is measured twice, and the figures drawn from it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from tiny_search import invoke, write_space

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import ranking_ablation
from ranking_contenders import CONTENDERS, methods
from ranking_figures import as_csv, figures, table

NORMED = """
from torch import nn

from nasproxy import SearchSpace


class Normed(SearchSpace):
    name = "normed"
    choices = {"width": [2, 4, 8], "norm": ["none", "batch"]}

    def build(self, config, *, in_channels, num_classes, image_size):
        norm = nn.BatchNorm2d(config["width"]) if config["norm"] == "batch" else nn.Identity()
        layers = nn.Conv2d(in_channels, config["width"], 3), norm, nn.ReLU(), nn.Flatten()
        return nn.Sequential(*layers, nn.LazyLinear(num_classes))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dataset, a space, and what a comparison has trained on the whole data."""
    home, source = tmp_path_factory.mktemp("somewhere"), torch.Generator().manual_seed(0)
    for part, count in (("train", 20), ("test", 10)):
        for label in range(3):
            (home / "photos" / part / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = 50 * label + torch.randint(130, (8, 8), generator=source, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(home / "photos" / part / f"class{label}" / f"{number}.png")
    space = write_space(home, NORMED)
    words = ["compare", "--dataset", str(home / "photos"), "--space", str(space), "--executor", "inline"]
    words += ["--proxies", "random,early-stopping", "--epochs", "3", "--finalist-epochs", "2", "--top-k", "3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASPROXY_CACHE", str(home / "cache"))
        said = invoke(*words, "--precision", "float32", "--out", str(home / "truth"))
    assert said.code == 0, said.err
    return home


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    monkeypatch.setenv("NASPROXY_CACHE", str(home / "cache"))

    def run(*words, out="ablation.json"):
        given = ["--dataset", str(home / "photos"), "--image-size", "8", "--truth", str(home / "truth")]
        given += ["--space", str(home / "my_space.py"), "--epochs", "3", "--precision", "float32"]
        given += ["--condense-minutes", "0.01", "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", ["ranking_ablation.py", *given, *words])
        code = ranking_ablation.main()
        return code, json.loads((tmp_path / out).read_text()) if (tmp_path / out).exists() else None

    return run


FEW = ["random", "random-soft", "random-siamese", "random-soft-siamese", "random-statistics", "early-stopping"]


def test_its_scores_are_those_of_a_comparison(run, home):
    code, document = run("--contenders", *FEW, "--sets", "1")
    assert code == 0
    with (home / "truth" / "scores.csv").open() as file:
        truth = {row["id"]: row for row in csv.DictReader(file)}
    assert {c["id"]: c["whole"] for c in document["candidates"]} == {
        key: float(row["whole.0"]) for key, row in truth.items()
    }
    sets = {entry["images"]: entry for entry in document["sets"]}
    for images, training in (("random", "siamese"), ("early-stopping", "hard")):  # as a comparison does by default
        found = {key: scores["accuracy"] for key, scores in sets[images][training]["scores"].items()}
        assert found == {key: float(row[f"{images}.0"]) for key, row in truth.items()}
    scores = sets["random"]["hard"]["scores"]
    changed = {c["config"]["norm"] for c in document["candidates"] if len(set(scores[c["id"]].values())) > 1}
    assert changed <= {"batch"}
    assert sets["random"]["soft"]["scores"] != scores
    assert sets["random"]["siamese"]["scores"] != scores
    both = sets["random"]["soft-siamese"]
    assert both["labels"] == sets["random"]["soft"]["labels"]
    assert both["scores"] not in (scores, sets["random"]["siamese"]["scores"])
    assert sets["random"]["soft"]["labels"]["entropy"] > 0
    assert "somewhere" not in json.dumps(document)


def test_nothing_is_measured_twice_and_more_may_be_asked(run, tmp_path, capsys):
    assert run("--contenders", "random", "--sets", "1")[0] == 0
    first = json.loads((tmp_path / "ablation.json").read_text())
    code, second = run("--contenders", *FEW, "dm", "--sets", "2")
    assert code == 0
    assert second["sets"][0]["hard"] == first["sets"][0]["hard"]  # with its seconds
    # A training is scored under both kinds of statistics, whichever was asked for.
    done = {(c.images, c.training) for c in CONTENDERS if c.name in (*FEW, "dm")}
    expected = [c.name for c in CONTENDERS if (c.images, c.training) in done]
    assert [row["contender"] for row in second["rows"]] == expected
    assert {"dm-statistics", "random-siamese-statistics"} < set(expected)
    assert [s["set"] for s in second["sets"]] == [0, 0, 0, 1, 1, 1]
    assert {row["sets"] for row in second["rows"]} == {2}
    capsys.readouterr()
    assert run("--from", str(tmp_path / "ablation.json"))[0] == 0
    assert capsys.readouterr().out == f"{table(second)}\n"
    assert (tmp_path / "ablation.csv").read_bytes() == as_csv(second)
    code, _ = run("--contenders", "random", "--epochs", "4")
    assert code == 2
    assert "epochs was 3, now 4" in capsys.readouterr().err
    second["sets"][0]["making"]["recipe"]["ipc"] = 9
    (tmp_path / "ablation.json").write_text(json.dumps(second))
    assert run("--contenders", "random")[0] == 2
    assert "Set 0 of random was made with other settings: ipc was 9, now 10" in capsys.readouterr().err


@pytest.mark.slow
def test_condensed_sets_and_worker_processes_give_the_same(run):
    words = ["--contenders", "random", "dc-real", "dc-real-statistics", "dm", "--sets", "1"]
    (code, two), (_, one) = run(*words, "--workers", "2", out="two.json"), run(*words, out="one.json")
    assert code == 0

    def scores(document):
        return {entry["images"]: entry["hard"]["scores"] for entry in document["sets"]}

    assert scores(two) == scores(one)
    assert scores(one).keys() == {"random", "dc-real", "dm"}
    assert all(entry["making"]["failure"] is None for entry in one["sets"])


def invented(seed=0, sets=2):
    """A document in which random sets rank by chance, dc sets a little, and early stopping perfectly."""
    rng, count = np.random.default_rng(seed), 40
    whole = rng.permutation(count) / count
    candidates = [
        {"id": f"c{n}", "config": {"norm": ("none", "batch")[n % 2]}, "whole": float(w)} for n, w in enumerate(whole)
    ]

    def entry(images, number, noise):
        values = whole + noise * rng.standard_normal(count)
        scores = {f"c{n}": {"accuracy": float(v), "real_statistics": float(v)} for n, v in enumerate(values)}
        making = None if images == "early-stopping" else {"processor_seconds": 5.0, "failure": None}
        trained = {"processor_seconds": 2.0, "teacher_seconds": 0.0, "scores": scores}
        return {"images": images, "set": number, "making": making, "hard": trained}

    kinds = {"random": 9.0, "dc-real": 0.3, "early-stopping": 0.0}
    made = [entry(images, number, noise) for number in reversed(range(sets)) for images, noise in kinds.items()]
    about = {
        "dataset": {"name": "none", "image_size": [8, 8]},
        "settings": {"truth": "it", "epochs": 1, "precision": "float32", "seed": 0, "condense_minutes": 1.0},
        "machine": {"processor": "abacus"},
        "versions": {"torch": "2"},
    }
    return {"candidates": candidates, "sets": made, **about}


def test_figures_against_scipy():
    document = invented()
    rows = {row["contender"]: row for row in figures(document)}
    whole = [c["whole"] for c in document["candidates"]]
    for name, images in (("random", "random"), ("dc-real", "dc-real"), ("dc-real-statistics", "dc-real")):
        sets = [s for s in document["sets"] if s["images"] == images]
        columns = [[v["accuracy"] for v in s["hard"]["scores"].values()] for s in sorted(sets, key=lambda s: s["set"])]
        rhos = [spearmanr(column, whole).statistic for column in columns]
        assert rows[name]["of_sets"] == pytest.approx(rhos)
        assert rows[name]["rho"] == pytest.approx(fmean(rhos))
        assert rows[name]["of_mean_scores"] == pytest.approx(spearmanr(np.mean(columns, axis=0), whole).statistic)
        batch = spearmanr(np.array(columns[0])[1::2], whole[1::2]).statistic
        other = spearmanr(np.array(columns[1])[1::2], whole[1::2]).statistic
        assert rows[name]["within"]["batch"]["rho"] == pytest.approx(fmean([batch, other]))
        low, high = rows[name]["interval"]
        assert low < rows[name]["rho"] < high
    perfect = rows["early-stopping"]
    assert (perfect["rho"], perfect["interval"]) == (pytest.approx(1), pytest.approx((1, 1)))
    assert perfect["seconds_making_a_set"] == 0
    gap = rows["dc-real"]["from_random"]
    assert gap["difference"] == pytest.approx(rows["dc-real"]["rho"] - rows["random"]["rho"])
    assert gap["interval"][0] > 0
    assert gap["p_value"] <= gap["adjusted"] < 0.05
    assert "from_random" not in rows["random"]


def test_an_interval_holds_what_sets_differ_by():
    document = invented(sets=2)
    good = next(s for s in document["sets"] if (s["images"], s["set"]) == ("dc-real", 0))
    good["hard"]["scores"] = {
        c["id"]: {"accuracy": c["whole"], "real_statistics": c["whole"]} for c in document["candidates"]
    }
    bad = next(s for s in document["sets"] if (s["images"], s["set"]) == ("dc-real", 1))
    bad["hard"]["scores"] = {
        c["id"]: {"accuracy": -c["whole"], "real_statistics": -c["whole"]} for c in document["candidates"]
    }
    row = next(row for row in figures(document) if row["contender"] == "dc-real")
    assert row["rho"] == pytest.approx(0)
    assert row["interval"] == pytest.approx((-1, 1))


def test_the_table_has_a_row_for_each_contender_and_says_what_it_is_of():
    document = invented()
    lines = table({**document, "rows": figures(document)}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:-2]] == [
        "random", "random-statistics", "early-stopping", "dc-real", "dc-real-statistics",
    ]  # fmt: skip
    assert "40 candidates (20 none, 20 batch)" in lines[-1]
    assert "abacus" in lines[-1]
    assert lines[2].split("|")[3].strip() == "\N{EN DASH}"


def test_condensing_budgets_are_equal_but_for_the_long_one():
    made = methods(2.0)
    assert {c.images for c in CONTENDERS} == {*made, "early-stopping"}
    assert made["dc-noise"].iterations == made["dc-real"].iterations
    assert made["dc-real-long"].iterations == pytest.approx(3 * made["dc-real"].iterations, abs=2)
    assert all(method.network == "space:convnet720" for name, method in made.items() if name.endswith("-space"))


@pytest.mark.parametrize(
    "words",
    [["--sets", "0"], ["--contenders", "dc-reel"], ["--condense-minutes", "nan"], ["--seed", "-1"],
     ["--image-size", "9"], ["--from", "nothing.json"]],
)  # fmt: skip
def test_bad_input_is_an_error_with_a_reason(run, words, capsys):
    code, document = run(*words)
    assert code == 2
    assert document is None
    assert capsys.readouterr().err.startswith("Error: ")
