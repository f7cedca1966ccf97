"""Candidates that go on before their rung has ended, with a trainer that takes no time; and one search on real Ray."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from pandas.testing import assert_frame_equal
from test_budget import Ends, Listener
from test_campaign import (
    CHOICES,
    FAILS_AT_ONCE,
    RUNGS,
    SETTINGS,
    Dying,
    Events,
    Killed,
    Trainer,
    campaign_of,
    costs_of,
    made,
    outcome_of,
    run_plainly,
    run_shuffled,
    undisturbed,
)
from tiny_search import (
    SPACE,
    TRAININGS,
    finish,
    invoke,
    read_table,
    recorded_trainings,
    search_words,
    start,
    write_space,
)

from nasproxy.search.campaign import Campaign
from nasproxy.search.halving import halving_rungs
from nasproxy.search.promotion import Promotion
from nasproxy.search.results import results_table
from nasproxy.search.standings import Place
from nasproxy.search.study import Study
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

FEW = 20


@given(
    st.lists(st.none() | st.tuples(st.integers(-3, 0), st.integers(0, 2)), min_size=1, max_size=12), st.integers(1, 12)
)
def test_certain_are_those_whom_no_outcome_of_the_others_keeps_out(drawn: list[tuple[int, int] | None], keep: int):
    candidates = made(len(drawn))
    places: list[Place | None] = [
        None if place is None else (float(place[0]), float(place[1]), candidate.id)
        for candidate, place in zip(candidates, drawn, strict=True)
    ]
    promotion = Promotion(len(drawn), keep)
    certain: list[str] = []
    for number, (candidate, place) in enumerate(zip(candidates, places, strict=True), 1):
        found = promotion.add(candidate, place)
        certain += [] if found is None else [found.id]
        known = sorted(place for place in places[:number] if place is not None)
        worst = [(-9.0, 0.0, "")] * (len(drawn) - number) + known
        assert sorted(certain) == sorted(name for *_, name in worst[:keep] if name)


@dataclass
class Fated(Trainer):
    """Each training's score is drawn from few values, so that many are level; some fail, some diverge."""

    fate: int = 0

    def perform(self, task: Task) -> Outcome:
        self.trained[task.key] += 1
        score = self.score(task.key)
        if score is None:
            return Outcome(task, (), 0.0, failure="RuntimeError: its fate")
        return Outcome(task, (score,), 0.0, 0.5 if task.data == WHOLE else None)

    def score(self, key: tuple[str, str, int, int]) -> Score | None:
        digest = hashlib.sha256(repr((self.fate, key)).encode()).digest()
        if digest[0] < 25:
            return None
        return Score(key[2], 0.0, math.inf) if digest[1] < 25 else Score(key[2], digest[2] % 4 / 3, digest[3] % 3 / 2)


def plain_ladder(fate: int, repeats: int) -> tuple[list[str], set[tuple[str, str, int, int]]]:
    """Successive halving with barriers, written down anew: the ranking, and all trainings on the proxy."""
    trained: set[tuple[str, str, int, int]] = set()
    alive, out, diverged = [candidate.id for candidate in made(FEW)], [], set[str]()
    rungs = halving_rungs(FEW, SETTINGS.epochs, SETTINGS.top_k)
    for rung, above in zip(rungs, [*rungs[1:], rungs[-1]], strict=True):
        places: list[Place] = []
        for name in alive:
            keys = [(name, PROXY, rung.epochs, repeat) for repeat in range(repeats)]
            trained.update(keys)
            scores = [score for key in keys if (score := Fated(fate=fate).score(key)) is not None]
            if len(scores) == repeats:
                loss = sum(score.cross_entropy for score in scores) / repeats
                accuracy = 0.0 if math.isinf(loss) else sum(score.accuracy for score in scores) / repeats
                places.append((-accuracy, loss, name))
        ranked = [name for *_, name in sorted(places)]
        diverged = diverged - {*alive} | {name for _, loss, name in places if math.isinf(loss)}
        alive, out = ranked[: above.candidates], ranked[above.candidates :] + out
    order = alive + out
    return [n for n in order if n not in diverged] + [n for n in order if n in diverged], trained


