"""The simulation of searches on many workers, where the answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from nasproxy.errors import InputError
from nasproxy.search.settings import SearchSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from search_simulation import WORKERS, simulated_searches

CANDIDATES = 96
RUNGS = SearchSettings(scheduler="halving").resolved().rungs(CANDIDATES)


def full_ranking(folder: Path, seconds: list[float]) -> Path:
    """The later ones are better, after however many epochs."""
    scores = {
        f"{name}_{rung.epochs}": [sign * number / CANDIDATES for number in range(CANDIDATES)]
        for rung in RUNGS
        for name, sign in (("accuracy", 1), ("cross_entropy", -1))
    }
    sizes = {"parameters": 1, "multiply_adds": [int(1e6 * each) for each in seconds]}
    names = [f"{number:03}" for number in range(CANDIDATES)]
    path = folder / "full.csv"
    pd.DataFrame({"id": names, "seconds": seconds, "proxy_epochs": 100, **sizes, **scores}).to_csv(path, index=False)
    return path


def test_equal_trainings_take_as_many_turns_as_there_are_for_each_worker(tmp_path: Path):
    rows = simulated_searches(full_ranking(tmp_path, [1.0] * CANDIDATES))
    plain = {row["workers"]: row for row in rows if row["scheduler"] == "none"}
    for workers in WORKERS:
        turns = -(-CANDIDATES // workers)
        idle = round(1 - CANDIDATES / workers / turns, 4)
        assert plain[workers]["seconds"] == turns
        assert plain[workers]["least_seconds"] == pytest.approx(CANDIDATES / workers, abs=0.05)
        assert plain[workers]["idle"] == pytest.approx(idle, abs=2e-4)
        assert plain[workers]["idle_most"] == pytest.approx(1 - CANDIDATES // workers / turns, abs=2e-4)
        assert plain[workers]["idle_unavoidable"] == 0


def test_one_slow_network_that_is_cut_does_not_hold_the_others_up(tmp_path: Path):
    slow, workers = 2000.0, 8
    rows = simulated_searches(full_ranking(tmp_path, [slow, *[10.0] * (CANDIDATES - 1)]))
    (row,) = (row for row in rows if (row["scheduler"], row["workers"]) == ("halving", workers))
    held_up = slow * RUNGS[0].epochs / 100
    with_barriers = held_up + sum(-(-rung.candidates // workers) * 10 * rung.epochs / 100 for rung in RUNGS[1:])
    assert row["least_seconds"] == held_up
    assert held_up <= row["seconds"] < with_barriers
    work = held_up + sum(rung.candidates * rung.epochs for rung in RUNGS) / 10 - RUNGS[0].epochs / 10
    assert row["idle"] == pytest.approx(1 - work / workers / row["seconds"], abs=1e-3)
    assert row["idle_unavoidable"] == pytest.approx(1 - work / workers / held_up, abs=1e-3)


def test_a_table_without_the_scores_of_a_rung_is_refused(tmp_path: Path):
    path = full_ranking(tmp_path, [1.0] * CANDIDATES)
    pd.read_csv(path, dtype={"id": str}).drop(columns=f"accuracy_{RUNGS[0].epochs}").to_csv(path, index=False)
    with pytest.raises(InputError, match=f"accuracy_{RUNGS[0].epochs}"):
        simulated_searches(path)
