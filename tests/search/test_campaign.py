"""The course of a search, with a trainer that takes no time: scores are a hash of what is trained."""

import hashlib
import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from nasproxy.search.budget import Budget
from nasproxy.search.campaign import Campaign
from nasproxy.search.costs import Cost
from nasproxy.search.halving import halving_rungs
from nasproxy.search.proposals import Proposals
from nasproxy.search.results import results_table, summarise
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

CHOICES = {"n": list(range(40))}
SETTINGS = SearchSettings(epochs=100, top_k=2, repeats=1, finalist_epochs=3, scheduler="halving")

RUNGS = halving_rungs(40, 100, 2)
"""What these do with 40 candidates, whatever the cuts are."""

FAILS_AT_ONCE = settings(
    deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate), report_multiple_bugs=False
)
"""For whole searches in a drawn order: shrinking one that fails takes all of hypothesis's five minutes, for nothing."""


def made(count: int = 40) -> list[Candidate]:
    return [Candidate.of({"n": n}) for n in range(count)]


@dataclass
class Trainer:
    """Trains in no time, and keeps account."""

    failing: set[int] = field(default_factory=set)
    diverging: set[int] = field(default_factory=set)
    trained: Counter[tuple] = field(default_factory=Counter)

    def perform(self, task: Task) -> Outcome:
        self.trained[task.key] += 1
        number = task.candidate.config["n"]
        if number in self.failing:
            return Outcome(task, (), 0.0, failure=f"RuntimeError: number {number}")
        if number in self.diverging:
            return Outcome(task, (Score(task.epochs, 0.0, math.inf),), 0.0)
        digest = hashlib.sha256(repr((task.key, task.seed)).encode()).digest()
        # Few different accuracies, so that cross-entropy decides often.
        score = Score(task.epochs, digest[0] % 5 / 4, digest[1] / 100)
        return Outcome(task, (score,), 0.0, 0.5 if task.data == WHOLE else None)