def table_of(campaign: Campaign, study: Study) -> pd.DataFrame:
    candidates = made(FEW)
    table = results_table(
        candidates, costs_of(candidates), study, campaign.ranking, finalists=campaign.finalists, choices=CHOICES
    )
    return table.drop(columns="latency_ms", errors="ignore")


@settings(FAILS_AT_ONCE, max_examples=25)
@given(
    st.randoms(use_true_random=False),
    st.integers(0, 10**9),
    st.integers(1, 12),
    st.integers(1, 2),
    st.lists(st.integers(1, 25), max_size=3),
)
def test_with_any_scores_workers_order_and_interruptions_it_is_halving_with_barriers(
    rng: random.Random, fate: int, workers: int, repeats: int, portions: list[int]
):
    asked = replace(SETTINGS, repeats=repeats)
    plain, study = campaign_of(InMemoryStorage(), made(FEW), settings=asked)
    run_plainly(plain, Fated(fate=fate))
    expected, table = outcome_of(plain, study), table_of(plain, study)
    trainer, storage = Fated(fate=fate), InMemoryStorage()
    for most in portions:
        run_shuffled(campaign_of(storage, made(FEW), settings=asked)[0], trainer, rng, workers, most)
    campaign, study = campaign_of(storage, made(FEW), settings=asked)
    run_shuffled(campaign, trainer, rng, workers)
    assert outcome_of(campaign, study) == expected
    assert_frame_equal(table_of(campaign, study), table)
    ranking, trained = plain_ladder(fate, repeats)
    assert [candidate.id for candidate in campaign.ranking] == ranking
    assert [candidate.id for candidate in campaign.finalists] == ranking[: SETTINGS.top_k]
    assert {key for key in trainer.trained if key[1] == PROXY} == trained
    assert set(trainer.trained.values()) <= {1}


@settings(FAILS_AT_ONCE, max_examples=20)
@given(st.randoms(use_true_random=False), st.integers(0, 10**9), st.integers(2, 6), st.integers(0, 60))
def test_killed_between_two_writes_with_two_rungs_under_way_it_goes_on_to_the_same_end(
    rng: random.Random, fate: int, workers: int, writes: int
):
    plain, study = campaign_of(InMemoryStorage(), made(FEW))
    run_plainly(plain, Fated(fate=fate))
    storage = Dying()
    storage.left = writes
    try:
        run_shuffled(campaign_of(storage, made(FEW))[0], Fated(fate=fate), rng, workers)
    except Killed:
        storage.left = 10**9
    campaign, found = campaign_of(storage, made(FEW))
    run_shuffled(campaign, Fated(fate=fate), rng, workers)
    assert outcome_of(campaign, found) == outcome_of(plain, study)


def all_but(campaign: Campaign, trainer: Trainer, held: Callable[[Task], bool]) -> tuple[list[Task], list[Task]]:
    """Trains all that there is to train but what is held back; returns that, and the rest in order."""
    back, done = [], []
    while bundle := campaign.next_bundle(4):
        for task in bundle:
            if held(task):
                back.append(task)
            else:
                done.append(task)
                campaign.record(trainer.perform(task))
    return back, done


def held_back(campaign: Campaign, trainer: Trainer, number: int = 0) -> tuple[Task, list[Task]]:
    """Holds back one candidate's first training; returns that, and the rest in order."""
    (straggler, *_), done = all_but(campaign, trainer, lambda task: task.candidate.config["n"] == number)
    return straggler, done


def first_rung_but_one(campaign: Campaign, trainer: Trainer) -> tuple[Task, list[Task]]:
    """Holds back the first candidate's training, and all that are early; returns both."""
    held, _ = all_but(campaign, trainer, lambda task: task.candidate.config["n"] == 0 or task.epochs > RUNGS[0].epochs)
    straggler, *early = sorted(held, key=lambda task: task.epochs)
    return straggler, early


KEEP = RUNGS[1].candidates


