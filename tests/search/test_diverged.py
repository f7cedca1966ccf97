"""Candidates whose training leaves the finite numbers: a result, ranked behind all that work."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from test_campaign import (
    CHOICES,
    RUNGS,
    SETTINGS,
    Trainer,
    campaign_of,
    costs_of,
    made,
    run_plainly,
)
from tiny_search import invoke, search_words, write_space

from nasproxy.search.campaign import Campaign
from nasproxy.search.halving import PRUNERS, pruning_levels
from nasproxy.search.proposals import Proposals
from nasproxy.search.results import results_table
from nasproxy.search.study import Study
from nasproxy.search.task import PROXY, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.train import Score

SPACE = '''
import torch
from torch import nn

from nasproxy import SearchSpace


class Fate(nn.Module):
    """Leaves the finite numbers after so many steps of training."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.done = steps, 0

    def forward(self, images):
        self.done += self.training and torch.is_grad_enabled()
        return images * float("nan") if self.done > self.steps else images


class Fated(SearchSpace):
    name = "fated"
    choices = {"steps": [0, 1, 10**9], "width": [2, 4, 8, 16]}

    def build(self, config, *, in_channels, num_classes, image_size):
        return nn.Sequential(
            Fate(config["steps"]), nn.Flatten(), nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes)
        )
