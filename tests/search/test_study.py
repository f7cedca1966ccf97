import json
import math
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nasproxy.errors import RunError, WriteError
from nasproxy.search.study import Measurement, Study, holds_trials, mean_score, open_storage
from nasproxy.search.task import Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Score

CHOICES = {"width": [8, 16, 32], "norm": [None, "batch"], "rate": [0.1, 0.5], "bias": [True, False]}
CONFIGS = [
    {"width": 8, "norm": None, "rate": 0.1, "bias": True},
    {"width": 16, "norm": "batch", "rate": 0.5, "bias": False},
    {"width": 32, "norm": None, "rate": 0.5, "bias": True},
]
CANDIDATES = [Candidate.of(config) for config in CONFIGS]
FULL = Score(4, 0.75, 0.5)


def outcome(candidate: Candidate, data: str = "proxy", epochs: int = 4, repeat: int = 0, **facts) -> Outcome:
    task = Task(candidate, data, TrainingRecipe(4), epochs, repeat, seed=0)
    return Outcome(task, **{"scores": (FULL,), "seconds": 0.25, **facts})


def open_study(directory: Path, address: str | None = None) -> Study:
    return Study(open_storage(directory, address), "nasproxy", CHOICES)


def load_plainly(directory: Path, address: str | None = None) -> optuna.Study:
    """As someone who has Optuna, but not nasproxy."""
    storage = address or JournalStorage(JournalFileBackend(str(directory / "study.log")))
    return optuna.load_study(study_name="nasproxy", storage=storage)


@pytest.fixture(params=["journal", "sqlite"])
def address(request, tmp_path) -> str | None:
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"


def fill(study: Study) -> None:
    """One candidate complete and a finalist, one pruned, one failed; two repeats, a divergence."""
    complete, pruned, failed = CANDIDATES
    study.record(outcome(complete, epochs=1, scores=(Score(1, 0.5, 1.5),)))
    study.record(outcome(pruned, epochs=1, scores=(Score(1, 0.0, math.inf),)))
    study.record(outcome(failed, epochs=1, scores=(), failure="RuntimeError: a\nb \x1b[31m ü (my_space.py:3)"))
    study.settle(complete, TrialState.RUNNING, 1, Score(1, 0.5, 1.5))
    study.settle(pruned, TrialState.PRUNED, 1, Score(1, 0.0, math.inf))
    study.settle(failed, TrialState.FAIL, 1, None, "RuntimeError")
    study.record(outcome(complete, scores=(Score(2, 0.6, 0.9), FULL)))
    study.record(outcome(complete, repeat=1))
    study.settle(complete, TrialState.COMPLETE, 4, FULL)
    study.record(outcome(complete, "whole", 30, test_accuracy=0.875, weights={"w": torch.zeros(2)}))
    study.record(outcome(complete, "whole", 30, 1, scores=(), failure="out of memory"))


def test_reopening_reads_what_was_written(tmp_path, address):
    study = open_study(tmp_path, address)
    fill(study)
    complete, pruned, failed = (candidate.id for candidate in CANDIDATES)
    expected = {
        (complete, "proxy", 1, 0): Measurement((Score(1, 0.5, 1.5),), 0.25),
        (pruned, "proxy", 1, 0): Measurement((Score(1, 0.0, math.inf),), 0.25),
        (failed, "proxy", 1, 0): Measurement((), 0.25, failure="RuntimeError: a\nb \x1b[31m ü (my_space.py:3)"),
        (complete, "proxy", 4, 0): Measurement((Score(2, 0.6, 0.9), FULL), 0.25),
        (complete, "proxy", 4, 1): Measurement((FULL,), 0.25),
        (complete, "whole", 30, 0): Measurement((FULL,), 0.25, 0.875),
        (complete, "whole", 30, 1): Measurement((), 0.25, failure="out of memory"),
    }
    states = {complete: TrialState.COMPLETE, pruned: TrialState.PRUNED, failed: TrialState.FAIL}
    for found in (study, open_study(tmp_path, address)):
        assert found.measurements == expected
        assert found.states == states


