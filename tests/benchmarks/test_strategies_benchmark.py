"""The comparison of search strategies, against the table that it looks scores up in."""

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from nasproxy.errors import InputError
from nasproxy.search.halving import halving_rungs
from nasproxy.search.task import PROXY, Task
from nasproxy.training.recipe import TrainingRecipe

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "search_strategies.py"
sys.path.insert(0, str(SCRIPT.parent))  # of what it imports


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("search_strategies", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def table(script: ModuleType):
    return script.Table(script.RESULTS / "full_ranking_digits.csv")


@pytest.fixture(scope="module")
def frame(script: ModuleType) -> pd.DataFrame:
    return pd.read_csv(script.RESULTS / "full_ranking_digits.csv", dtype={"id": str}).set_index("id")


def best_first(frame: pd.DataFrame, epoch: int) -> list[str]:
    columns = [f"accuracy_{epoch}", f"cross_entropy_{epoch}"]
    return list(frame.sort_values(columns, ascending=[False, True], na_position="last").index)


def strategy(script: ModuleType, table, name: str, budget: str):
    (found,) = (s for s in script.all_strategies(table, [30]) if (s.name, s.budget) == (name, budget))
    return found


def test_the_exhaustive_search_finds_the_best(script, table, frame):
    result = script.search(table, strategy(script, table, "exhaustive", "720 candidates"), 3)
    assert (result.epochs, result.regret, result.overlap) == (72000, 0, 10)
    assert result.mean_of_finalists == pytest.approx(frame["accuracy_100"].nlargest(10).mean())
    assert result.known_on_whole_data == 1
    assert len(result.curve) == 720
    assert result.curve == sorted(result.curve, reverse=True)
    assert result.curve[-1] == 0


def test_candidates_are_visited_in_an_order_of_the_seed_s(script, table):
    exhaustive = strategy(script, table, "exhaustive", "720 candidates")
    curves = [script.search(table, exhaustive, seed).curve for seed in (0, 0, 1, 2)]
    assert curves[0] == curves[1]
    assert len({tuple(curve) for curve in curves}) == 3


def test_halving_spends_and_keeps_what_its_rungs_say(script, table, frame):
    for name, cuts in {"halving": script.CUTS, **script.OTHER_CUTS}.items():
        result = script.search(table, strategy(script, table, name, "720 candidates"), 0)
        rungs = halving_rungs(720, 100, 10, cuts)
        assert result.epochs == sum(rung.candidates * rung.epochs for rung in rungs)
        alive = frame
        for rung, after in itertools.pairwise(rungs):
            alive = alive.loc[best_first(alive, table.scored_epoch(rung.epochs))[: after.candidates]]
        finalists = best_first(alive, 100)[:10]
        assert result.regret == pytest.approx(frame["accuracy_100"].max() - alive["accuracy_100"].max())
        assert result.mean_of_finalists == pytest.approx(frame.loc[finalists, "accuracy_100"].mean())
        assert result.overlap == len(set(finalists) & set(best_first(frame, 100)[:10]))
        assert result.known_on_whole_data == frame.loc[finalists, "whole_accuracy"].notna().mean()


def rungs_of(result) -> dict[int, int]:
    return {rung.epochs: rung.candidates for rung in result.rungs}


def spent_in(rungs: dict[int, int]) -> int:
    return sum(count * (end - begin) for (end, count), begin in zip(rungs.items(), (0, *rungs), strict=False))


def test_asynchronous_halving_judges_by_what_came_before(script, table, frame):
    result = script.search(table, strategy(script, table, "asha", "720 candidates"), 0)
    settings = script.SearchSettings(epochs=100, scheduler="asha", seed=0)
    order = sorted(table.candidates(), key=lambda candidate: candidate.seed(settings.seed, 0, PROXY))
    arrived: dict[int, list[float]] = {4: [], 15: [], 60: []}
    came = dict.fromkeys(arrived, 0)
    complete = []
    # One worker takes one candidate after another, and the best quarter of those that came to a level goes on.
    for candidate in order:
        for level, scores in arrived.items():
            score = frame.fillna(0.0).loc[candidate.id, f"accuracy_{level}"]
            scores.append(score)
            came[level] += 1
            if score < sorted(scores, reverse=True)[max(len(scores) // 4 - 1, 0)]:
                break
        else:
            complete.append(candidate.id)
    assert list(rungs_of(result).items()) == [(4, came[4]), (16, came[15]), (64, came[60]), (100, len(complete))]
    assert result.epochs == spent_in(rungs_of(result))
    finalists = best_first(frame.loc[complete], 100)[:10]
    assert result.overlap == len(set(finalists) & set(best_first(frame, 100)[:10]))
    assert result.regret == pytest.approx(frame["accuracy_100"].max() - frame.loc[finalists, "accuracy_100"].max())


def test_hyperband_cuts_later_than_asha_and_workers_change_what_is_known(script, table):
    alone, together, bands = (
        script.search(table, strategy(script, table, name, budget), 0)
        for name, budget in (
            ("asha", "720 candidates"),
            ("asha", "720 candidates, 8 workers"),
            ("hyperband", "720 candidates"),
        )
    )
    for result in (alone, together, bands):
        assert rungs_of(result)[4] == 720
        assert result.epochs == spent_in(rungs_of(result)) < 72000
    assert rungs_of(bands)[16] > 1.5 * rungs_of(alone)[16]
    assert rungs_of(together) != rungs_of(alone)


def test_finalists_are_found_where_fewer_come_to_the_end(script, table):
    result = script.search(table, strategy(script, table, "asha", "--limit 60"), 0)
    assert rungs_of(result)[100] < 10
    assert result.regret >= 0
    assert result.mean_of_finalists > 0.9


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sampler_trains_all_it_proposes_in_full(script, table, sampler):
    result = script.search(table, strategy(script, table, sampler, "30 trials"), 0)
    assert result.epochs == 3000
    assert len(result.curve) == 30
    assert result.regret == result.curve[-1] > 0


def test_a_score_that_the_table_lacks_is_that_of_the_epoch_before(table, frame):
    candidate = table.candidates()[0]
    (score,) = table.perform(Task(candidate, PROXY, TrainingRecipe(epochs=100), 34, 0, 0)).scores
    assert (score.epoch, score.accuracy) == (34, frame.loc[candidate.id, "accuracy_30"])
    assert [table.scored_epoch(epochs) for epochs in (2, 7, 100)] == [2, 6, 100]
    with pytest.raises(InputError, match="no score after 1 epochs"):
        table.scored_epoch(1)


def test_a_candidate_that_diverged_scores_nothing(script, frame, tmp_path):
    lost = frame.index[0]
    spoilt = frame.copy()
    spoilt.loc[lost, ["diverged", "accuracy_100", "cross_entropy_100"]] = [True, None, None]
    spoilt.to_csv(tmp_path / "full.csv")
    (tmp_path / "full.json").write_text((script.RESULTS / "full_ranking_digits.json").read_text())
    table = script.Table(tmp_path / "full.csv")
    (candidate,) = (c for c in table.candidates() if c.id == lost)
    assert lost not in table.ten_best
    (score,) = table.perform(Task(candidate, PROXY, TrainingRecipe(epochs=100), 100, 0, 0)).scores
    assert (score.accuracy, score.cross_entropy) == (0, math.inf)


def test_the_mean_curve_is_over_the_seeds(script):
    results = [script.Result([], 300, 0, 0, 0, 0, curve) for curve in ([0.3, 0.2, 0.0], [0.1, 0.0, 0.0])]
    points = script.mean_curve(results, 100)
    assert [point["epochs"] for point in points] == [100, 200, 300]
    assert [point["mean"] for point in points] == pytest.approx([0.2, 0.1, 0.0])
    assert [point["std"] for point in points] == pytest.approx(np.sqrt([0.02, 0.02, 0.0]), abs=1e-5)


@pytest.mark.slow
def test_the_script_writes_a_table_and_a_figure(script, tmp_path, monkeypatch, capsys):
    out, picture, cache = tmp_path / "strategies.json", tmp_path / "strategies.png", tmp_path / "cache"
    options = ["--seeds", "2", "--trials", "10", "--out", str(out), "--figure", str(picture), "--cache", str(cache)]
    monkeypatch.setattr(sys, "argv", ["search_strategies.py", *options])
    assert script.main() == 0
    said, document = capsys.readouterr().out, json.loads(out.read_text())
    rows = {(row["strategy"], row["budget"]): row for row in document["rows"]}
    assert len(rows) == len(document["rows"]) == 3 * len(script.LIMITS) + len(script.OTHER_CUTS) + 9
    assert rows["halving", "720 candidates"]["regret"]["std"] == 0
    assert rows["random", "10 trials"]["epochs"] == 1000
    assert rows["asha", "720 candidates"]["scored_after"] == [4, 15, 60, 100]
    assert "Scores after 60 epochs stand in for those after 64" in said
    assert all(name in said for name, _ in rows)
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(script, "open_campaign", pytest.fail)
    assert script.main() == 0
    assert json.loads(out.read_text()) == document


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--trials", "5"], "10 or more"), (["--seeds", "0"], "1 or more"), (["--full", "none.csv"], "no file none.csv")],
)
def test_what_cannot_be_used_is_refused(script, monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, "argv", ["search_strategies.py", *options])
    assert script.main() == 2
    assert message in capsys.readouterr().err
