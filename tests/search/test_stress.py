"""Fifty moments at which something happens to a search; after each of them it is resumed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
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
from optuna.storages.journal import JournalFileSymlinkLock
from tiny_search import Said, finish, invoke, search_words, start, write_space

pytestmark = pytest.mark.slow

STEP = 0.01
"""Seconds a training step takes inline; on Ray Tune, where a portion is a second of work, twenty times as much."""

TWICE = 0.6
"""Seconds between two signals that count as two."""


@dataclass(frozen=True)
class Met:
    """A search in a process of its own, met in the middle."""

    process: subprocess.Popen[str]
    run: Path

    def has_begun(self) -> bool:
        """Whether it has come so far that it says how to resume: before torch is loaded it has but read its options."""
        return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text()

    def end(self, *codes: int) -> Said:
        """Waits for the end of all of its processes."""
        said = finish(self.process)
        assert said.code in codes, said.err
        assert "Traceback" not in said.err, said.err
        wait_for_the_end_of_session(self.process.pid)
        return said

    def find(self, pattern: str) -> int:
        """One of its processes whose command line begins so; waits until there is one."""
        found: list[int] = []

        def look() -> bool:
            found.extend(pid for pid, words in processes_of(self.process.pid).items() if re.match(pattern, words))
            return bool(found)

        wait_until(look, self.process)
        return found[0]


def kill(met: Met) -> None:
    met.process.kill()
    met.end(-signal.SIGKILL)


def terminate(met: Met) -> None:
    met.process.terminate()
    assert "--resume" in met.end(143).err


def interrupt(met: Met) -> None:
    os.killpg(met.process.pid, signal.SIGINT)  # as a terminal does
    assert "--resume" in met.end(130).err


def terminate_all(met: Met) -> None:
    """As a batch system does, to every process it knows of."""
    os.killpg(met.process.pid, signal.SIGTERM)
    assert "--resume" in met.end(143).err


def interrupt_twice(met: Met) -> None:
    os.killpg(met.process.pid, signal.SIGINT)
    time.sleep(TWICE)
    if met.process.poll() is None:
        os.killpg(met.process.pid, signal.SIGINT)
    met.end(130)


def fill_the_disk(met: Met) -> None:
    ballast = met.run.parent / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            pass
    said = met.end(1, 2)
    assert "No space left" in said.err, said.err
    ballast.unlink()


def cut_the_last_line(met: Met) -> None:
    kill(met)
    with (met.run / "study.log").open("ab") as file:
        file.write(b'{"op_code": 8, "worker_id": "')


def leave_the_lock(met: Met) -> None:
    kill(met)
    JournalFileSymlinkLock(str(met.run / "study.log")).acquire()


def kill_a_worker(met: Met) -> None:
    """The search goes on, until the next thing happens to it."""
    os.kill(met.find(RAY_WORKER), signal.SIGKILL)


def kill_the_raylet(met: Met) -> None:
    os.kill(met.find(r"\S*/raylet/raylet "), signal.SIGKILL)
    said = met.end(1)
    assert "raylet died" in said.err, said.err
    assert "--resume" in said.err


INLINE = [kill, terminate, interrupt, interrupt_twice, fill_the_disk, cut_the_last_line, leave_the_lock] * 2
TUNE = [kill_the_raylet, kill_a_worker, terminate_all, interrupt_twice, fill_the_disk, kill, interrupt, terminate]
CHAINS = 3


def test_fifty_moments_are_fifty():
    assert CHAINS * len(INLINE) + len(TUNE) == 50


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert invoke(*search_words(write_space(folder), folder / "run")).code == 0
    return folder / "run"


def disturb(words: list[str], run: Path, happenings: list[Callable[[Met], None]], last: int, seconds: float) -> None:
    """One thing after the other, at random lines of the journal; in between, and in the end, the run is resumed."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    moments = sorted(rng.sample(range(2, last), len(happenings)))
    met: Met | None = None
    try:
        for moment, happening in zip(moments, happenings, strict=True):
            if met is None or met.process.returncode is not None:
                met = Met(start([*words, "--resume"], seconds=seconds, start_new_session=True), run)
            # What was resumed may be beyond a moment as soon as it begins.
            wait_until(lambda moment=moment, met=met: lines_of(run) >= moment and met.has_begun(), met.process)
            happening(met)
    except BaseException as error:
        error.add_note(f"seed {seed}: {[f.__name__ for f in happenings]} after lines {moments}")
        if met is not None:
            met.process.kill()
        raise
    Met(start([*words, "--resume"], start_new_session=True), run).end(0)


@pytest.mark.parametrize("chain", range(CHAINS))
def test_whatever_happens_nothing_is_lost_or_done_twice(small_disk: Path, tmp_path: Path, reference: Path, chain: int):
    happenings = random.Random(chain).sample(INLINE, len(INLINE))
    run = small_disk / "run"
    disturb(search_words(write_space(tmp_path), run), run, happenings, lines_of(reference), STEP)
    check_equals(run, reference)


def test_whatever_happens_on_ray_tune_nothing_is_lost_or_done_twice(small_disk: Path, tmp_path: Path, reference: Path):
    run = small_disk / "run"
    words = search_words(write_space(tmp_path), run, "--executor", "tune", "--workers", "2")
    disturb(words, run, TUNE, lines_of(reference), 20 * STEP)
    check_equals(run, reference)