class Events:
    """Collects what the user sees."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int, int, float]] = []
        self.done: list[int] = []
        self.work: list[float] = []

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        self.stages.append((name, total, done, math.nan if work is None else work))
        self.done.append(done)
        self.work.append(0.0)

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        self.done[-1] += 1
        self.work[-1] += work

    def note(self, text: str) -> None:
        pytest.fail(text)


def costs_of(candidates: list[Candidate], unbuildable: set[int] = frozenset()) -> dict[str, Cost]:
    return {
        c.id: Cost(0, 0, "ValueError: no") if c.config["n"] in unbuildable else Cost(1, 10**6 * (1 + c.config["n"] % 7))
        for c in candidates
    }


def campaign_of(
    storage: InMemoryStorage,
    candidates: list[Candidate] | None = None,
    *,
    settings: SearchSettings = SETTINGS,
    unbuildable: set[int] = frozenset(),
    progress: Events | None = None,
    kept: list[Outcome] | None = None,
    proposals: Proposals | None = None,
    budget: Budget | None = None,
) -> tuple[Campaign, Study]:
    candidates = candidates or made()
    study = Study(storage, "nasproxy", CHOICES)
    campaign = Campaign(
        settings,
        candidates,
        costs_of(candidates, unbuildable),
        study,
        train_images=100,
        proposals=proposals,
        keep_weights=(kept if kept is not None else []).append,
        has_weights=lambda task: True,
        progress=progress or Events(),
        budget=budget,
    )
    return campaign, study


def run_plainly(campaign: Campaign, trainer: Trainer) -> None:
    while not campaign.finished:
        bundle = campaign.next_bundle(1)
        assert bundle or campaign.finished, "nothing is left to do, and yet it is not over"
        for task in bundle:
            campaign.record(trainer.perform(task))


def run_shuffled(campaign: Campaign, trainer: Trainer, rng: random.Random, workers: int, most: int = 10**9) -> int:
    """Up to ``workers`` bundles at a time, whose results arrive interleaved; stops after ``most`` results."""
    running: list[list[Task]] = []
    results = 0
    while not campaign.finished and results < most:
        while len(running) < workers and (bundle := campaign.next_bundle(workers)):
            running.append(bundle)
        if campaign.finished:  # a budget that is spent may end it when it is asked
            break
        bundle = rng.choice(running)
        campaign.record(trainer.perform(bundle.pop(0)))
        results += 1
        running = [bundle for bundle in running if bundle]
    return results


def outcome_of(campaign: Campaign, study: Study) -> tuple:
    """All that a user sees, times left out."""
    assert campaign.finished
    ranking = [candidate.id for candidate in campaign.ranking]
    return ranking, [candidate.id for candidate in campaign.finalists], study.measurements, study.states


def undisturbed(**facts) -> tuple[tuple, Trainer]:
    trainer = Trainer(**facts)
    campaign, study = campaign_of(InMemoryStorage())
    run_plainly(campaign, trainer)
    return outcome_of(campaign, study), trainer


def test_the_ranking_is_that_of_successive_halving():
    trainer = Trainer()
    campaign, study = campaign_of(InMemoryStorage())
    run_plainly(campaign, trainer)

    def best_first(candidates: list[Candidate], epochs: int) -> list[Candidate]:
        scores = {c.id: study.measurements[c.id, PROXY, epochs, 0].scores[-1] for c in candidates}
        return sorted(candidates, key=lambda c: (-scores[c.id].accuracy, scores[c.id].cross_entropy, c.id))

    expected: list[Candidate] = []
    alive = made()
    for rung in RUNGS:
        alive, eliminated = alive[: rung.candidates], alive[rung.candidates :]
        expected = eliminated + expected
        alive = best_first(alive, rung.epochs)
    assert campaign.ranking == alive + expected
    assert campaign.finalists == alive[:2]
    states = {c.id: TrialState.PRUNED for c in made()} | {c.id: TrialState.COMPLETE for c in alive}
    assert study.states == states
    trained = Counter((data, epochs) for _, data, epochs, _ in trainer.trained)
    assert trained == {(PROXY, rung.epochs): rung.candidates for rung in RUNGS} | {(WHOLE, 3): 2}
    assert set(trainer.trained.values()) == {1}


@settings(FAILS_AT_ONCE, max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_neither_workers_nor_the_order_of_results_matter(rng, workers):
    expected, _ = undisturbed(failing={3, 17}, diverging={5})
    trainer = Trainer(failing={3, 17}, diverging={5})
    candidates = made()
    rng.shuffle(candidates)
    campaign, study = campaign_of(InMemoryStorage(), candidates)
    run_shuffled(campaign, trainer, rng, workers)
    assert outcome_of(campaign, study) == expected
    assert set(trainer.trained.values()) == {1}


@settings(FAILS_AT_ONCE, max_examples=40)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 25), max_size=6), st.integers(1, 4))
def test_interrupted_anywhere_it_goes_on_to_the_same_end(rng, portions, workers):
    expected, _ = undisturbed(failing={3, 17}, diverging={5})
    trainer = Trainer(failing={3, 17}, diverging={5})
    storage = InMemoryStorage()
    for most in portions:
        run_shuffled(campaign_of(storage)[0], trainer, rng, workers, most)
    campaign, study = campaign_of(storage)
    run_shuffled(campaign, trainer, rng, workers)
    assert outcome_of(campaign, study) == expected
    assert set(trainer.trained.values()) == {1}
    assert outcome_of(*campaign_of(storage)) == expected


class Killed(Exception):  # noqa: N818
    pass


class Dying(InMemoryStorage):
    """Storage of a process that is killed after a number of writes."""

    left = 0

    def _write(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def create_new_trial(self, *arguments, **named):
        self._write()
        return super().create_new_trial(*arguments, **named)

    def set_trial_state_values(self, *arguments, **named):
        self._write()
        return super().set_trial_state_values(*arguments, **named)

    def set_trial_intermediate_value(self, *arguments, **named):
        self._write()
        return super().set_trial_intermediate_value(*arguments, **named)

    def set_trial_user_attr(self, *arguments, **named):
        self._write()
        return super().set_trial_user_attr(*arguments, **named)

    def set_study_user_attr(self, *arguments, **named):
        self._write()
        return super().set_study_user_attr(*arguments, **named)


def test_killed_between_any_two_writes_it_goes_on_to_the_same_end():
    few = replace(SETTINGS, top_k=1)

    def run(storage: Dying, writes: int) -> tuple:
        storage.left = writes
        campaign, study = campaign_of(storage, made(12), settings=few)
        run_plainly(campaign, Trainer(failing={3}, diverging={5}))
        return outcome_of(campaign, study)

    whole = Dying()
    expected = run(whole, 1000)
    for writes in range(1000 - whole.left):
        storage = Dying()
        with pytest.raises(Killed):
            run(storage, writes)
        assert run(storage, 1000) == expected
        trials = storage.get_all_trials(storage.get_study_id_from_name("nasproxy"))
        assert len(trials) == len({trial.user_attrs["id"] for trial in trials}) == 12


def test_failures_are_closed_with_their_reason_and_the_rest_goes_on():
    storage = InMemoryStorage()
    campaign, study = campaign_of(storage, unbuildable={1, 2})
    run_plainly(campaign, Trainer(failing={3, 17}))
    failed = {Candidate.of({"n": n}).id for n in (1, 2, 3, 17)}
    assert {name for name, state in study.states.items() if state == TrialState.FAIL} == failed
    assert {candidate.id for candidate in campaign.ranking} == {c.id for c in made()} - failed
    assert len(campaign.finalists) == 2
    trials = {trial.user_attrs["id"]: trial for trial in storage.get_all_trials(0)}
    assert trials[Candidate.of({"n": 1}).id].user_attrs["reason"] == "ValueError: no"
    assert trials[Candidate.of({"n": 17}).id].user_attrs["reason"] == "RuntimeError: number 17"
    assert all(trial.state.is_finished() for trial in trials.values())
    assert campaign.rungs[0].candidates == 38


@pytest.mark.parametrize("facts", [{"unbuildable": set(range(40))}, {}])
def test_a_search_in_which_everything_fails_comes_to_an_end(facts):
    campaign, study = campaign_of(InMemoryStorage(), **facts)
    run_plainly(campaign, Trainer(failing=set(range(40))))
    assert campaign.finished
    assert campaign.ranking == campaign.finalists == []
    assert set(study.states.values()) == {TrialState.FAIL}


def test_a_finalist_that_fails_keeps_its_place_on_the_proxy():
    class Finale(Trainer):
        def perform(self, task: Task) -> Outcome:
            return Outcome(task, (), 0.0, failure="no memory") if task.data == WHOLE else super().perform(task)

    kept: list[Outcome] = []
    campaign, study = campaign_of(InMemoryStorage(), kept=kept)
    run_plainly(campaign, Finale())
    assert campaign.finished
    assert kept == []
    assert len(campaign.finalists) == 2
    assert all(study.states[candidate.id] == TrialState.COMPLETE for candidate in campaign.finalists)


def test_weights_are_kept_before_the_training_counts_as_done():
    kept: list[Outcome] = []
    storage = InMemoryStorage()
    campaign, study = campaign_of(storage, kept=kept)

    class Full(Exception):  # noqa: N818
        pass

    def refuse(outcome: Outcome) -> None:
        raise Full

    campaign._keep_weights = refuse
    with pytest.raises(Full):
        run_plainly(campaign, Trainer())
    assert all(data == PROXY for _, data, _, _ in Study(storage, "nasproxy", CHOICES).measurements)
    campaign, study = campaign_of(storage, kept=kept)
    run_plainly(campaign, Trainer())
    assert [outcome.task.candidate for outcome in kept] == sorted(campaign.finalists, key=lambda c: kept_order(c, kept))
    assert len(kept) == 2
    assert sum(data == WHOLE for _, data, _, _ in study.measurements) == 2


def kept_order(candidate: Candidate, kept: list[Outcome]) -> int:
    return [outcome.task.candidate.id for outcome in kept].index(candidate.id)


def test_a_diverged_candidate_ranks_last_of_its_rung():
    everyone_else = set(range(40)) - {5}
    campaign, study = campaign_of(InMemoryStorage())

    class Hopeless(Trainer):
        """All are never right, one diverges."""

        def perform(self, task: Task) -> Outcome:
            wrong = Outcome(task, (Score(task.epochs, 0.0, 1e30),), 0.0)
            return wrong if task.candidate.config["n"] in everyone_else else super().perform(task)

    run_plainly(campaign, Hopeless(diverging={5}))
    assert campaign.ranking[-1] == Candidate.of({"n": 5})
    assert study.states[Candidate.of({"n": 5}).id] == TrialState.PRUNED


def test_repeats_are_averaged_and_trained_from_seeds_of_their_own():
    thrice = SearchSettings(epochs=10, top_k=2, repeats=3, finalist_epochs=3, scheduler="none")
    accuracies = {0: (1.0, 0.0, 0.0), 1: (0.5, 0.5, 0.5), 2: (0.4, 0.4, 0.4)}
    seeds = set()

    class Fixed(Trainer):
        def perform(self, task: Task) -> Outcome:
            seeds.add(task.seed)
            accuracy = accuracies[task.candidate.config["n"]][task.repeat]
            return Outcome(task, (Score(task.epochs, accuracy, 1.0),), 0.0)

    campaign, _ = campaign_of(InMemoryStorage(), made(3), settings=thrice)
    run_plainly(campaign, Fixed())
    assert [candidate.config["n"] for candidate in campaign.ranking] == [1, 2, 0]
    score = campaign.standings.score(made(1)[0], PROXY, 10)
    assert score is not None
    assert score.accuracy == pytest.approx(1 / 3)
    assert len(seeds) == 3 * 3 + 2 * 3


def test_one_failed_repeat_fails_the_candidate():
    thrice = SearchSettings(epochs=10, top_k=1, repeats=3, finalist_epochs=3, scheduler="none")

    class Second(Trainer):
        def perform(self, task: Task) -> Outcome:
            if task.repeat == 1 and task.candidate.config["n"] == 0:
                return Outcome(task, (), 0.0, failure="only now and then")
            return super().perform(task)

    campaign, study = campaign_of(InMemoryStorage(), made(3), settings=thrice)
    run_plainly(campaign, Second())
    assert study.states[made(1)[0].id] == TrialState.FAIL
    assert len(campaign.ranking) == 2


@pytest.mark.parametrize(("excused", "tries"), [({}, 2), ({"tries": 2}, 2), ({"tries": 4}, 4)])
def test_a_training_whose_worker_died_is_handed_out_again_then_fails(excused: dict[str, int], tries: int):
    trainer = Trainer()
    campaign, study = campaign_of(InMemoryStorage(), made(8))
    handed: Counter[tuple] = Counter()
    doomed = made(1)[0].id
    while not campaign.finished:
        for task in campaign.next_bundle(1):
            handed[task.key] += 1
            if task.candidate.id == doomed:
                campaign.give_up([task], "the worker died", **excused)
            else:
                campaign.record(trainer.perform(task))
    epochs = campaign.rungs[0].epochs
    assert handed[doomed, PROXY, epochs, 0] == tries
    assert set(trainer.trained.values()) == {1}
    assert study.measurements[doomed, PROXY, epochs, 0].failure == "the worker died"
    assert study.states[doomed] == TrialState.FAIL
    assert len(campaign.ranking) == 7


@settings(FAILS_AT_ONCE, max_examples=60)
@given(st.sets(st.integers(0, 39), max_size=12), st.randoms(use_true_random=False), st.integers(1, 4))
def test_a_candidate_that_kills_its_worker_takes_no_other_with_it(deadly, rng, workers):
    """A worker that dies gives back its whole bundle: what it had finished, what it was at, what it had not begun."""
    trainer = Trainer()
    campaign, study = campaign_of(InMemoryStorage())
    running: list[tuple[list[Task], list[Task]]] = []
    steps = 0
    while not campaign.finished:
        steps += 1
        assert steps < 1000, "it does not come to an end"
        while len(running) < workers and (bundle := campaign.next_bundle(workers)):
            running.append((bundle, list(bundle)))
        bundle, left = rng.choice(running)
        task = left.pop(0)
        if task.candidate.config["n"] in deadly:
            left.clear()
            campaign.give_up(bundle, "the worker died")
        else:
            campaign.record(trainer.perform(task))
        running = [pair for pair in running if pair[1]]
    failed = {name for name, state in study.states.items() if state == TrialState.FAIL}
    assert failed == {Candidate.of({"n": n}).id for n in deadly}
    assert len(campaign.ranking) == 40 - len(deadly)


@settings(FAILS_AT_ONCE, max_examples=60)
@given(
    st.sets(st.integers(0, 39), max_size=12),
    st.sets(st.integers(0, 39), max_size=4),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
)
def test_what_lacked_memory_is_tried_once_more_when_nothing_else_runs(hungry, hopeless, rng, workers):
    """The hungry succeed only where no other training is under way, the hopeless never."""
    expected, _ = undisturbed(failing=hopeless)
    trainer = Trainer(failing=hopeless)
    storage = InMemoryStorage()
    campaign, study = campaign_of(storage)
    tries: Counter[tuple] = Counter()
    running: list[list[Task]] = []
    while not campaign.finished:
        while len(running) < workers and (bundle := campaign.next_bundle(workers)):
            running.append(bundle)
        bundle = rng.choice(running)
        others = sum(map(len, running)) - 1
        task = bundle.pop(0)
        number = task.candidate.config["n"]
        tries[task.key] += 1
        assert tries[task.key] == 1 or not others
        if number in hopeless or (number in hungry and others):
            campaign.record(Outcome(task, (), 0.0, failure=f"RuntimeError: number {number}", out_of_memory=True))
        else:
            campaign.record(trainer.perform(task))
        running = [bundle for bundle in running if bundle]
    assert outcome_of(campaign, study) == expected
    assert set(trainer.trained.values()) <= {1}
    numbers = {candidate.id: candidate.config["n"] for candidate in made()}
    for (name, *_), count in tries.items():
        assert count == 2 if numbers[name] in hopeless else count <= 1 + (numbers[name] in hungry)


def test_a_bundle_whose_worker_died_is_tried_one_by_one_side_by_side():
    campaign, _ = campaign_of(InMemoryStorage())
    bundles = []
    while bundle := campaign.next_bundle(2):
        bundles.append(bundle)
    lost = bundles[0]
    assert len(lost) > 1
    campaign.give_up(lost, "the worker died")
    again = [campaign.next_bundle(2) for _ in lost]
    assert again == [[task] for task in lost]
    # One of them has now died twice: it waits until nothing else is under way.
    campaign.give_up(again[0], "the worker died")
    trainer = Trainer()
    for task in [task for bundle in [*bundles[1:], *again[1:]] for task in bundle]:
        assert campaign.next_bundle(2) == []
        campaign.record(trainer.perform(task))
    assert campaign.next_bundle(2) == again[0]
    assert campaign.next_bundle(2) == []


def test_a_result_that_nobody_waits_for_is_left_out():
    campaign, study = campaign_of(InMemoryStorage(), made(3))
    (task, *_) = campaign.next_bundle(1)
    campaign.give_up([task], "lost")
    campaign.record(Trainer().perform(task))
    assert study.measurements == {}


def test_work_begins_once_with_the_first_bundle():
    class Clocked(Events):
        def __init__(self) -> None:
            super().__init__()
            self.begun: list[list[int]] = []

        def work_begins(self) -> None:
            self.begun.append([*self.done])

    clock, trainer = Clocked(), Trainer()
    campaign, _ = campaign_of(InMemoryStorage(), progress=clock)
    assert clock.stages
    assert not clock.begun
    while not campaign.finished:
        for task in campaign.next_bundle(2):
            campaign.record(trainer.perform(task))
    assert clock.begun == [[0]]


def test_progress_adds_up():
    events = Events()
    storage = InMemoryStorage()
    after = RUNGS[1:]
    run_shuffled(campaign_of(storage)[0], Trainer(), random.Random(0), 2, most=40 + 2)
    campaign, _ = campaign_of(storage, progress=events)
    run_plainly(campaign, Trainer())
    names = [(name, total, done) for name, total, done, _ in events.stages]
    assert names == [
        *((f"Ranking, {rung.epochs} epochs", rung.candidates, 2 * (rung == after[0])) for rung in after),
        ("Finalists, whole data", 2, 0),
    ]
    assert events.done == [*(rung.candidates for rung in after), 2]
    assert events.work == pytest.approx([work for *_, work in events.stages])


def test_what_was_measured_in_a_rung_predicts_the_next_also_after_a_resume():
    class Steady(Trainer):
        def perform(self, task: Task) -> Outcome:
            return replace(super().perform(task), seconds=float(task.epochs * (1 + task.candidate.config["n"] % 7)))

    def seconds(rung: int) -> float:
        return sum(found.seconds for (_, _, epochs, _), found in study.measurements.items() if epochs == rung)

    events, storage = Events(), InMemoryStorage()
    run_shuffled(campaign_of(storage)[0], Steady(), random.Random(0), 2, most=33)
    campaign, study = campaign_of(storage, progress=events)
    run_plainly(campaign, Steady())
    first, *after = events.stages[:-1]
    assert first[3] < seconds(RUNGS[0].epochs)
    for rung, (*_, work) in zip(RUNGS[1:], after, strict=True):
        assert work == pytest.approx(seconds(rung.epochs), rel=1)


def test_of_finalists_a_bar_shows_the_share_that_is_done():
    """However much longer they take than the proxy's trainings, and though few of them are ever measured."""

    class Slow(Trainer):
        def perform(self, task: Task) -> Outcome:
            size = 1 + task.candidate.config["n"] % 7
            return replace(
                super().perform(task), seconds=size * (1000.0 if task.data == WHOLE else 0.001 * task.epochs)
            )

    class Shares(Events):
        def advance(self, headline: str = "", work: float = 1.0) -> None:
            super().advance(headline, work)
            shares.append((self.stages[-1][0], self.work[-1] / self.stages[-1][3]))

    shares: list[tuple[str, float]] = []
    campaign, study = campaign_of(InMemoryStorage(), settings=replace(SETTINGS, top_k=5), progress=Shares())
    run_plainly(campaign, Slow())
    found = [share for name, share in shares if name == "Finalists, whole data"]
    seconds = [measured.seconds for (_, data, *_), measured in study.measurements.items() if data == WHOLE]
    assert found == pytest.approx([sum(seconds[:number]) / sum(seconds) for number in range(1, 6)], rel=0.05)


