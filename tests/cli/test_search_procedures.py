"""Searches by procedures: early stopping and the ground truth from the command line to the winner."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_search import CANDIDATES, FINALISTS, invoke, read_table, recorded_trainings, search_words, write_space

from nasproxy.errors import DatasetError
from nasproxy.search.bench import Payload
from nasproxy.search.plan import make_plan
from nasproxy.search.run import payload_of
from nasproxy.search.settings import SearchSettings
from nasproxy.search.task import PROXY, WHOLE


def words_of(folder: Path, proxy: str, *more: str) -> list[str]:
    words = search_words(write_space(folder), folder / "run", *more)
    words[words.index("--proxy") + 1] = proxy
    return words


@pytest.mark.parametrize("proxy", ["early-stopping", "early-stopping-subset"])
def test_a_search_by_early_stopping_ends_with_a_winner(tmp_path, proxy):
    said = invoke(*words_of(tmp_path, proxy, "--scheduler", "none"), "--json")
    assert said.code == 0, said.err
    assert said.json["proxy"] == proxy
    assert said.json["evaluated"] == CANDIDATES
    assert said.json["winner"]["test_accuracy"] is not None
    run = tmp_path / "run"
    assert (run / "winner" / "classify.py").exists()
    assert "ranked on the proxy " + proxy in (run / "report.html").read_text()
    assert not (run / "proxy.safetensors").exists()
    assert read_table(run)["proxy_accuracy"].nunique() > 1
    again = invoke(*words_of(tmp_path, proxy, "--scheduler", "none", "--resume"), "--json")
    assert again.json["top"] == said.json["top"]


def test_a_search_by_the_ground_truth_trains_all_as_finalists_are(tmp_path):
    words = words_of(tmp_path, "whole", "--scheduler", "none")
    words[words.index("--finalist-epochs") + 1] = "2"
    said = invoke(*words, "--json")
    assert said.code == 0, said.err
    recorded = recorded_trainings(tmp_path / "run")
    kinds = [kind for _, kind in recorded]
    assert kinds.count("proxy:2:0") == CANDIDATES
    assert kinds.count("whole:2:0") == FINALISTS


def test_halving_and_the_estimate_of_time_know_early_stopping(tmp_path):
    found = invoke(*words_of(tmp_path, "early-stopping", "--dry-run"), "--json").json
    assert found["seconds"]["condense"] == 0
    assert found["seconds"]["search"] > 0
    assert invoke(*words_of(tmp_path, "early-stopping")).code == 0
    assert not (tmp_path / "run" / "proxy.safetensors").exists()


def test_the_whole_data_are_sent_to_a_worker_once(tmp_path):
    settings = SearchSettings(proxy="early-stopping", space=str(write_space(tmp_path)), executor="inline")
    plan = make_plan(settings, resume=False)
    assert plan.procedure is not None
    payload: Payload = payload_of(plan, plan.procedure.images(plan.dataset, seed=0))
    assert payload.splits[PROXY] is payload.splits[WHOLE]


@pytest.mark.parametrize("proxy", ["whole", "early-stopping", "early-stopping-subset"])
def test_what_makes_no_images_takes_classes_of_any_size(tmp_path, proxy):
    few = {"space": str(write_space(tmp_path)), "executor": "inline", "ipc": 2000}
    assert make_plan(SearchSettings(proxy=proxy, **few), resume=False).procedure is not None
    with pytest.raises(DatasetError, match="2000 images per class were asked for"):
        make_plan(SearchSettings(proxy="random", **few), resume=False)


def test_no_images_of_a_procedure_can_be_condensed(folder):
    said = invoke("condense", "--method", "early-stopping")
    assert said.code == 2
    assert "early-stopping" in said.err
