"""Searches that a time budget ends, at a chosen training where a clock would make the test depend on the machine."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from pandas.testing import assert_frame_equal
from test_campaign import (
    CHOICES,
    FAILS_AT_ONCE,
    RUNGS,
    SAMPLED,
    SETTINGS,
    Events,
    Trainer,
    all_proposed,
    campaign_of,
    costs_of,
    made,
    outcome_of,
    run_plainly,
    run_shuffled,
    sampled,
    undisturbed,
)
from tiny_search import CANDIDATES, invoke, read_table, recorded_trainings, search_words, write_space

from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.proxies.proxy_file import load_proxy
from nasproxy.search.budget import Budget
from nasproxy.search.campaign import Campaign
from nasproxy.search.results import results_table, summarise
from nasproxy.search.study import Study
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score


@dataclass
class Ends(Budget):
    """Is spent after so many trainings."""

    trainer: Trainer
    after: int

    @property
    def limited(self) -> bool:
        return True

    @property
    def left(self) -> float:
        return float(self.after - self.trainer.trained.total())

    def reserve(self, seconds: float) -> None:
        pass


class Listener(Events):
    def note(self, text: str) -> None:
        assert "time budget" in text


FIRST = RUNGS[0].candidates
PROXY_TRAININGS = sum(rung.candidates for rung in RUNGS)


@settings(FAILS_AT_ONCE, max_examples=40)
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.integers(0, PROXY_TRAININGS + 3))
def test_wherever_it_ends_the_best_of_what_is_ranked_are_finalists_and_a_resume_is_complete(rng, workers, after):
    expected, _ = undisturbed(failing={3, 17}, diverging={5})
    storage, trainer = InMemoryStorage(), Trainer(failing={3, 17}, diverging={5})
    campaign, study = campaign_of(storage, progress=Listener(), budget=Ends(trainer, after))
    run_shuffled(campaign, trainer, rng, workers)
    assert campaign.finished
    on_proxy = {key: found for key, found in study.measurements.items() if key[1] == PROXY}
    assert len(on_proxy) == trainer.trained.total() - sum(key[1] == WHOLE for key in trainer.trained)
    # What was under way is finished: one bundle a worker.
    assert len(on_proxy) <= PROXY_TRAININGS
    if campaign.cut_short:
        assert len(on_proxy) >= after
        lengths = [max(e for name, _, e, _ in on_proxy if name == c.id) for c in campaign.ranking]
        assert lengths == sorted(lengths, reverse=True)
        alive = {name for name, *_ in on_proxy if study.states[name] != TrialState.FAIL}
        assert {candidate.id for candidate in campaign.ranking} == alive
    else:
        assert outcome_of(campaign, study) == expected
    assert campaign.finalists == campaign.ranking[:2]
    assert {name for name, data, *_ in study.measurements if data == WHOLE} == {c.id for c in campaign.finalists}
    resumed, study = campaign_of(storage)
    run_shuffled(resumed, trainer, rng, workers)
    whole = {key: found for key, found in study.measurements.items() if key[1] == PROXY or key in expected[2]}
    ranking, finalists, _, states = outcome_of(resumed, study)
    assert (ranking, finalists, whole, states) == expected
    assert set(trainer.trained.values()) == {1}


@settings(FAILS_AT_ONCE, max_examples=8)
@given(st.randoms(use_true_random=False), st.integers(1, 4), st.sampled_from(["random", "tpe"]), st.integers(0, 20))
def test_a_sampler_stops_proposing_and_goes_on_as_if_nothing_had_been(rng, workers, sampler, after):
    calm = Trainer(failing={3})
    expected = sampled(InMemoryStorage(), calm, sampler)
    run_plainly(expected[0], calm)
    storage, trainer = InMemoryStorage(), Trainer(failing={3})
    campaign, study = sampled(storage, trainer, sampler, progress=Listener(), budget=Ends(trainer, after))
    run_shuffled(campaign, trainer, rng, workers)
    assert campaign.planned == SAMPLED.trials
    measured = sum(key[1] == PROXY for key in study.measurements)
    assert campaign.cut_short == (measured < 25)
    assert len(campaign.ranking) <= measured
    assert {candidate.id for candidate in campaign.ranking} <= {candidate.id for candidate in campaign.candidates}
    resumed, study = sampled(storage, trainer, sampler)
    run_shuffled(resumed, trainer, rng, workers)
    proposed, ranking, finalists, _, states = all_proposed(resumed, study)
    assert (proposed, ranking, finalists, states) == (*all_proposed(*expected)[:3], expected[1].states)
    assert set(trainer.trained.values()) == {1}


def test_the_first_rung_is_a_random_sample_and_the_next_goes_on_with_the_best():
    trainer = Trainer()
    campaign, study = campaign_of(InMemoryStorage(), progress=Listener(), budget=Ends(trainer, FIRST + 3))
    order: list[Task] = []
    while not campaign.finished:
        for task in campaign.next_bundle(1):
            order.append(task)
            campaign.record(trainer.perform(task))
    first = [task.candidate.config["n"] for task in order[:FIRST]]
    assert first != sorted(first)
    assert len({n % 7 for n in first[:10]}) > 3  # not the largest networks first
    scores = {c.id: study.measurements[c.id, PROXY, RUNGS[0].epochs, 0].scores[-1] for c in made()}
    best = sorted(made(), key=lambda c: (-scores[c.id].accuracy, scores[c.id].cross_entropy, c.id))
    assert [task.candidate for task in order[FIRST : FIRST + 3]] == best[:3]
    assert campaign.ranking[3:] == best[3:]


class Seconds(Budget):
    """A clock that trainings advance by what they take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds / 60, began=0.0)
        self.now = self.reserved = 0.0

    @property
    def left(self) -> float:
        return self._seconds - self._reserved - self.now

    def reserve(self, seconds: float) -> None:
        super().reserve(seconds)
        self.reserved = self._reserved