SAMPLED = replace(SETTINGS, scheduler="none", sampler="tpe", trials=25, evaluate_at=())


def sampled(storage: InMemoryStorage, trainer: Trainer, sampler: str = "tpe", **more) -> tuple[Campaign, Study]:
    proposals = Proposals(sampler, made(), CHOICES, SAMPLED.objectives, seed=0)
    return campaign_of(storage, settings=replace(SAMPLED, sampler=sampler), proposals=proposals, **more)


def all_proposed(campaign: Campaign, study: Study) -> tuple:
    return [candidate.id for candidate in campaign.candidates], *outcome_of(campaign, study)


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sampler_tries_as_many_as_are_asked_for(sampler):
    trainer = Trainer(failing={3}, diverging={5})
    campaign, study = sampled(InMemoryStorage(), trainer, sampler)
    run_plainly(campaign, trainer)
    assert len({candidate.id for candidate in campaign.candidates}) == len(campaign.candidates) == 25
    assert set(study.states) == {candidate.id for candidate in campaign.candidates}
    failed = {candidate.id for candidate in campaign.candidates if candidate.config["n"] == 3}
    assert {c.id for c in campaign.ranking} == set(study.states) - failed
    scores = [campaign.standings.score(candidate, PROXY, 100) for candidate in campaign.ranking]
    assert [s.accuracy for s in scores] == sorted((s.accuracy for s in scores), reverse=True)
    assert campaign.finalists == campaign.ranking[:2]
    assert set(trainer.trained.values()) == {1}


