"""Searches in processes of their own that are killed, interrupted and resumed."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pandas.testing import assert_frame_equal
from tiny_search import (
    CANDIDATES,
    TRAININGS,
    finish,
    invoke,
    read_table,
    recorded_trainings,
    search_words,
    start,
    write_space,
)

STEP = 0.01
"""Seconds that a training step takes, so that the search is still under way when it is seen to have come so far."""

KEPT = ("top", "winner", "agreement", "candidates", "evaluated", "diverged", "failed")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert invoke(*search_words(write_space(folder), folder / "run")).code == 0
    return folder / "run"


def lines_of(run: Path) -> int:
    journal = run / "study.log"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Watches until ``happened``; the process must not end before."""
    while not happened():
        if process.poll() is not None:
            said = finish(process)
            pytest.fail(f"the search ended with code {said.code} before it was met:\n{said.err}")
        time.sleep(0.001)


def kill_when(happened: Callable[[], bool], words: list[str], *, seconds: float = STEP) -> None:
    process = start(words, seconds=seconds)
    wait_until(happened, process)
    process.kill()
    assert finish(process).code == -signal.SIGKILL


def check_equals(run: Path, reference: Path) -> None:
    """What is left is what an undisturbed run leaves; nothing was trained twice, nothing is open."""
    assert_frame_equal(read_table(run), read_table(reference))
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (run, reference))
    assert {name: ours[name] for name in KEPT} == {name: theirs[name] for name in KEPT}
    trained = recorded_trainings(run)
    assert trained.keys() == recorded_trainings(reference).keys()
    assert set(trained.values()) == {1}
    storage = JournalStorage(JournalFileBackend(str(run / "study.log")))
    trials = optuna.load_study(study_name="nasproxy", storage=storage).trials
    assert len(trials) == len({trial.user_attrs["id"] for trial in trials}) == CANDIDATES
    assert all(trial.state.is_finished() for trial in trials)
    for name in ("winner/weights.safetensors", "winner/classify.py", "proxy.safetensors"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()
    assert (run / "report.html").exists()


def finish_here(words: list[str]) -> None:
    said = invoke(*words, "--resume")
    assert said.code == 0, said.err


def test_killed_at_any_stage_and_resumed_the_table_is_the_same(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = [*search_words(write_space(tmp_path), run), "--resume"]
    stages: list[Callable[[], bool]] = [
        lambda: (run / "run.json").exists(),
        lambda: lines_of(run) >= 3,  # the second result
        lambda: lines_of(run) >= 1 + CANDIDATES + 5,  # while the first rung is being closed
        lambda: any(name.startswith("proxy:4") for _, name in recorded_trainings(run)),
        lambda: any(name.startswith("whole") for _, name in recorded_trainings(run)),
        lambda: (run / "winner").exists(),
    ]
    for happened in stages:
        kill_when(happened, words)
    finish_here(words[:-1])
    check_equals(run, reference)


def test_ctrl_c_says_how_to_go_on_and_that_works(tmp_path: Path, reference: Path, monkeypatch: pytest.MonkeyPatch):
    write_space(tmp_path / "a folder")
    run = tmp_path / "a folder" / "a run"
    words = search_words(Path("my_space.py"), Path("a run"))
    process = start(words, seconds=STEP, cwd=tmp_path / "a folder")
    wait_until(lambda: lines_of(run) >= 4, process)
    # While it stands still, nobody else may work on the run.
    process.send_signal(signal.SIGSTOP)
    journal = (run / "study.log").read_bytes()
    others = search_words(Path("my_space.py"), Path("a run"), "--json")
    monkeypatch.chdir(tmp_path / "a folder")
    for more, reason in (((), "already holds a run"), (("--resume",), "Another process")):
        said = invoke(*others, *more)
        assert said.code == 2
        assert said.json["error"]["kind"] == "run"
        assert reason in said.json["error"]["message"]
    assert (run / "study.log").read_bytes() == journal
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    said = finish(process)
    assert said.code == 130
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len(read_table(run)) == CANDIDATES  # what is there can be looked at
    command = next(line for line in said.err.splitlines() if line.strip().startswith("nasproxy search"))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}
    again = subprocess.run(
        shlex.split(command), cwd=tmp_path / "a folder", env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    check_equals(run, reference)
    assert "Interrupted" in said.err


def test_other_settings_are_refused_by_name(reference: Path):
    before = (reference / "study.log").read_bytes()
    words = search_words(reference.parent / "my_space.py", reference, "--resume", "--json")
    for option, name in (("--seed", "seed"), ("--ipc", "ipc"), ("--repeats", "repeats"), ("--limit", "limit")):
        said = invoke(*words, option, "3")
        assert said.code == 2
        error = said.json["error"]
        assert (error["kind"], f"{name} was" in error["message"]) == ("run", True), error
    assert (reference / "study.log").read_bytes() == before


@pytest.mark.slow
def test_ten_kills_at_random_moments(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = [*search_words(write_space(tmp_path), run), "--resume"]
    last = lines_of(reference)
    seed = random.randrange(10**6)
    moments = sorted(random.Random(seed).sample(range(2, last), 10))
    for moment in moments:
        # A resumed run writes a few lines anew, so it may be beyond a moment as soon as it begins.
        kill_when(lambda moment=moment: lines_of(run) >= moment, words)
    finish_here(words[:-1])
    try:
        check_equals(run, reference)
    except AssertionError as error:
        raise AssertionError(f"with seed {seed}, killed after lines {moments}") from error


@pytest.mark.slow
def test_killed_on_ray_tune_and_resumed_the_table_is_the_same(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = [*search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2"), "--resume"]
    for trainings in (2, CANDIDATES + 2, TRAININGS - 1):
        kill_when(lambda few=trainings: recorded_trainings(run).total() >= few, words, seconds=20 * STEP)
    process = start(words)
    said = finish(process)
    assert said.code == 0, said.err
    check_equals(run, reference)


def wait_for_the_end_of_session(leader: int) -> None:
    for _ in range(600):
        left = subprocess.run(
            ["ps", "-s", str(leader), "-o", "args="], capture_output=True, text=True, check=False
        ).stdout
        if not left:
            return
        time.sleep(0.1)
    pytest.fail(f"still there:\n{left}")


@pytest.mark.slow
def test_ctrl_c_on_ray_tune_ends_all_processes(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2")
    process = start(words, seconds=20 * STEP, start_new_session=True)
    wait_until(lambda: recorded_trainings(run).total() >= 3, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
    said = finish(process)
    assert said.code == 130, said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert "--resume" in said.err
    wait_for_the_end_of_session(process.pid)
    finish_here(words)
    check_equals(run, reference)
