"""Searches that something happens to: how they are met at a moment, and what must be left in the end."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pandas.testing import assert_frame_equal
from tiny_search import CANDIDATES, finish, read_table, recorded_trainings

KEPT = ("top", "winner", "agreement", "candidates", "evaluated", "diverged", "failed")

RAY_WORKER = "ray::(_Worker|ResourceTrainable)"
"""How the command line of a worker that trains begins."""


def lines_of(run: Path) -> int:
    """Whole lines of the journal."""
    journal = run / "study.log"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Watches until ``happened``; the process must not end before."""
    while not happened():
        if process.poll() is not None:
            said = finish(process)
            pytest.fail(f"the search ended with code {said.code} before it was met:\n{said.err}")
        time.sleep(0.001)


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


def processes_of(leader: int) -> dict[int, str]:
    """The command lines of all living processes of a session, by process id."""
    found = subprocess.run(["ps", "-ww", "-s", str(leader), "-o", "pid=,stat=,args="], capture_output=True, text=True)
    rows = (line.split(maxsplit=2) for line in found.stdout.splitlines())
    return {int(pid): args for pid, state, args in rows if not state.startswith("Z")}


def wait_for_the_end_of_session(leader: int) -> None:
    """Fails if a process of the session outlives the others by a minute."""
    for _ in range(600):
        if not (left := processes_of(leader)):
            return
        time.sleep(0.1)
    pytest.fail(f"still there: {left}")