@settings(FAILS_AT_ONCE, max_examples=25)
@given(st.randoms(use_true_random=False), st.integers(1, 8), st.sampled_from(["tpe", "nsga2"]), st.integers(0, 26))
def test_neither_workers_nor_interruptions_change_what_a_sampler_proposes(rng, workers, sampler, first):
    calm = Trainer(failing={3, 17}, diverging={5})
    expected = sampled(InMemoryStorage(), calm, sampler)
    run_plainly(expected[0], calm)
    storage, trainer = InMemoryStorage(), Trainer(failing={3, 17}, diverging={5})
    run_shuffled(sampled(storage, trainer, sampler)[0], trainer, rng, workers, most=first)
    campaign, study = sampled(storage, trainer, sampler)
    run_shuffled(campaign, trainer, rng, workers)
    assert all_proposed(campaign, study) == all_proposed(*expected)
    assert set(trainer.trained.values()) == {1}


def test_a_sampled_search_shows_one_stage():
    events, trainer, storage = Events(), Trainer(), InMemoryStorage()
    run_shuffled(sampled(storage, trainer)[0], trainer, random.Random(0), 2, most=13)
    campaign, _ = sampled(storage, trainer, progress=events)
    run_plainly(campaign, trainer)
    assert [stage[:3] for stage in events.stages] == [("Ranking, 100 epochs", 25, 13), ("Finalists, whole data", 2, 0)]
    assert events.done == [25, 2]
    assert events.work[0] == 25 - 13  # candidates: nobody knows what those still to be proposed will cost


