"""The study: one Optuna trial per candidate, the only store of results. Resuming is reading it."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from nasproxy.credentials import without_password
from nasproxy.errors import RunError, WriteError
from nasproxy.files import flush
from nasproxy.search.journal import Journal
from nasproxy.search.task import PROXY, Key, Outcome
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.space import Config, Scalar
from nasproxy.training.train import Score

RUN = "run"
"""The attribute of a study by which the run that it belongs to knows it, where several may share a storage."""


@dataclass(frozen=True)
class Measurement:
    """What the study keeps of a training.

    Args:
        scores: on the validation part, in the order of epochs.
        seconds: wall time.
        test_accuracy: on the test part, where the whole data were trained on.
        failure: why there is no score, or None.
        latency_ms: milliseconds of a forward pass of one image, where that was asked.
        train_curve: mean cross-entropy in nats and accuracy on the training images up to each score, where that was
            asked.
    """

    scores: tuple[Score, ...]
    seconds: float
    test_accuracy: float | None = None
    failure: str | None = None
    latency_ms: float | None = None
    train_curve: tuple[tuple[float | None, float], ...] = ()


class Study:
    """Reads and writes the trials of one run.

    A candidate's trial is created when its first measurement arrives and stays ``RUNNING`` until its fate is known:
    ``COMPLETE`` with its accuracy after a training in full, ``PRUNED`` by halving, ``FAIL`` with a reason. Measurements
    on the proxy are user attributes of the trial; those on the whole data are the study's, as Optuna closes a finished
    trial.

    Args:
        storage: where trials are kept.
        name: of the study.
        choices: of the search space.
        distributions: of the parameters of a configuration; by default one of ``choices`` each.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        choices: Mapping[str, Sequence[Scalar]],
        distributions: Callable[[Config], dict[str, BaseDistribution]] | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = storage
        self._name = name
        categorical: dict[str, BaseDistribution] = {
            key: CategoricalDistribution(tuple(values)) for key, values in choices.items()
        }
        self._distributions = distributions or (lambda _: categorical)
        self._trial_ids: dict[str, int] = {}
        self._latencies: dict[str, float] = {}
        self.measurements: dict[Key, Measurement] = {}
        self.states: dict[str, TrialState] = {}
        self._id = self._open(name)
        try:
            with _reading():
                self._read()
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise RunError(
                f"The study {name} holds what no search of nasproxy wrote: {type(error).__name__} {error}.",
                "Choose another --out, or another --storage.",
            ) from error

    def claim(self, run: str | None) -> None:
        """Makes sure that these are a run's results; a study that holds nothing becomes its own.

        Args:
            run: what the run is known by; None is one of before it was known by anything.

        Raises:
            RunError: the study is another run's.
        """
        with _reading():
            attributes = self._storage.get_study_user_attrs(self._id)
        if run is not None and not attributes and not self.states:
            with _writing():
                self._storage.set_study_user_attr(self._id, RUN, run)
        elif attributes.get(RUN) != run:
            raise of_another_run(self._name)

    def record(self, outcome: Outcome) -> None:
        """Stores one measurement, durably, before it returns."""
        task = outcome.task
        curve = tuple((loss if math.isfinite(loss) else None, accuracy) for loss, accuracy in outcome.train_curve)
        found = Measurement(
            outcome.scores, outcome.seconds, outcome.test_accuracy, outcome.failure, outcome.latency_ms, curve
        )
        name = f"{task.data}:{task.epochs}:{task.repeat}"
        with _writing():
            if task.data == PROXY:
                self._record_on_trial(task.candidate, name, _to_json(found))
            else:
                self._storage.set_study_user_attr(self._id, f"{name}:{task.candidate.id}", _to_json(found))
        self._keep(task.key, found)

    def settle(
        self, candidate: Candidate, state: TrialState, epochs: int, score: Score | None, reason: str = ""
    ) -> None:
        """Closes a candidate's trial, or notes that it goes on (``RUNNING``) after ``epochs``, with ``score``.

        Closing a closed trial does nothing, so that a resumed run may settle again what it settled before.
        """
        if self.states.get(candidate.id, TrialState.RUNNING).is_finished():
            return
        with _writing():
            trial_id = self._trial_id(candidate)
            if score is not None:
                self._storage.set_trial_intermediate_value(trial_id, epochs, score.accuracy)
            if reason:
                self._storage.set_trial_user_attr(trial_id, "reason", reason)
            if state.is_finished():
                values = [score.accuracy] if state == TrialState.COMPLETE and score is not None else None
                self._storage.set_trial_state_values(trial_id, state, values)
        self.states[candidate.id] = state

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The writes of the body wait for the disk once, at its end; for what can be worked out again."""
        with _writing(), self._storage.together() if isinstance(self._storage, Journal) else contextlib.nullcontext():
            yield

    def latency_ms(self, candidate_id: str) -> float | None:
        """Milliseconds of a candidate's forward pass; None where it was not measured."""
        return self._latencies.get(candidate_id)

    def _keep(self, key: Key, found: Measurement) -> None:
        self.measurements[key] = found
        if found.latency_ms is not None:
            self._latencies[key[0]] = found.latency_ms

    def _record_on_trial(self, candidate: Candidate, name: str, value: dict[str, Any]) -> None:
        if candidate.id in self._trial_ids:
            self._storage.set_trial_user_attr(self._trial_ids[candidate.id], name, value)
        else:
            self._create(candidate, {name: value})

    def _trial_id(self, candidate: Candidate) -> int:
        if candidate.id not in self._trial_ids:
            self._create(candidate, {})
        return self._trial_ids[candidate.id]

    def _create(self, candidate: Candidate, attributes: dict[str, Any]) -> None:
        template = create_trial(
            state=TrialState.RUNNING,
            params=candidate.config,
            distributions=self._distributions(candidate.config),
            user_attrs={"id": candidate.id, **attributes},
        )
        self._trial_ids[candidate.id] = self._storage.create_new_trial(self._id, template)
        self.states[candidate.id] = TrialState.RUNNING

    def _open(self, name: str) -> int:
        try:
            with _reading():
                return self._storage.get_study_id_from_name(name)
        except KeyError:
            with _writing():
                return self._storage.create_new_study([StudyDirection.MAXIMIZE], name)

    def _read(self) -> None:
        for trial in self._storage.get_all_trials(self._id, deepcopy=False):
            self._read_trial(trial)
        for name, value in self._storage.get_study_user_attrs(self._id).items():
            if name != RUN:
                data, epochs, repeat, candidate = name.split(":")
                self._keep((candidate, data, int(epochs), int(repeat)), _from_json(value))

    def _read_trial(self, trial: FrozenTrial) -> None:
        candidate = trial.user_attrs["id"]
        self._trial_ids[candidate] = trial._trial_id
        self.states[candidate] = trial.state
        for name, value in trial.user_attrs.items():
            data, *numbers = name.split(":")
            if data == PROXY:
                epochs, repeat = map(int, numbers)
                self._keep((candidate, data, epochs, repeat), _from_json(value))


