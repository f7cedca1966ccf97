"""Searches by ASHA and Hyperband, from the command to the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from disturbed_search import lines_of, wait_until
from pandas.testing import assert_frame_equal
from test_pruning import ByOptuna
from tiny_search import (
    CANDIDATES,
    SPACE,
    finish,
    invoke,
    read_table,
    recorded_trainings,
    search_words,
    start,
    write_space,
)

from nasproxy import SearchSettings, run_search
from nasproxy.search.halving import PRUNERS, pruning_levels
from nasproxy.search.study import Study, open_storage
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

EPOCHS = 8
LEVELS = pruning_levels(EPOCHS)


def words(space: Path, out: Path, scheduler: str, *more: str) -> list[str]:
    return search_words(space, out, "--scheduler", scheduler, "--epochs", str(EPOCHS), *more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asynchronous")


@pytest.fixture(scope="module")
def inline(folder: Path) -> Path:
    assert invoke(*words(write_space(folder), folder / "inline", "asha")).code == 0
    return folder / "inline"


def check_each_once(run: Path) -> None:
    trained = recorded_trainings(run)
    assert set(trained.values()) == {1}
    assert sum(name.startswith("proxy") for _, name in trained) == CANDIDATES
    table = read_table(run)
    assert sorted(table["rank"]) == list(range(1, CANDIDATES + 1))
    assert set(table["proxy_epochs"]) <= {*LEVELS, EPOCHS}
    assert ((table["proxy_epochs"] == EPOCHS) == (table["state"] == "complete")).all()
    assert table["proxy_epochs"].is_monotonic_decreasing


def test_most_stop_early_and_their_scores_are_those_of_a_full_training(inline: Path, folder: Path):
    check_each_once(inline)
    table = read_table(inline).set_index("id")
    assert (table["state"] == "pruned").sum() >= CANDIDATES / 2
    full = folder / "full"
    settings = {"dataset": "digits", "space": str(folder / "my_space.py"), "proxy": "random", "ipc": 2, "top_k": 2}
    run_search(
        SearchSettings(
            **settings,
            epochs=EPOCHS,
            finalist_epochs=1,
            scheduler="none",
            executor="inline",
            evaluate_at=LEVELS,
            out=full,
        )
    )
    study = Study(open_storage(full, None), "nasproxy", {})
    for candidate, row in table.iterrows():
        scores = study.measurements[str(candidate), "proxy", EPOCHS, 0].scores
        assert row["proxy_accuracy"] in [score.accuracy for score in scores if score.epoch == row["proxy_epochs"]]


def test_the_summary_counts_who_came_how_far(inline: Path):
    rungs = json.loads((inline / "summary.json").read_text())["rungs"]
    epochs = read_table(inline)["proxy_epochs"]
    assert [(rung["epochs"], rung["candidates"]) for rung in rungs] == [
        (level, (epochs >= level).sum()) for level in (*LEVELS, EPOCHS)
    ]


@pytest.mark.slow
def test_one_worker_of_ray_decides_as_the_inline_executor(inline: Path, folder: Path):
    out = folder / "tune"
    more = ("--executor", "tune", "--workers", "1")
    said = finish(start(words(folder / "my_space.py", out, "asha", *more)))
    assert said.code == 0, said.err
    assert_frame_equal(read_table(out), read_table(inline))


MEETING = "import sys\nfrom pathlib import Path\n" + SPACE.replace(
    "        return images\n",
    """
        # No worker of Ray's trains before another one does.
        if self.training and "default_worker" in sys.argv[0]:
            meeting, end = Path(__file__).with_name("meeting"), time.monotonic() + 60
            meeting.joinpath(str(os.getpid())).touch()
            while len(list(meeting.iterdir())) < 2:
                assert time.monotonic() < end, "no other worker came"
                time.sleep(0.01)
        return images
""",
)

WATCHED = """
import json, sys
from nasproxy.cli.main import run
from nasproxy.search.pruning import Pruning

decide = Pruning.goes_on

def goes_on(self, candidate, score):
    verdict = decide(self, candidate, score)
    print(json.dumps([candidate.config, score.epoch, score.accuracy, verdict]), file=told, flush=True)
    return verdict

Pruning.goes_on = goes_on
with open(sys.argv[1], "w") as told:
    run(sys.argv[2:])
"""
"""A search that writes down what its trainings report, in the order of arrival, and what is decided."""


@pytest.mark.slow
def test_two_workers_of_ray_train_as_far_as_is_decided_in_the_order_of_their_reports(tmp_path: Path):
    meeting, out, told = tmp_path / "meeting", tmp_path / "run", tmp_path / "told.jsonl"
    meeting.mkdir()
    command = words(write_space(tmp_path, MEETING), out, "asha", "--executor", "tune", "--workers", "2")
    said = subprocess.run([sys.executable, "-c", WATCHED, str(told), *command], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert len(list(meeting.iterdir())) == 2
    check_each_once(out)
    reports = [json.loads(line) for line in told.read_text().splitlines()]
    found = [Candidate.of(config) for config, *_ in reports]
    optunas, came = ByOptuna("asha", found, EPOCHS, seed=0), {}
    for candidate, (_, epoch, accuracy, goes_on) in zip(found, reports, strict=True):
        assert goes_on == optunas.goes_on(candidate, Score(epoch, accuracy, 1.0))
        came[candidate.id] = EPOCHS if goes_on else epoch
    assert read_table(out).set_index("id")["proxy_epochs"].to_dict() == came


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", PRUNERS)
def test_killed_and_resumed_each_candidate_is_trained_once(scheduler: str, tmp_path: Path):
    out = tmp_path / "run"
    command = words(write_space(tmp_path), out, scheduler, "--executor", "tune", "--workers", "2")
    process = start(command, seconds=0.05)
    wait_until(lambda: lines_of(out) >= 5, process)
    process.kill()
    finish(process)
    before = recorded_trainings(out)
    assert 0 < before.total() < CANDIDATES
    said = finish(start([*command, "--resume"]))
    assert said.code == 0, said.err
    check_each_once(out)
    assert before.keys() <= recorded_trainings(out).keys()


def test_so_few_in_full_that_finalists_are_taken_from_the_others(tmp_path: Path):
    out = tmp_path / "run"
    assert invoke(*words(write_space(tmp_path), out, "asha", "--top-k", "8")).code == 0
    table = read_table(out)
    assert table["whole_accuracy"].notna().sum() == 8
    assert (table["state"] == "complete").sum() < 8
    assert pd.Series(table["whole_accuracy"].notna()).head(8).all()


@pytest.mark.parametrize("more", [["--repeats", "2"], ["--objective", "accuracy", "--objective", "parameters"]])
def test_what_asynchronous_halving_cannot_judge_is_refused(tmp_path: Path, more: list[str]):
    said = invoke(*words(write_space(tmp_path), tmp_path / "run", "asha", *more))
    assert said.code == 2
    assert "--scheduler asha judges single trainings" in said.err
    assert not (tmp_path / "run").exists()