def test_several_objectives_rank_by_fronts_then_by_accuracy():
    both = replace(SETTINGS, scheduler="none", objectives=("accuracy", "multiply-adds"), top_k=4)
    trainer = Trainer()
    campaign, study = campaign_of(InMemoryStorage(), settings=both)
    run_plainly(campaign, trainer)
    costs = costs_of(made())

    def figures(candidate: Candidate) -> tuple[float, int]:
        score = study.measurements[candidate.id, PROXY, 100, 0].scores[-1]
        return -score.accuracy, costs[candidate.id].multiply_adds

    def is_best(candidate: Candidate) -> bool:
        a, m = figures(candidate)
        return not any(x <= a and y <= m and (x, y) != (a, m) for x, y in map(figures, made()))

    best = {candidate.id for candidate in made() if is_best(candidate)}
    assert 0 < len(best) < 40
    assert {candidate.id for candidate in campaign.ranking[: len(best)]} == best
    first = [figures(candidate)[0] for candidate in campaign.ranking[: len(best)]]
    assert first == sorted(first)


def explicit_campaign(trainer: Trainer, study: Study | None = None, **options) -> Campaign:
    """One whose finalists somebody else has chosen, run to its end."""
    candidates = made()
    study = study or Study(InMemoryStorage(), "test", CHOICES)
    campaign = Campaign(
        replace(SETTINGS, scheduler="none"),
        candidates,
        costs_of(candidates, {7}),
        study,
        train_images=1000,
        keep_weights=lambda _: None,
        has_weights=lambda _: True,
        progress=Events(),
        **options,
    )
    while not campaign.finished:
        for task in campaign.next_bundle(1):
            campaign.record(trainer.perform(task))
    return campaign


