"""``nasproxy search --dry-run``."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_search import CANDIDATES, FINALISTS, RUNGS, Said, invoke, search_words, write_space

from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.coresets.whole_training import WholeRecipe
from nasproxy.search import costs
from nasproxy.search import dry_run as module
from nasproxy.search.bench import Bench
from nasproxy.search.dry_run import _spread
from nasproxy.search.halving import PRUNERS, pruning_levels
from nasproxy.search.study import Study
from nasproxy.search.task import Outcome, Task
from nasproxy.text import counted
from nasproxy.training.recorded import RECORDED, timed_epochs
from nasproxy.training.train import Score


def dry(folder: Path, *more: str) -> Said:
    return invoke(*search_words(write_space(folder), folder / "run", *more, "--dry-run"))


def test_it_says_what_would_be_done_and_writes_nothing(tmp_path: Path):
    said = dry(tmp_path, "--time-budget", "600", "--json")
    assert said.code == 0
    found = said.json
    assert (found["time_budget"], found["budget_suffices"]) == (600, True)
    assert (found["dry_run"], found["candidates"], found["workers"]) == (True, CANDIDATES, 1)
    assert found["rungs"] == [{"epochs": r.epochs, "candidates": r.candidates, "done": 0} for r in RUNGS]
    assert found["finalists"] == {"candidates": FINALISTS, "done": 0}
    seconds = found["seconds"]
    assert list(seconds) == ["measure", "condense", "search", "finalists", "total"]
    assert seconds["condense"] == 0
    assert seconds["measure"] > 0
    assert seconds["search"] > 0
    assert seconds["finalists"] > 0
    assert seconds["total"] == sum(list(seconds.values())[:4])
    assert found["memory_bytes"] > 2**27
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("words", "ranked"), [([], CANDIDATES), (["--sampler", "random", "--trials", "8"], 8)])
def test_measuring_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], ranked: int):
    measure = costs.measure_cost

    def slow(*those: Any, **more: Any) -> costs.Cost:
        time.sleep(0.05)
        return measure(*those, **more)

    monkeypatch.setattr(costs, "measure_cost", slow)
    said = dry(tmp_path, *words, "--json")
    assert said.json["seconds"]["measure"] >= 0.05 * ranked
    assert said.json["seconds"]["total"] >= said.json["seconds"]["measure"]


def test_what_a_run_has_done_is_counted_and_left_alone(tmp_path: Path):
    assert invoke(*search_words(write_space(tmp_path), tmp_path / "run")).code == 0
    journal = tmp_path / "run" / "study.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "work')  # half a line, as a kill leaves it
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert dry(tmp_path).code == 2  # as the search itself: --resume is missing
    found = dry(tmp_path, "--resume", "--json").json
    assert [rung["done"] for rung in found["rungs"]] == [rung.candidates for rung in RUNGS]
    assert found["finalists"]["done"] == FINALISTS
    assert found["time_budget"] is found["budget_suffices"] is None
    assert found["seconds"]["total"] == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_of_several_repeats_it_counts_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repeats = ("--repeats", "2")
    keep, kept = Study.record, Counter[str]()

    def stopping(study: Study, outcome: Outcome) -> None:
        keep(study, outcome)
        kept[outcome.task.candidate.id] += 1
        if kept.total() == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Study, "record", stopping)
        assert invoke(*search_words(write_space(tmp_path), tmp_path / "run", *repeats)).code == 130
    found = dry(tmp_path, *repeats, "--resume", "--json").json
    assert [rung["done"] for rung in found["rungs"]] == [sum(n == 2 for n in kept.values()), *[0] * (len(RUNGS) - 1)]
    assert found["finalists"] == {"candidates": FINALISTS, "done": 0}
    assert invoke(*search_words(tmp_path / "my_space.py", tmp_path / "run", *repeats, "--resume")).code == 0
    found = dry(tmp_path, *repeats, "--resume", "--json").json
    assert [rung["done"] for rung in found["rungs"]] == [rung["candidates"] for rung in found["rungs"]]
    assert found["finalists"] == {"candidates": FINALISTS, "done": FINALISTS}
    assert found["seconds"]["total"] == 0


@pytest.mark.parametrize(
    ("device", "epochs", "batches", "first"),
    [("cpu", 100, 1, 1), ("cuda", 100, 1, 32), ("cuda", 100, 5, 7), ("cuda", 100, 40, 1), ("cuda", 31, 1, 1)],
)
def test_recorded_steps_are_timed_where_the_search_records_them(device: str, epochs: int, batches: int, first: int):
    assert timed_epochs(torch.device(device), epochs, batches) == first
    assert (first * batches >= RECORDED) == (device == "cuda" and epochs * batches >= RECORDED)


def test_what_is_timed_over_several_epochs_is_told_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[int] = []

    def perform(_: Bench, task: Task) -> Outcome:
        asked.append(task.epochs)
        return Outcome(task, (Score(task.epochs, 0.5, 1.0),), 2.0 + 0.5 * task.epochs)

    monkeypatch.setattr(Bench, "perform", perform)
    monkeypatch.setattr(module, "timed_epochs", lambda *_: 3)
    seconds = dry(tmp_path, "--json").json["seconds"]["search"]
    assert asked[:3] == [3, 3, 6]
    assert seconds == pytest.approx(sum(rung.candidates * (2.0 + 0.5 * rung.epochs) for rung in RUNGS))


@pytest.mark.parametrize("labels", [[], ["--soft-labels"]], ids=["hard", "soft"])
def test_of_a_half_made_proxy_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: list[str]):
    few = DistributionRecipe(ipc=2, iterations=4, real_batch=4, width=4, depth=1)
    monkeypatch.setattr(DistributionRecipe, "preset", lambda preset, ipc: few)
    monkeypatch.setattr(DistributionRecipe, "expected_seconds", lambda *_, **where: 100.0)
    monkeypatch.setattr(WholeRecipe, "preset", lambda preset: WholeRecipe(1, width=4, depth=1))
    words = ("--proxy", "dm", *labels)
    space = write_space(tmp_path)
    assert invoke(*search_words(space, tmp_path / "run", *words, "--time-budget", "1e-9")).code == 1
    assert dry(tmp_path, *words, "--resume", "--json").json["seconds"]["condense"] == 75
    half_made = tmp_path / "run" / "condensing.safetensors"
    half_made.write_bytes(half_made.read_bytes()[:-1])
    said = dry(tmp_path, *words, "--resume", "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "checkpoint")


def test_people_can_read_it(tmp_path: Path):
    said = dry(tmp_path, "--time-budget", "0.0001")
    assert "budget of 0.0 s ends before the end of condensing and ranking" in " ".join(said.out.split())
    assert f"{CANDIDATES} candidates of tiny" in said.out
    assert f"{RUNGS[0].candidates} × {counted(RUNGS[0].epochs, 'epoch')}" in said.out
    assert "Nothing was written" in said.out


def test_condensing_counts_until_it_is_cached(tmp_path: Path):
    condensed = ("--proxy", "condensed", "--ipc", "1", "--limit", "4", "--json")
    assert dry(tmp_path, *condensed).json["seconds"]["condense"] > 0


def test_it_refuses_what_the_search_refuses(tmp_path: Path):
    assert dry(tmp_path, "--top-k", "99").code == 2
    assert not (tmp_path / "run").exists()


FAULTY = """
from pathlib import Path

