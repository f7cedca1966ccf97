"""Searches in processes of their own that are killed, interrupted and resumed."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from disturbed_search import (
    RAY_WORKER,
    check_equals,
    lines_of,
    processes_of,
    wait_for_the_end_of_session,
    wait_until,
)
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


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert invoke(*search_words(write_space(folder), folder / "run")).code == 0
    return folder / "run"


def kill_when(happened: Callable[[], bool], words: list[str], *, seconds: float = STEP) -> None:
    process = start(words, seconds=seconds)
    wait_until(happened, process)
    process.kill()
    assert finish(process).code == -signal.SIGKILL


def finish_here(words: list[str]) -> None:
    said = invoke(*words, "--resume")
    assert said.code == 0, said.err


def test_killed_at_any_stage_and_resumed_the_table_is_the_same(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = [*search_words(write_space(tmp_path), run), "--resume"]
    stages: list[Callable[[], bool]] = [
        lambda: lines_of(run) >= 3,  # the second result
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


def test_sigterm_says_how_to_go_on_and_that_works(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run)
    process = start([*words, "--json"], seconds=STEP)
    wait_until(lambda: lines_of(run) >= 4, process)
    process.terminate()
    said = finish(process)
    assert said.code == 143
    assert said.json["error"]["kind"] == "interrupted"
    assert "Terminated" in said.err
    assert "--resume" in said.err
    assert len(read_table(run)) == CANDIDATES
    finish_here(words)
    check_equals(run, reference)


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


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_on_ray_tune_ends_all_processes(tmp_path: Path, reference: Path, number: int, code: int):
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2")
    process = start(words, seconds=20 * STEP, start_new_session=True)
    wait_until(lambda: recorded_trainings(run).total() >= 3, process)
    folder = folder_of_ray(process)
    assert folder.exists()
    os.killpg(process.pid, number)  # as a terminal does: to all of its processes
    said = finish(process)
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    assert "--resume" in said.err
    wait_for_the_end_of_session(process.pid)
    assert not folder.exists()
    finish_here(words)
    check_equals(run, reference)


def folder_of_ray(process: subprocess.Popen[str]) -> Path:
    """Where the Ray of a search has its files."""
    found = {
        name for words in processes_of(process.pid).values() for name in re.findall(r"/\S*?/nasproxy-ray-\w+", words)
    }
    (folder,) = found
    return Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ss") is None, reason="ss lists the ports")
def test_ray_listens_on_loopback_only_and_leaves_no_file(tmp_path: Path):
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2")
    process = start(words, seconds=20 * STEP, start_new_session=True)
    wait_until(lambda: recorded_trainings(run).total() >= 3, process)
    ours = processes_of(process.pid)
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    addresses = [line.split()[3] for line in listening if any(f"pid={pid}," in line for pid in ours)]
    assert len(addresses) > 3
    assert all("127.0.0.1" in address for address in addresses), listening
    folder = folder_of_ray(process)
    said = finish(process)
    assert said.code == 0, said.err
    assert not folder.exists()


@pytest.mark.slow
def test_ray_sends_no_telemetry_and_serves_no_dashboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)  # this process may have loaded Ray
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2")
    process = start(words, seconds=20 * STEP, start_new_session=True)
    wait_until(lambda: recorded_trainings(run).total() >= 3, process)
    ours = processes_of(process.pid)
    assert sum(bool(re.match(RAY_WORKER, line)) for line in ours.values()) == 2
    # Of the driver this is what it was started with; and a new title, as the raylet's children have, overwrites it.
    started = {pid: line for pid, line in ours.items() if pid != process.pid and not line.startswith("ray::")}
    environments = {line: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid, line in started.items()}
    assert finish(process).code == 0
    assert any("/raylet/raylet " in line for line in environments)
    assert [line for line, found in environments.items() if b"RAY_USAGE_STATS_ENABLED=0" not in found] == []
    # The dashboard's process is there whatever Ray is told; without this word it shows the dashboard.
    assert [line for line in environments if "/dashboard.py" in line and "--disable-frontend" not in line] == []


@pytest.mark.slow
def test_a_dead_raylet_is_an_error_that_says_how_to_go_on(tmp_path: Path, reference: Path):
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2")
    process = start(words, seconds=20 * STEP, start_new_session=True)
    wait_until(lambda: recorded_trainings(run).total() >= 3, process)
    (raylet,) = (pid for pid, line in processes_of(process.pid).items() if "/raylet/raylet " in line.split("--")[0])
    os.kill(raylet, signal.SIGKILL)
    said = finish(process)
    assert said.code == 1, said.err
    assert "raylet died" in said.err
    assert "--resume" in said.err
    assert "Traceback" not in said.err
    wait_for_the_end_of_session(process.pid)
    finish_here(words)
    check_equals(run, reference)


@pytest.mark.slow
def test_a_killed_worker_costs_a_ranking_without_cuts_nothing(tmp_path: Path):
    space, flat = write_space(tmp_path), ["--scheduler", "none", "--epochs", "2"]
    reference, run = tmp_path / "undisturbed", tmp_path / "run"
    assert invoke(*search_words(space, reference, *flat)).code == 0
    words = search_words(space, run, *flat, "--executor", "tune", "--workers", "2")
    process = start(words, seconds=20 * STEP, start_new_session=True)
    wait_until(lambda: recorded_trainings(run).total() >= 3, process)
    worker, *_ = (pid for pid, line in processes_of(process.pid).items() if re.match(RAY_WORKER, line))
    os.kill(worker, signal.SIGKILL)
    assert recorded_trainings(run).total() < CANDIDATES
    said = finish(process)
    assert said.code == 0, said.err
    check_equals(run, reference)