def test_candidates_can_be_ranked_without_finalists():
    trainer = Trainer()
    campaign = explicit_campaign(trainer, finalists=())
    assert {data for _, data, _, _ in trainer.trained} == {PROXY}
    assert len(trainer.trained) == len(campaign.ranking) == 39
    assert campaign.finalists == []


def test_given_candidates_are_trained_on_the_whole_data_without_a_ranking():
    trainer, study, chosen = Trainer(), Study(InMemoryStorage(), "test", CHOICES), made()[3:9]
    campaign = explicit_campaign(trainer, study, finalists=chosen, rank=False)
    # Number 7 cannot be built.
    assert {(key[0], key[1]) for key in trainer.trained} == {(c.id, WHOLE) for c in chosen if c.config["n"] != 7}
    assert campaign.ranking == []
    again = Trainer()
    explicit_campaign(again, study, finalists=made()[5:12], rank=False)
    assert {key[0] for key in again.trained} == {c.id for c in made()[9:12]}


def test_what_is_given_a_title_shows_it():
    for rank, title in ((True, "synflow"), (False, "Whole data")):
        events = Events()
        candidates = made(4)
        campaign = Campaign(
            replace(SETTINGS, scheduler="none"),
            candidates,
            costs_of(candidates),
            Study(InMemoryStorage(), "test", CHOICES),
            train_images=1000,
            finalists=() if rank else candidates,
            rank=rank,
            title=title,
            keep_weights=lambda _: None,
            has_weights=lambda _: True,
            progress=events,
        )
        assert not campaign.finished
        assert [stage[:2] for stage in events.stages] == [(title, 4)]