def test_plain_optuna_reads_the_same(tmp_path, address):
    fill(open_study(tmp_path, address))
    study = load_plainly(tmp_path, address)
    assert len(study.trials) == len(CANDIDATES)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    for trial, candidate in zip(study.trials, CANDIDATES, strict=True):
        assert trial.params == candidate.config
        assert trial.user_attrs["id"] == candidate.id
    best, pruned, failed = study.trials
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_params == CONFIGS[0]
    assert study.best_value == 0.75
    assert best.intermediate_values == {1: 0.5, 4: 0.75}
    assert best.user_attrs["proxy:4:0"]["scores"] == [[2, 0.6, 0.9], [4, 0.75, 0.5]]
    assert pruned.user_attrs["proxy:1:0"]["scores"] == [[1, 0.0, None]]
    assert failed.user_attrs["reason"] == "RuntimeError"
    assert study.user_attrs[f"whole:30:0:{CANDIDATES[0].id}"]["test_accuracy"] == 0.875
    assert best.datetime_complete is not None
    assert best.datetime_complete >= best.datetime_start


def test_the_journal_is_json_that_every_reader_takes(tmp_path):
    fill(open_study(tmp_path))
    for line in (tmp_path / "study.log").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_settling_again_changes_nothing(tmp_path):
    fill(open_study(tmp_path))
    before = (tmp_path / "study.log").read_bytes()
    study = open_study(tmp_path)
    study.settle(CANDIDATES[0], TrialState.PRUNED, 1, Score(1, 0.1, 9.0))
    study.settle(CANDIDATES[1], TrialState.COMPLETE, 4, FULL)
    study.settle(CANDIDATES[2], TrialState.FAIL, 0, None, "another reason")
    assert (tmp_path / "study.log").read_bytes() == before


def test_a_candidate_can_fail_before_it_is_trained(tmp_path):
    open_study(tmp_path).settle(CANDIDATES[0], TrialState.FAIL, 0, None, "ValueError: no such layer")
    (trial,) = load_plainly(tmp_path).trials
    assert (trial.state, trial.params) == (TrialState.FAIL, CONFIGS[0])
    assert open_study(tmp_path).states == {CANDIDATES[0].id: TrialState.FAIL}


accuracies = st.floats(0, 1)
scores = st.tuples(st.integers(1, 1000), accuracies, st.floats(0, 1e30)) | st.tuples(
    st.integers(1, 1000), st.just(0.0), st.just(math.inf)
)
measurements = st.tuples(
    st.lists(scores, max_size=4),
    st.floats(0, 1e6),
    st.none() | accuracies,
    st.none() | st.text('aZ0_ "\\\n\x00\x1b\u00e9\u2603', min_size=1),
    st.none() | st.floats(1e-6, 1e6),
)
keys = st.tuples(
    st.sampled_from([candidate.id for candidate in CANDIDATES]),
    st.sampled_from(["proxy", "whole"]),
    st.integers(1, 1000),
    st.integers(0, 20),
)


@settings(deadline=None)
@given(st.dictionaries(keys, measurements, max_size=8))
def test_every_measurement_is_read_back_as_it_was(drawn):
    found = {key: Measurement(tuple(Score(*row) for row in rows), *rest) for key, (rows, *rest) in drawn.items()}
    storage = InMemoryStorage()
    study = Study(storage, "nasproxy", CHOICES)
    by_id = {candidate.id: candidate for candidate in CANDIDATES}
    for (candidate, data, epochs, repeat), m in found.items():
        facts = {name: getattr(m, name) for name in ("scores", "seconds", "test_accuracy", "failure", "latency_ms")}
        study.record(outcome(by_id[candidate], data, epochs, repeat, **facts))
    assert study.measurements == found
    assert Study(storage, "nasproxy", CHOICES).measurements == found


def test_a_last_line_cut_anywhere_is_written_again(tmp_path):
    original = tmp_path / "original"
    original.mkdir()
    study = open_study(original)
    study.record(outcome(CANDIDATES[0]))
    before = dict(study.measurements)
    kept = (original / "study.log").stat().st_size
    study.record(outcome(CANDIDATES[0], repeat=1, failure="ü"))
    whole = (original / "study.log").read_bytes()
    for length in range(kept, len(whole) + 1):
        directory = tmp_path / "cut"
        directory.mkdir()
        (directory / "study.log").write_bytes(whole[:length])
        # What Optuna leaves behind when its process dies while it writes.
        (directory / "study.log.lock").symlink_to(directory / "study.log")
        resumed = open_study(directory)
        assert not (directory / "study.log.lock").is_symlink()
        assert resumed.measurements == (study.measurements if length == len(whole) else before)
        resumed.record(outcome(CANDIDATES[0], repeat=1, failure="ü"))
        assert open_study(directory).measurements == study.measurements
        shutil.rmtree(directory)