def test_no_bundle_is_larger_than_what_is_left_and_the_finalists_time_is_kept_back():
    budget = Seconds(20.0)

    class Steady(Trainer):
        def perform(self, task: Task) -> Outcome:
            seconds = task.epochs / 16
            budget.now += seconds
            return replace(super().perform(task), seconds=seconds)

    plain = replace(SETTINGS, scheduler="none", epochs=16)
    campaign, study = campaign_of(InMemoryStorage(), settings=plain, progress=Listener(), budget=budget)
    trainer = Steady()
    while not campaign.finished:
        left, bundle = budget.left, campaign.next_bundle(1)
        assert bundle[0].data == WHOLE or len(bundle) <= max(1, left / 2 + 1e-6)
        for task in bundle:
            campaign.record(trainer.perform(task))
    ranked = sum(key[1] == PROXY for key in study.measurements)
    assert campaign.cut_short
    assert budget.reserved == pytest.approx(2 * 3 * 7 / 16, rel=0.1)
    assert ranked == pytest.approx(20 - budget.reserved, abs=1.5)


def test_a_budget_is_minutes_and_keeps_back_half_at_most():
    assert not Budget().limited
    assert Budget().left == float("inf")
    budget = Budget(2.0)
    assert budget.limited
    assert 100 < budget.left <= 120
    budget.reserve(30.0)
    assert 70 < budget.left <= 90
    budget.reserve(1000.0)
    assert 40 < budget.left <= 60


NOTHING = ["--time-budget", "1e-9"]


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "results.csv", dtype={"id": str})


def test_a_spent_budget_ends_well_and_a_resume_without_it_gives_the_full_result(tmp_path: Path):
    space = write_space(tmp_path)
    assert invoke(*search_words(space, tmp_path / "whole")).code == 0
    said = invoke(*search_words(space, tmp_path / "run", *NOTHING, "--json"))
    assert said.code == 1
    document = said.json
    assert (document["candidates"], document["evaluated"], document["not_reached"]) == (CANDIDATES, 0, CANDIDATES)
    assert document["budget_spent"]
    assert document["winner"] is None
    assert "time budget is spent" in said.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{CANDIDATES} of {CANDIDATES} candidates were not reached" in page
    assert "12 not reached" in invoke(*search_words(space, tmp_path / "run", *NOTHING, "--resume")).out
    said = invoke(*search_words(space, tmp_path / "run", "--time-budget", "60", "--resume", "--json"))
    assert not said.json["budget_spent"]
    assert said.json["not_reached"] == 0
    assert_frame_equal(read_table(tmp_path / "run"), read_table(tmp_path / "whole"))
    assert recorded_trainings(tmp_path / "run") == recorded_trainings(tmp_path / "whole")
    assert "not reached" not in (tmp_path / "run" / "report.html").read_text()