class Headlines(Events):
    """Keeps the last headline of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, str] = {}

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        super().advance(headline, work)
        self.said[self.stages[-1][0]] = headline


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("number", [0, 11])
def test_while_one_is_still_in_training_all_but_one_of_the_places_are_taken(number: int, fails: bool):
    failing = {3, 17, number} if fails else {3, 17}
    expected, _ = undisturbed(failing=failing)
    trainer, events = Trainer(failing=failing), Headlines()
    campaign, study = campaign_of(InMemoryStorage(), progress=events)
    straggler, done = held_back(campaign, trainer, number)
    first, early = done[: 40 - 1], done[40 - 1 :]
    assert {task.epochs for task in first} == {RUNGS[0].epochs}
    assert {task.epochs for task in early} == {RUNGS[1].epochs}
    names = [candidate.id for candidate in made() if candidate.config["n"] not in {3, 17, number}]
    scores = {name: study.measurements[name, PROXY, RUNGS[0].epochs, 0].scores[0] for name in names}
    best = sorted(scores, key=lambda name: (-scores[name].accuracy, scores[name].cross_entropy, name))
    assert sorted(task.candidate.id for task in early) == sorted(best[: KEEP - 1])
    assert not campaign.has_work
    assert not campaign.finished
    # The user sees the rung that is not over yet; what has been done of the next is counted when that begins.
    assert [stage[:3] for stage in events.stages] == [(f"Ranking, {RUNGS[0].epochs} epochs", 40, 0)]
    assert events.done == [40 - 1]
    campaign.record(trainer.perform(straggler))
    assert events.stages[1][:3] == (f"Ranking, {RUNGS[1].epochs} epochs", KEEP, KEEP - 1)
    run_plainly(campaign, trainer)
    assert outcome_of(campaign, study) == expected
    assert set(trainer.trained.values()) == {1}
    assert events.done == [*(rung.candidates for rung in RUNGS), 2]
    for rung in RUNGS:
        accuracies = [
            m.scores[0].accuracy for key, m in study.measurements.items() if key[2] == rung.epochs and m.scores
        ]
        assert events.said[f"Ranking, {rung.epochs} epochs"] == f"best {max(accuracies):.1%}"


def test_what_is_early_and_not_done_when_its_rung_begins_belongs_to_it():
    expected, _ = undisturbed()
    trainer, events = Trainer(), Events()
    campaign, study = campaign_of(InMemoryStorage(), progress=events)
    straggler, early = first_rung_but_one(campaign, trainer)
    assert len(early) == KEEP - 1
    campaign.give_up([early[0]], "its worker died")
    campaign.record(trainer.perform(straggler))
    assert events.stages[1][1:3] == (KEEP, 0)
    handed: list[Task] = []
    while bundle := campaign.next_bundle(4):
        handed += bundle
    assert len(handed) == 1
    assert handed[0].key not in {task.key for task in early}
    for task in [*early[1:], *handed]:
        campaign.record(trainer.perform(task))
    assert campaign.next_bundle(4) == early[:1]
    campaign.record(trainer.perform(early[0]))
    run_plainly(campaign, trainer)
    assert events.work == pytest.approx([work for *_, work in events.stages])
    assert events.done == [*(rung.candidates for rung in RUNGS), 2]
    assert outcome_of(campaign, study) == expected
    assert set(trainer.trained.values()) == {1}


def test_a_rung_whose_trainings_are_all_under_way_when_it_begins_waits_for_them():
    failing = set(range(37))
    expected, _ = undisturbed(failing=failing)
    trainer = Trainer(failing=failing)
    campaign, study = campaign_of(InMemoryStorage())
    straggler, early = first_rung_but_one(campaign, trainer)
    assert len(early) == 3
    campaign.record(trainer.perform(straggler))
    assert campaign.next_bundle(4) == []
    for task in early:
        assert not campaign.finished
        campaign.record(trainer.perform(task))
    run_plainly(campaign, trainer)
    assert outcome_of(campaign, study) == expected
    assert set(trainer.trained.values()) == {1}


def test_the_time_that_early_trainings_took_is_learnt_once():
    campaign, _ = campaign_of(InMemoryStorage())

    class Steady(Trainer):
        def perform(self, task: Task) -> Outcome:
            return replace(super().perform(task), seconds=1.0)

    trainer = Steady()
    straggler, done = held_back(campaign, trainer)
    assert campaign._model.learnt == len(done)
    campaign.record(trainer.perform(straggler))
    assert campaign._model.learnt == len(done) + 1


def test_with_several_objectives_a_rung_ends_before_the_next_begins():
    both = replace(SETTINGS, objectives=("accuracy", "multiply-adds"))
    campaign, _ = campaign_of(InMemoryStorage(), settings=both)
    _, done = held_back(campaign, Trainer())
    assert len(done) == 40 - 1


def test_nothing_early_begins_once_the_budget_is_spent():
    trainer, events = Trainer(), Listener()
    campaign, study = campaign_of(InMemoryStorage(), progress=events, budget=Ends(trainer, 40 - 1))
    straggler, done = held_back(campaign, trainer)
    assert len(done) == 40 - 1
    assert not campaign.cut_short
    campaign.record(trainer.perform(straggler))
    assert campaign.cut_short
    assert not any(epochs > RUNGS[0].epochs for _, data, epochs, _ in study.measurements if data == PROXY)


def test_who_has_gone_ahead_comes_first_where_the_budget_ends_the_rung_before():
    trainer = Trainer()
    budget = Ends(trainer, 10**9)
    storage = InMemoryStorage()
    campaign, study = campaign_of(storage, progress=Listener(), budget=budget)
    straggler, done = held_back(campaign, trainer)
    budget.after = 0
    campaign.give_up([straggler], "its worker died")
    campaign.give_up([straggler], "its worker died")
    assert campaign.cut_short
    early = {task.candidate.id for task in done if task.epochs == RUNGS[1].epochs}
    assert {candidate.id for candidate in campaign.ranking[: KEEP - 1]} == early
    scores = [campaign.standings.score(c, PROXY, RUNGS[1].epochs) for c in campaign.ranking[: KEEP - 1]]
    assert [score.accuracy for score in scores if score] == sorted((s.accuracy for s in scores if s), reverse=True)
    assert len(campaign.ranking) == 40 - 1
    run_plainly(campaign, trainer)
    resumed, study = campaign_of(storage)
    run_plainly(resumed, trainer)
    expected, _ = undisturbed()
    ranking, finalists, _, states = outcome_of(resumed, study)
    assert (ranking, finalists, states) == (*expected[:2], expected[3])


WAITING = SPACE.replace("import time\n", "import sys\nimport time\nfrom pathlib import Path\n").replace(
    "        activation = {",
    """        if "default_worker" in sys.argv[0]:
            log, name = Path(os.environ["TINY_LOG"]), f"{config['width']} {config['activation']}"
            with log.open("a") as file:
                file.write(f"{name}\\n")
            end = time.monotonic() + 60
            # The last of the first rung ends only when somebody's second training has begun.
            while name == STRAGGLER and len(lines := log.read_text().splitlines()) == len({*lines}):
                if time.monotonic() > end:
                    raise RuntimeError("nobody went ahead")
                time.sleep(0.05)
        activation = {""",
)


@pytest.mark.slow
def test_on_ray_a_rung_begins_before_the_one_before_has_ended_and_the_table_is_the_inline_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Of the smallest networks the one that is handed out last.
    smallest = [Candidate.of({"width": 2, "activation": name}) for name in ("relu", "tanh", "sigmoid")]
    straggler = max(smallest, key=lambda candidate: candidate.id).config["activation"]
    space, log = write_space(tmp_path, WAITING.replace("STRAGGLER", repr(f"2 {straggler}"))), tmp_path / "log"
    monkeypatch.setenv("TINY_LOG", str(log))
    assert invoke(*search_words(space, tmp_path / "inline")).code == 0
    assert not log.exists()
    said = finish(start(search_words(space, tmp_path / "tune", "--executor", "tune", "--workers", "2")))
    assert said.code == 0, said.err
    assert len(log.read_text().splitlines()) == TRAININGS
    assert_frame_equal(read_table(tmp_path / "tune"), read_table(tmp_path / "inline"))
    assert recorded_trainings(tmp_path / "tune") == recorded_trainings(tmp_path / "inline")