def test_a_process_that_died_before_the_first_line_leaves_nothing_in_the_way(tmp_path):
    for content in (b"", b'{"op_code":0,"wor'):
        (tmp_path / "study.log").write_bytes(content)
        study = open_study(tmp_path)
        assert study.measurements == {}
        study.record(outcome(CANDIDATES[0]))
        assert open_study(tmp_path).measurements == study.measurements


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("garbage", [b"\x00\xff\n", b"not json\n", b"[]\n", b"3\n", b"{}\n", b'{"op_code":99}\n'])
def test_a_damaged_journal_is_an_error_that_names_it(tmp_path, place, garbage):
    fill(open_study(tmp_path))
    lines = (tmp_path / "study.log").read_bytes().splitlines(keepends=True)
    lines[{"first": 0, "middle": len(lines) // 2, "last": -1}[place]] = garbage
    (tmp_path / "study.log").write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=r"study\.log"):
        open_study(tmp_path)
    assert (tmp_path / "study.log").read_bytes() == b"".join(lines)


def test_a_journal_with_a_field_of_another_kind_is_an_error_too(tmp_path):
    fill(open_study(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "study.log").read_bytes().splitlines()]
    next(line for line in lines if "distributions" in line)["distributions"] = 3
    (tmp_path / "study.log").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(RunError, match=r"study\.log is damaged"):
        open_study(tmp_path)


@pytest.mark.parametrize("attributes", [{}, {"id": "175a14989cfd", "proxy:x": 3}, {"id": "1", "proxy:1:0": {"a": 1}}])
def test_a_study_that_nasproxy_did_not_write_is_refused(tmp_path, address, attributes):
    storage = address or JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
    foreign = optuna.create_study(storage=storage, study_name="nasproxy")
    trial = foreign.ask()
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    with pytest.raises(RunError):
        open_study(tmp_path, address)


@pytest.mark.parametrize("address", ["nonsense", "sqlite:////nowhere/study.db", "postgresql+nothing://h/d", ""])
def test_an_address_that_optuna_cannot_open_is_an_error_that_names_it(tmp_path, address):
    with pytest.raises(RunError, match="storage") as caught:
        open_storage(tmp_path, address)
    assert repr(address) in caught.value.message
    assert "sqlite:///" in caught.value.hint


def test_no_password_is_told_of_an_address_that_optuna_cannot_open(tmp_path):
    with pytest.raises(RunError) as caught:
        open_storage(tmp_path, "postgresql+nothing://me:se/cret@host/db?password=secret")
    assert "'postgresql+nothing://host/db'" in caught.value.message
    assert "cret" not in str(caught.value)


def test_a_database_that_is_none_is_refused(tmp_path):
    (tmp_path / "study.db").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(RunError, match=r"study\.db"):
        open_study(tmp_path, f"sqlite:///{tmp_path}/study.db")


def test_several_studies_share_a_storage(tmp_path):
    address = f"sqlite:///{tmp_path}/study.db"
    first, second = (Study(open_storage(tmp_path, address), name, CHOICES) for name in ("one", "two"))
    first.record(outcome(CANDIDATES[0]))
    second.record(outcome(CANDIDATES[1]))
    assert list(Study(open_storage(tmp_path, address), "one", CHOICES).measurements) == list(first.measurements)
    assert [key[0] for key in first.measurements] == [CANDIDATES[0].id]


def test_a_study_has_one_run(tmp_path, address):
    study = open_study(tmp_path, address)
    study.claim("mine")
    open_study(tmp_path, address).claim("mine")
    for other in ("yours", None):
        with pytest.raises(RunError, match="of another run"):
            open_study(tmp_path, address).claim(other)
    study.record(outcome(CANDIDATES[0], data="whole"))
    assert open_study(tmp_path, address).measurements == study.measurements


def test_a_study_of_before_runs_were_known_by_anything_is_no_new_run_s(tmp_path, address):
    open_study(tmp_path, address).record(outcome(CANDIDATES[0]))
    open_study(tmp_path, address).claim(None)
    with pytest.raises(RunError, match="of another run"):
        open_study(tmp_path, address).claim("mine")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes: a disk that is full, in small."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path, address, room):
    study = open_study(tmp_path, address)
    study.record(outcome(CANDIDATES[0]))
    before = dict(study.measurements)
    file = tmp_path / ("study.db" if address else "study.log")
    size = file.stat().st_size

    def fill_up() -> None:
        for number in range(1000):  # a database has some room inside
            study.record(outcome(CANDIDATES[1], repeat=number, failure="x" * 1000))

    with largest_file(size + room), pytest.raises(WriteError, match="could not be written") as caught:
        fill_up()
    assert "--resume" in caught.value.hint
    resumed = open_study(tmp_path, address)
    assert before.items() <= resumed.measurements.items()
    resumed.record(outcome(CANDIDATES[2]))
    assert open_study(tmp_path, address).measurements == resumed.measurements


def test_a_locked_database_is_said_to_be_locked(tmp_path):
    address = f"sqlite:///{tmp_path}/study.db?timeout=0.1"
    storage = open_storage(tmp_path, address)
    study = Study(storage, "nasproxy", CHOICES)
    holder = sqlite3.connect(tmp_path / "study.db")
    holder.execute("BEGIN EXCLUSIVE")
    cases = (
        (WriteError, lambda: study.record(outcome(CANDIDATES[0]))),
        (RunError, lambda: Study(storage, "nasproxy", CHOICES)),
        (RunError, lambda: holds_trials(storage, "nasproxy")),
    )
    for kind, do in cases:
        with pytest.raises(kind, match="database is locked") as caught:
            do()
        assert "Free some space" not in caught.value.hint
        assert "no other process locks it, and go on with --resume" in caught.value.hint
    holder.close()
    study.record(outcome(CANDIDATES[0]))


def test_a_folder_in_the_journals_place_is_an_error(tmp_path):
    study = open_study(tmp_path)
    (tmp_path / "study.log").unlink()
    (tmp_path / "study.log").mkdir()
    with pytest.raises(WriteError):
        study.record(outcome(CANDIDATES[0]))
    with pytest.raises(WriteError):
        study.settle(CANDIDATES[0], TrialState.FAIL, 0, None, "reason")
    assert study.measurements == {}


def test_the_mean_of_repeats():
    last = (Score(4, 0.5, 1.0), Score(4, 1.0, 3.0))
    found = [Measurement((Score(1, 0.9, 0.1), score), 1.0) for score in last]
    assert mean_score(found) == Score(4, 0.75, 2.0)
    assert mean_score(found[:1]) == Score(4, 0.5, 1.0)


def test_one_divergence_makes_the_candidate_a_diverged_one():
    found = mean_score([Measurement((Score(4, 0.9, 0.1),), 1.0), Measurement((Score(2, 0.0, math.inf),), 1.0)])
    assert found.diverged
    assert found.accuracy == 0.0


def test_what_is_written_together_is_what_is_written_one_by_one(tmp_path):
    fates = [(TrialState.RUNNING, None, ""), (TrialState.PRUNED, FULL, ""), (TrialState.FAIL, None, "no\nmemory")]
    lines = {}
    for name in ("apart", "together"):
        (tmp_path / name).mkdir()
        study = open_study(tmp_path / name)
        study.record(outcome(CANDIDATES[1]))
        with study.together() if name == "together" else nullcontext():
            for candidate, (state, score, reason) in zip(CANDIDATES, fates, strict=True):
                study.settle(candidate, state, 4, score, reason)
        study.record(outcome(CANDIDATES[0]))
        assert open_study(tmp_path / name).states == study.states
        written = map(json.loads, (tmp_path / name / "study.log").read_text().splitlines())
        lines[name] = [{k: v for k, v in line.items() if "datetime" not in k and k != "worker_id"} for line in written]
    assert lines["together"] == lines["apart"]


def test_an_exception_among_writes_together_leaves_the_study_open_to_others(tmp_path):
    study = open_study(tmp_path)

    def fail() -> None:
        with study.together():
            study.settle(CANDIDATES[0], TrialState.FAIL, 0, None, "reason")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (tmp_path / "study.log.lock").is_symlink()
    study.record(outcome(CANDIDATES[1]))
    assert len(load_plainly(tmp_path).trials) == 2


def test_a_full_disk_among_writes_together_is_an_error_and_loses_nothing_before(tmp_path):
    study = open_study(tmp_path)
    study.record(outcome(CANDIDATES[0]))
    size = (tmp_path / "study.log").stat().st_size
    with largest_file(size + 100), pytest.raises(WriteError, match="could not be written"), study.together():
        study.settle(CANDIDATES[1], TrialState.FAIL, 0, None, "reason")
    resumed = open_study(tmp_path)
    assert list(resumed.measurements) == [(CANDIDATES[0].id, "proxy", 4, 0)]
    resumed.record(outcome(CANDIDATES[1]))
    assert len(load_plainly(tmp_path).trials) == 2