import torch
from torch import nn

from nasproxy import SearchSpace


class Untrainable(nn.Module):
    def forward(self, images):
        if self.training and torch.is_grad_enabled():
            raise RuntimeError("it will not learn")
        return images


class Faulty(SearchSpace):
    name = "faulty"
    choices = {"fault": FAULTS, "width": list(range(1, 101))}

    def build(self, config, *, in_channels, num_classes, image_size):
        with open(Path(__file__).with_name("built"), "a") as file:
            print(config, file=file)
        if config["fault"] == "build":
            raise ValueError("no such layer")
        first = Untrainable() if config["fault"] == "train" else nn.Identity()
        return nn.Sequential(first, nn.Flatten(), nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes))
"""


def faulty(folder: Path, faults: list[str], *more: str) -> Said:
    space = write_space(folder, FAULTY.replace("FAULTS", repr(faults)))
    return invoke(*search_words(space, folder / "run", *more))


def test_where_no_candidate_can_be_built_it_says_why_and_fails_as_the_search(tmp_path: Path):
    said = faulty(tmp_path, ["build"], "--limit", "4", "--dry-run")
    assert "None of 4 candidates of faulty can be built, the first for ValueError: no such layer" in said.err
    assert said.code == faulty(tmp_path, ["build"], "--limit", "4").code == 1


def test_some_that_cannot_be_built_are_told(tmp_path: Path):
    said = faulty(tmp_path, ["build", "none"], "--limit", "6", "--dry-run")
    assert said.code == 0
    assert "3 of 6 candidates cannot be built, the first for ValueError: no such layer" in said.err


def test_a_timed_training_that_fails_is_told_and_gives_no_estimate(tmp_path: Path):
    said = faulty(tmp_path, ["train"], "--limit", "4", "--dry-run")
    assert said.code == 1
    words = " ".join(said.out.split())
    assert "search not known, finalists not known, total not known; memory not known" in words
    assert "4 of 4 trainings that were timed failed" in words
    assert "RuntimeError: it will not learn" in words
    found = faulty(tmp_path, ["train", "none"], "--limit", "8", "--dry-run", "--json").json
    assert [entry["reason"].split(" (")[0] for entry in found["failed"]] == ["RuntimeError: it will not learn"] * 4
    assert found["timed"] == 8
    assert found["seconds"]["search"] > 0


@pytest.mark.parametrize("scheduler", PRUNERS)
def test_of_asynchronous_halving_it_says_how_many_begin_and_when_they_are_judged(tmp_path: Path, scheduler: str):
    words = ("--scheduler", scheduler, "--epochs", "8")
    rung = {"epochs": 8, "candidates": CANDIDATES, "done": 0, "judged_after": list(pruning_levels(8))}
    found = dry(tmp_path, *words, "--json").json
    assert found["rungs"] == [rung]
    assert found["seconds"]["search"] > 0
    assert invoke(*search_words(tmp_path / "my_space.py", tmp_path / "run", *words)).code == 0
    assert f"{CANDIDATES} × 8 epochs at most, each stopped or not after epoch 1 and 4, {CANDIDATES} done" in " ".join(
        dry(tmp_path, *words, "--resume").out.split()
    )
    found = dry(tmp_path, *words, "--resume", "--json").json
    assert found["rungs"] == [{**rung, "done": CANDIDATES}]
    assert found["seconds"]["total"] == 0


def test_of_a_sampler_it_builds_a_sample(tmp_path: Path):
    found = faulty(
        tmp_path, ["none", "nothing", "nought"], "--sampler", "random", "--trials", "5", "--dry-run", "--json"
    ).json
    assert found["candidates"] == found["rungs"][0]["candidates"] == 5
    assert len((tmp_path / "built").read_text().splitlines()) < 100  # of 300


def test_no_database_is_made(tmp_path: Path):
    storage = ("--storage", f"sqlite:///{tmp_path}/study.db")
    assert dry(tmp_path, *storage).code == 0
    assert not (tmp_path / "study.db").exists()
    assert dry(tmp_path, "--storage", f"sqlite:///{tmp_path}/nowhere/study.db").code == 2


def test_no_more_trainings_run_at_once_than_there_are():
    assert [_spread(count, 3.0, 4) for count in (0, 1, 2, 4, 8)] == [0.0, 3.0, 3.0, 3.0, 6.0]


def test_a_calibration_is_of_no_more_candidates_than_are_within_the_limits(tmp_path: Path):
    limits = ("--max-parameters", "1000", "--calibrate", "9")
    assert dry(tmp_path, *limits, "--json").json["calibration"] == {"candidates": 3}
    said = dry(tmp_path, *limits)
    assert "3 random candidates on the whole data" in said.out
    assert "--calibrate 9 takes all 3 candidates that are within --max-parameters 1000." in " ".join(said.err.split())