def test_a_budget_that_condensing_spends_is_a_failure_that_a_resume_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    space, few = write_space(tmp_path), DistributionRecipe(ipc=2, iterations=4, real_batch=4, width=4, depth=1)
    monkeypatch.setattr(DistributionRecipe, "preset", lambda preset, ipc: few)
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "first"))
    assert invoke(*search_words(space, tmp_path / "whole", "--proxy", "dm")).code == 0
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "second"))
    words = search_words(space, tmp_path / "run", "--proxy", "dm")
    said = invoke(*words, *NOTHING, "--json")
    assert said.code == 1
    assert said.json["error"]["kind"] == "budget"
    assert "after 1 of 4 iterations of condensing" in said.json["error"]["message"]
    assert (tmp_path / "run" / "condensing.safetensors").exists()
    said = invoke(*words, "--resume")
    assert said.code == 0, said.err
    assert "Condensing: 4, 1 done before" in said.err
    assert not (tmp_path / "run" / "condensing.safetensors").exists()
    # As a kill between the writing of the proxy and the removal leaves it.
    (tmp_path / "run" / "condensing.safetensors").touch()
    assert invoke(*words, "--resume").code == 0
    assert not (tmp_path / "run" / "condensing.safetensors").exists()
    ours, theirs = (load_proxy(tmp_path / name / "proxy.safetensors") for name in ("run", "whole"))
    assert torch.equal(ours.images, theirs.images)
    assert_frame_equal(read_table(tmp_path / "run"), read_table(tmp_path / "whole"))


@pytest.mark.parametrize("executor", ["inline", pytest.param("tune", marks=pytest.mark.slow)])
def test_cut_in_the_middle_there_is_a_winner_and_the_resumed_table_is_the_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
):
    space = write_space(tmp_path)
    assert invoke(*search_words(space, tmp_path / "whole")).code == 0
    asked = 0

    def left(self: Budget) -> float:
        nonlocal asked
        asked += self.limited
        return 60.0 if asked < 12 else 0.0

    monkeypatch.setattr(Budget, "left", property(left))
    words = search_words(space, tmp_path / "run", "--executor", executor, "--workers", "2")
    said = invoke(*words, "--time-budget", "1", "--json")
    assert said.code == 0, said.err
    document, table = said.json, table_of(tmp_path / "run")
    assert document["budget_spent"]
    assert 0 < document["evaluated"] < CANDIDATES
    assert document["evaluated"] + document["not_reached"] == CANDIDATES
    assert len(table) == CANDIDATES
    assert table["rank"].notna().sum() == document["evaluated"]
    assert document["winner"] is not None
    monkeypatch.undo()
    said = invoke(*words, "--resume")
    assert said.code == 0, said.err
    assert_frame_equal(read_table(tmp_path / "run"), read_table(tmp_path / "whole"))
    assert set(recorded_trainings(tmp_path / "run").values()) == {1}
    ours, theirs = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "whole"))
    assert [ours[name] for name in ("top", "winner", "evaluated")] == [
        theirs[n] for n in ("top", "winner", "evaluated")
    ]


def test_a_budget_that_suffices_changes_nothing(tmp_path: Path):
    space = write_space(tmp_path)
    for name, words in (("plain", []), ("rich", ["--time-budget", "60"])):
        assert invoke(*search_words(space, tmp_path / name, *words)).code == 0
    assert_frame_equal(read_table(tmp_path / "rich"), read_table(tmp_path / "plain"))


def ranked_table(campaign: Campaign, study: Study, repeats: int = 1) -> pd.DataFrame:
    costs, finalists = costs_of(campaign.candidates), campaign.finalists
    table = results_table(
        campaign.candidates, costs, study, campaign.ranking, finalists=finalists, choices=CHOICES, repeats=repeats
    )
    return table[table["rank"].notna()]