def open_storage(directory: Path, address: str | None) -> BaseStorage:
    """The storage of a run: ``address``, or the journal ``study.log`` in ``directory``.

    The caller holds the run directory's lock, so a journal lock that is there belongs to a dead process, and a last
    line without its end was being written when one died: both are removed.

    Raises:
        RunError: the address or the journal cannot be opened.
    """
    if address is not None:
        try:
            return optuna.storages.get_storage(address)
        except Exception as error:
            shown = without_password(address)
            raise RunError(
                f"Optuna cannot open the storage {shown!r}: {str(error).replace(address, shown)}",
                "Example: sqlite:///study.db",
            ) from error
    journal = directory / "study.log"
    journal.with_name("study.log.lock").unlink(missing_ok=True)
    _mend(journal)
    try:
        found = Journal(journal)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise RunError(f"{journal} is damaged: {error}.", "Start again in another --out.") from error
    with contextlib.suppress(OSError):  # of folders some network disks know nothing
        flush(directory)  # for the journal's name; what is in it Optuna flushes
    return found


def of_another_run(name: str) -> RunError:
    """What there is to say of a study that holds another run's results."""
    return RunError(
        f"The study {name} in the storage is of another run in a folder of the same name.",
        "Give this run's folder another name and go on with --resume and that --out; nothing of it is lost.",
    )


