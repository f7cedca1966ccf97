"""Bundles that get lost between the driver and its workers: the driver's callback, and workers that are only lists."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from test_campaign import Trainer, campaign_of

from nasproxy.search import tune
from nasproxy.search.task import Task


class Worker:
    """What a worker of Ray's is to the driver: it is given bundles, and reports.

    A bundle may be lost, or a part of it, but not four times in a row; to one that is deaf all are.
    """

    def __init__(self, rng: random.Random, *, deaf: bool) -> None:
        self.left: list[Task] = []
        self.alive = True
        self._rng, self._deaf, self._lost = rng, deaf, 0
        self.give = SimpleNamespace(remote=self._give)

    def _give(self, bundle: list[Task], *, anew: bool = False) -> None:
        lost = self._deaf or (self._lost < 3 and self._rng.random() < 0.4)
        self._lost = self._lost + 1 if lost else 0
        if not lost or self._rng.random() < 0.3:
            kept = [] if self._deaf else bundle[: len(bundle) // 2] if lost else bundle
            tune._Worker.give(SimpleNamespace(_left=self.left), kept, anew=anew)  # type: ignore[arg-type]

    def report(self, trainer: Trainer) -> dict[str, Any]:
        outcomes = [trainer.perform(self.left.pop(0)) for _ in range(min(len(self.left), self._rng.randrange(4)))]
        weights: list[list[Any]] = [[] for _ in outcomes]
        return {"outcomes": outcomes, "weights": weights, "worker": self, "left": len(self.left), "refused": None}


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 3), deaf=st.booleans())
def test_every_training_is_done_once_whatever_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, deaf: bool
):
    rng, trainer, plain = random.Random(seed), Trainer(), Trainer()
    monkeypatch.setattr(tune, "_dead_nodes", lambda: 0)
    monkeypatch.setattr(tune.ray, "kill", lambda worker: setattr(worker, "alive", False))
    error = tmp_path_factory.mktemp("trial") / "error"
    error.write_text("died")
    campaign, _ = campaign_of(InMemoryStorage())
    filing = tune._Filing(campaign, count, 1, 0.0)
    workers = {name: Worker(rng, deaf=deaf and name == 0) for name in range(count)}
    for turn in range(20_000):
        if campaign.finished:
            break
        name = rng.choice(list(workers))
        trial = SimpleNamespace(trial_id=str(name), error_file=str(error))
        if workers[name].alive:
            filing.on_trial_result(turn, [], trial, workers[name].report(trainer))
        else:
            filing.on_trial_error(turn, [], trial)
            del workers[name]
            workers[count + turn] = Worker(rng, deaf=False)
    assert campaign.finished
    expected, _ = campaign_of(InMemoryStorage())
    while not expected.finished:
        for task in expected.next_bundle(1):
            expected.record(plain.perform(task))
    assert trainer.trained == plain.trained
    assert [c.id for c in campaign.ranking] == [c.id for c in expected.ranking]
