"""The effect of each choice against the same counted row by row."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import CHOICES, make_run

from nasproxy.analysis.effects import best_count, choice_effects
from nasproxy.analysis.report_tables import effect_table
from nasproxy.analysis.results import load_run

VALUES = {"a": ["x", "y", "z"], "b": ["1", "2"]}


@st.composite
def tables(draw):
    """Some candidates of a space of six, each with its accuracy and epochs."""
    kept = draw(st.lists(st.sampled_from(list(itertools.product(*VALUES.values()))), unique=True, min_size=2))
    rows = [
        {"params_a": a, "params_b": b, "proxy_accuracy": draw(st.sampled_from([0.25, 0.5, 0.75, None])),
         "proxy_epochs": draw(st.sampled_from([4, 8]))}
        for a, b in kept
    ]  # fmt: skip
    rows.sort(key=lambda row: -(row["proxy_accuracy"] or 0))
    table = pd.DataFrame([{**row, "rank": rank} for rank, row in enumerate(rows, 1)])
    for name, values in VALUES.items():
        table[f"params_{name}"] = pd.Categorical(table[f"params_{name}"], values, ordered=True)
    table["proxy_accuracy"] = table["proxy_accuracy"].astype("float64")
    table[["rank", "proxy_epochs"]] = table[["rank", "proxy_epochs"]].astype("Int64")
    return table


@settings(max_examples=25, deadline=None)
@given(tables())
def test_against_counting(table):
    rows = [row for row in table.to_dict("records") if row["proxy_accuracy"] == row["proxy_accuracy"]]
    best = sorted(rows, key=lambda row: row["rank"])[: best_count(table)]
    effects = choice_effects(table)
    assert {effect.name for effect in effects} == {
        name for name in VALUES if len({row[f"params_{name}"] for row in rows}) > 1
    }
    for effect in effects:
        column, other = f"params_{effect.name}", f"params_{'b' if effect.name == 'a' else 'a'}"
        for value in effect.ranked:
            own = [row for row in rows if row[column] == value.value]
            accuracies = [row["proxy_accuracy"] for row in own]
            assert value.candidates == len(own)
            assert value.mean_rank == pytest.approx(statistics.mean(row["rank"] for row in own))
            assert value.mean == pytest.approx(statistics.mean(accuracies))
            assert value.best == max(accuracies)
            assert value.deviation == (pytest.approx(statistics.stdev(accuracies)) if len(own) > 1 else None)
            assert value.among_best == sum(row[column] == value.value for row in best)
        assert [v.mean_rank for v in effect.ranked] == sorted(v.mean_rank for v in effect.ranked)
        first, second = (value.value for value in effect.ranked[:2])
        gaps = [
            one["proxy_accuracy"] - two["proxy_accuracy"]
            for one in rows
            for two in rows
            if (one[column], two[column]) == (first, second)
            and (one[other], one["proxy_epochs"]) == (two[other], two["proxy_epochs"])
        ]
        if not gaps:
            assert effect.difference is None
            continue
        assert effect.difference is not None
        assert effect.difference.pairs == len(gaps)
        assert effect.difference.mean == pytest.approx(statistics.mean(gaps))
        assert effect.difference.deviation == (pytest.approx(statistics.stdev(gaps)) if len(gaps) > 1 else None)
        assert effect.difference.won == pytest.approx(sum((g > 0) + (g == 0) / 2 for g in gaps) / len(gaps))


def test_the_choice_that_explains_most_comes_first_and_is_told_in_words(tmp_path):
    table = load_run(make_run(tmp_path / "run", choices=CHOICES)).table
    effects = choice_effects(table)
    assert [effect.name for effect in effects][:3] == ["depth", "norm", "width"]
    shown = effect_table(effects[1], best_count(table))
    assert shown["verdict"].startswith("norm group ranks best on average, then norm instance.")
    assert "pairs of candidates that differ in nothing else" in shown["verdict"]
    assert [row[0].text for row in shown["table"].rows] == ["group", "instance", "layer", "batch", "none"]
    assert sum(int(row[-1].text) for row in shown["table"].rows) == 72


def test_values_that_rank_alike_are_not_put_in_an_order(tmp_path):
    table = load_run(make_run(tmp_path / "run", choices=CHOICES)).table
    (effect,) = [effect for effect in choice_effects(table) if effect.name == "norm"]
    first, second, *others = effect.ranked
    tied = replace(effect, ranked=(first, replace(second, mean_rank=first.mean_rank), *others))
    verdict = effect_table(tied, best_count(table))["verdict"]
    assert verdict.startswith("norm group and norm instance rank alike on average. The choice explains ")


def test_where_each_value_has_one_candidate_no_share_is_told(tmp_path):
    table = load_run(make_run(tmp_path / "run", choices=CHOICES)).table
    one_each = table.dropna(subset=["proxy_accuracy"]).drop_duplicates("params_norm")
    effects = choice_effects(one_each)
    (effect,) = [effect for effect in effects if effect.name == "norm"]
    assert effect.explained is None
    verdict = effect_table(effect, best_count(one_each))["verdict"]
    assert "Its values have too few candidates to say how much" in verdict
    assert "explains 1" not in verdict
    assert [e.explained or 0 for e in effects] == sorted((e.explained or 0 for e in effects), reverse=True)