class Alike(Trainer):
    """On the whole data all are right about every image, the larger ones by a larger margin."""

    def perform(self, task: Task) -> Outcome:
        found = super().perform(task)
        if task.data == PROXY:
            return found
        return replace(found, scores=(Score(task.epochs, 1.0, 1 / (1 + task.candidate.config["n"])),))


@pytest.mark.parametrize(
    ("objectives", "winner"),
    [
        (("accuracy",), 5),
        (("accuracy", "multiply-adds"), 0),
        (("parameters", "accuracy", "multiply-adds"), 3),
        (("accuracy", "parameters"), 4),
        (("accuracy", "latency", "parameters"), 1),
    ],
)
def test_of_equal_finalists_the_winner_is_the_best_in_the_other_objectives(objectives: tuple[str, ...], winner: int):
    asked = replace(SETTINGS, objectives=objectives, top_k=6, scheduler="none")
    candidates = made(6)
    campaign, study = campaign_of(InMemoryStorage(), candidates, settings=asked)
    run_plainly(campaign, Alike())
    table = results_table(candidates, costs_of(candidates), study, campaign.ranking, objectives, choices=CHOICES)
    numbers = table["params_n"]
    table["parameters"] = numbers.map({0: 9, 1: 9, 2: 8, 3: 7, 4: 7, 5: 8})
    if "latency" in objectives:
        table["latency_ms"] = numbers.map({0: 1.5, 1: 0.5, 2: 0.5, 3: 2.0, 4: 2.0, 5: 2.0}).where(numbers != 2)
    best = summarise(campaign, table, study, objectives)["winner"]
    assert best["config"]["n"] == winner