def studies_in(address: str) -> dict[str, str | None]:
    """The names of the studies in a storage, and what the run of each is known by.

    Of an SQLite database that is still to be made there are none, and it is not made.

    Raises:
        RunError: the address cannot be opened.
    """
    if (file := _sqlite_file(address)) is not None and not file.exists() and os.access(file.parent, os.W_OK):
        return {}
    storage = open_storage(Path(), address)
    with _reading():
        return {study.study_name: study.user_attrs.get(RUN) for study in storage.get_all_studies()}


def _sqlite_file(address: str) -> Path | None:
    try:
        url = make_url(address)
    except ArgumentError:
        return None
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def holds_trials(storage: BaseStorage, name: str) -> bool:
    """Whether a storage holds a study of this name that is not empty."""
    try:
        with _reading():
            return storage.get_n_trials(storage.get_study_id_from_name(name)) > 0
    except KeyError:
        return False


def _mend(journal: Path) -> None:
    """Cuts a half-written last line off; any other line that is no operation of Optuna's is an error."""
    if not journal.exists():
        return
    known = {int(operation) for operation in JournalOperation}
    whole = 0
    with journal.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                os.truncate(journal, whole)
                return
            whole += len(line)
            try:
                sound = json.loads(line)["op_code"] in known
            except (ValueError, KeyError, TypeError):
                sound = False
            if not sound:
                raise RunError(f"{journal} is damaged in line {number}.", "Start again in another --out.")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except (OSError, SQLAlchemyError, StorageInternalError) as error:
        reason = _reason(error)
        raise WriteError(f"The study could not be written: {reason}.", _hint(error, reason)) from error


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = _reason(error)
        raise RunError(f"The study could not be read: {reason}.", _hint(error, reason)) from error


def _reason(error: Exception) -> str:
    """What the system or the database says, without Optuna's and SQLAlchemy's words around it."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said = (getattr(one, "orig", None) for one in (error, error.__cause__))
    return str(next((one for one in said if one is not None), error))


def _hint(error: Exception, reason: str) -> str:
    if isinstance(error, OSError) or "disk" in reason:
        return "Free some space and go on with --resume; nothing that was measured before is lost."
    return (
        "See that the database can be reached and that no other process locks it, and go on with --resume; nothing that"
        " was measured before is lost."
    )


def _to_json(found: Measurement) -> dict[str, Any]:
    """Infinite cross-entropies become null: not every reader of JSON knows infinity."""
    scores = [[s.epoch, s.accuracy, None if s.diverged else s.cross_entropy] for s in found.scores]
    facts = {
        "scores": scores,
        "seconds": found.seconds,
        "test_accuracy": found.test_accuracy,
        "failure": found.failure,
        "latency_ms": found.latency_ms,
        "train_curve": [list(point) for point in found.train_curve] or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _from_json(facts: Mapping[str, Any]) -> Measurement:
    scores = (Score(int(e), float(a), math.inf if c is None else float(c)) for e, a, c in facts["scores"])
    curve = tuple((loss, float(accuracy)) for loss, accuracy in facts.get("train_curve", ()))
    others = facts.get("test_accuracy"), facts.get("failure"), facts.get("latency_ms")
    return Measurement(tuple(scores), float(facts["seconds"]), *others, curve)


def mean_score(measurements: Sequence[Measurement]) -> Score:
    """The score of a candidate over its repeats: mean accuracy, mean cross-entropy; diverged if one of them did."""
    last = [measurement.scores[-1] for measurement in measurements]
    accuracy = sum(score.accuracy for score in last) / len(last)
    cross_entropy = sum(score.cross_entropy for score in last) / len(last)
    return Score(last[0].epoch, 0.0 if math.isinf(cross_entropy) else accuracy, cross_entropy)