def test_where_some_repeats_of_a_rung_are_missing_the_table_has_the_scores_that_ranked():
    in_part = 0
    for after in range(2 * FIRST, 2 * FIRST + 8):
        trainer, asked = Trainer(), replace(SETTINGS, repeats=2)
        budget = Ends(trainer, after)
        campaign, study = campaign_of(InMemoryStorage(), settings=asked, progress=Listener(), budget=budget)
        run_shuffled(campaign, trainer, random.Random(after), 1)
        table = ranked_table(campaign, study, 2)
        keys = [table["proxy_epochs"] * -1, table["proxy_accuracy"] * -1, table["proxy_cross_entropy"]]
        assert list(zip(*keys, strict=True)) == sorted(zip(*keys, strict=True))
        on_proxy = [key[:3] for key in study.measurements if key[1] == PROXY]
        in_part += any(on_proxy.count(key) == 1 for key in on_proxy)
        top = summarise(campaign, table, study)["top"]
        assert [entry["proxy_accuracy"] for entry in top] == table["proxy_accuracy"][:2].tolist()
    assert in_part


def test_the_agreement_is_of_the_order_of_finalists_that_trained_for_different_times():
    differ = 0
    for after in range(FIRST + 1, FIRST + 6):
        trainer, asked = Trainer(), replace(SETTINGS, top_k=8)
        budget = Ends(trainer, after)
        campaign, study = campaign_of(InMemoryStorage(), settings=asked, progress=Listener(), budget=budget)
        run_shuffled(campaign, trainer, random.Random(0), 1)
        table = ranked_table(campaign, study)
        finalists = table[table["whole_accuracy"].notna()]
        assert finalists["proxy_epochs"].nunique() == 2
        order, whole = 10 * finalists["proxy_epochs"] + finalists["proxy_accuracy"], finalists["whole_accuracy"]
        rho = summarise(campaign, table, study)["agreement"]["rho"]
        assert rho == pytest.approx(order.corr(whole, method="spearman"))
        differ += rho != pytest.approx(finalists["proxy_accuracy"].corr(whole, method="spearman"))
    assert differ


def test_candidates_of_a_cut_rung_are_not_closed():
    trainer, storage = Trainer(), InMemoryStorage()
    campaign, study = campaign_of(storage, progress=Listener(), budget=Ends(trainer, 10))
    run_shuffled(campaign, trainer, random.Random(0), 1)
    assert set(study.states.values()) == {TrialState.RUNNING}
    assert Candidate.of({"n": 0}) in campaign.candidates


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_asynchronous_halving_is_cut_too_and_goes_on(scheduler: str):
    trainer, storage = Trainer(failing={3}), InMemoryStorage()
    asynchronous = replace(SETTINGS, scheduler=scheduler)
    campaign, study = campaign_of(storage, settings=asynchronous, progress=Listener(), budget=Ends(trainer, 10))
    run_shuffled(campaign, trainer, random.Random(0), 2)
    measured = {name for name, data, *_ in study.measurements if data == PROXY}
    assert campaign.cut_short
    assert 10 <= len(measured) < 40
    assert {candidate.id for candidate in campaign.ranking} == measured - {Candidate.of({"n": 3}).id}
    assert campaign.finalists == campaign.ranking[:2]
    resumed, study = campaign_of(storage, settings=asynchronous)
    run_shuffled(resumed, trainer, random.Random(0), 2)
    assert len(resumed.ranking) == 39
    assert set(trainer.trained.values()) == {1}


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_asynchronous_halving_keeps_back_the_finalists_time_too_where_hardly_any_training_is_in_full(scheduler: str):
    budget, full = Seconds(10_000.0), 0
    campaign, _ = campaign_of(
        InMemoryStorage(), made(16), settings=replace(SETTINGS, scheduler=scheduler), progress=Listener(), budget=budget
    )
    while not campaign.rungs or not campaign.ranking:
        for task in campaign.next_bundle(workers=1):
            scores: list[Score] = []
            for epoch in (*task.evaluate_at, task.epochs):
                scores.append(Score(epoch, 1 / (1 + task.candidate.config["n"]), 0.0))
                unfinished = epoch < task.epochs
                if not campaign.record(Outcome(task, tuple(scores), float(epoch), unfinished=unfinished)):
                    full += not unfinished
                    break
    assert full < 8  # as many as predictions in seconds take
    assert budget.reserved > 0