'''
"""Four networks diverge in their first epoch, four in their second unless they are stopped before, four never."""

EPOCHS, FINALISTS = 8, 5


def numbers(candidates: list[Candidate]) -> list[object]:
    return [candidate.config["n"] for candidate in candidates]


class Late(Trainer):
    """Some diverge in the later rungs alone, some already in the first."""

    late: frozenset[int] = frozenset()

    def perform(self, task: Task) -> Outcome:
        if task.data == PROXY and task.epochs > RUNGS[0].epochs and task.candidate.config["n"] in self.late:
            self.trained[task.key] += 1
            return Outcome(task, (Score(task.epochs, 0.0, math.inf),), 0.0)
        return super().perform(task)


def test_one_that_diverges_in_a_later_rung_comes_after_all_that_were_cut_before():
    calm, _ = campaign_of(InMemoryStorage())
    run_plainly(calm, Trainer())
    order = numbers(calm.ranking)
    after = RUNGS[1].candidates
    working, early = order[0], set(order[-3:])
    trainer = Late(diverging=early)
    trainer.late = frozenset(order[1:after])
    campaign, _ = campaign_of(InMemoryStorage())
    run_plainly(campaign, trainer)
    found = numbers(campaign.ranking)
    assert found[0] == working
    assert set(found[1 : 40 - 3 - (after - 1)]) == set(order[after:]) - early
    assert set(found[-3 - (after - 1) : -3]) == trainer.late
    assert set(found[-3:]) == early
    assert numbers(campaign.finalists) == found[:2]


def test_where_nothing_else_is_left_it_becomes_a_finalist():
    campaign, _ = campaign_of(InMemoryStorage())
    run_plainly(campaign, Trainer(failing=set(range(2, 40)), diverging={1}))
    assert numbers(campaign.finalists) == [0, 1]


def test_one_of_whose_repeats_diverges_has_the_score_that_ranked_it():
    class Half(Trainer):
        def perform(self, task: Task) -> Outcome:
            wild = task.repeat == 1 and task.candidate.config["n"] == 5
            return Outcome(task, (Score(task.epochs, 0.0, math.inf),), 0.0) if wild else super().perform(task)

    campaign, study = campaign_of(InMemoryStorage(), settings=replace(SETTINGS, scheduler="none", repeats=2))
    run_plainly(campaign, Half())
    table = results_table(campaign.candidates, costs_of(campaign.candidates), study, campaign.ranking, repeats=2)
    last = table.iloc[-1]
    assert (last["params_n"], last["diverged"], last["proxy_accuracy"]) == (5, True, 0.0)
    assert study.measurements[str(last["id"]), PROXY, 100, 0].scores[-1].accuracy > 0


BOTH = replace(SETTINGS, objectives=("accuracy", "multiply-adds"))
SMALLEST = {n for n in range(40) if n % 7 == 0}


def table_of(campaign: Campaign, study: Study) -> pd.DataFrame:
    candidates = campaign.candidates
    return results_table(
        candidates, costs_of(candidates), study, campaign.ranking, BOTH.objectives, campaign.finalists, CHOICES
    )


def test_however_small_it_is_it_stands_on_no_front():
    for scheduler in ("none", "halving"):
        campaign, study = campaign_of(InMemoryStorage(), settings=replace(BOTH, scheduler=scheduler))
        trainer = Trainer(diverging=SMALLEST)
        run_plainly(campaign, trainer)
        assert {*numbers(campaign.ranking[-len(SMALLEST) :])} == SMALLEST
        table = table_of(campaign, study)
        assert table["pareto"].any()
        assert not table.loc[table["diverged"], "pareto"].any()
    assert not any(epochs > RUNGS[0].epochs and name in ids(SMALLEST) for name, _, epochs, _ in trainer.trained)


def ids(chosen: set[int]) -> set[str]:
    return {candidate.id for candidate in made() if candidate.config["n"] in chosen}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_of_several_objectives_is_told_the_worst(sampler: str):
    asked = replace(BOTH, scheduler="none", sampler=sampler, trials=25)
    proposals = Proposals(sampler, made(), CHOICES, asked.objectives, seed=0)
    campaign, study = campaign_of(InMemoryStorage(), settings=asked, proposals=proposals)
    run_plainly(campaign, Trainer(diverging=SMALLEST))
    trials = proposals._study.get_trials(states=[TrialState.COMPLETE])
    told = {trial.params["n"]: trial.values for trial in trials}  # noqa: PD011
    assert len(told) == 25
    assert all((values == [0.0, math.inf]) == (n in SMALLEST) for n, values in told.items())
    table = table_of(campaign, study)
    assert table["diverged"].tolist() == sorted(table["diverged"])


@pytest.fixture(scope="module", params=PRUNERS)
def asynchronous(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, pd.DataFrame]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    more = ["--scheduler", request.param, "--epochs", str(EPOCHS), "--top-k", str(FINALISTS), "--calibrate", "12"]
    said = invoke(*search_words(write_space(folder, SPACE), folder / "run", *more, "--json"))
    assert said.code == 0, said.err
    return said.json, pd.read_csv(folder / "run" / "results.csv")


def test_with_asynchronous_halving_those_that_were_stopped_come_before(asynchronous: tuple[dict, pd.DataFrame]):
    summary, table = asynchronous
    assert table["rank"].tolist() == list(range(1, 13))
    assert table["diverged"].tolist() == sorted(table["diverged"])
    assert {0, 1} == {*table.loc[table["diverged"], "params_steps"]}
    assert "pruned" in table.loc[~table["diverged"], "state"].tolist()
    assert (table["state"] == "complete").sum() > (table["state"] == "complete")[:FINALISTS].sum()
    assert [entry["id"] for entry in summary["top"]] == table["id"][:FINALISTS].tolist()
    assert not table["diverged"][:FINALISTS].any()


def test_it_counts_in_the_rungs_that_it_came_to(asynchronous: tuple[dict, pd.DataFrame]):
    summary, table = asynchronous
    came = table["proxy_epochs"].where(~table["diverged"])
    levels = [*pruning_levels(EPOCHS), EPOCHS]
    for steps in (0, 1):
        came[table["diverged"] & (table["params_steps"] == steps)] = levels[steps]
    counted = {rung["epochs"]: rung["candidates"] for rung in summary["rungs"]}
    assert counted == {level: int((came >= level).sum()) for level in levels}


def test_the_calibration_takes_it_for_the_last(asynchronous: tuple[dict, pd.DataFrame]):
    summary, table = asynchronous
    accuracies = {entry["id"]: entry["whole_accuracy"] for entry in summary["calibration"]["sample"]}
    order = (table["proxy_epochs"] + table["proxy_accuracy"]).where(~table["diverged"], 0.0)
    whole = table["id"].map(accuracies)
    assert summary["calibration"]["rho"] == pytest.approx(order.corr(whole, method="spearman"))
