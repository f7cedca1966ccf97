"""Whole searches in this process; where a process of its own matters, see test_survival and test_executors."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sqlite3
import subprocess
import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_search import (
    CANDIDATES,
    FINALISTS,
    RUNGS,
    SPACE,
    TIMES,
    TRAININGS,
    invoke,
    journal_lines,
    read_table,
    recorded_trainings,
    register_space,
    search_words,
    write_space,
)

from nasproxy.analysis.results import load_run
from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import BudgetError, InputError, RunError, SpaceError
from nasproxy.progress import Silent
from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.search import costs
from nasproxy.search import run as module
from nasproxy.search.dry_run import dry_run
from nasproxy.search.plan import make_plan
from nasproxy.search.run import SearchResult, kept_proxy, run_search
from nasproxy.search.run_directory import open_run
from nasproxy.search.settings import SearchSettings
from nasproxy.search.stopwatch import Stopwatch
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.known import space_of_run, text_digest
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import SearchSpace


def settings_of(folder: Path, name: str = "run", text: str = SPACE, **changed: Any) -> SearchSettings:
    facts: dict[str, Any] = {
        "space": str(write_space(folder, text)),
        "proxy": "random",
        "ipc": 2,
        "epochs": 4,
        "finalist_epochs": 1,
        "top_k": 2,
        "executor": "inline",
        "out": folder / name,
    }
    return SearchSettings(**{**facts, **changed})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return run_search(settings_of(tmp_path_factory.mktemp("finished")))


def test_what_making_the_proxy_took_is_given_back_before_workers_want_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given_back: list[torch.device] = []
    monkeypatch.setattr(module, "release_memory", given_back.append)
    plan, stopwatch = make_plan(settings_of(tmp_path), resume=False), Stopwatch(tmp_path / "seconds.json", 0.0)
    plan.directory.mkdir()
    kept_proxy(plan, Silent(), stopwatch)
    assert given_back == [plan.device]
    kept_proxy(plan, Silent(), stopwatch)  # read from its file
    assert len(given_back) == 1


def test_results_are_shown_in_a_few_lines_with_the_winner(finished: SearchResult):
    winner = finished.summary["winner"]
    for result in (finished, load_run(finished.directory)):
        lines = repr(result).splitlines()
        assert len(lines) == 2
        assert max(map(len, lines)) < 250
        for said in (str(finished.directory), "tiny on digits by random", "12 candidates"):
            assert said in lines[0]
        for said in (winner["id"], f"width={winner['config']['width']}", "test accuracy"):
            assert said in lines[1]
    unfinished = replace(load_run(finished.directory), summary={})
    assert repr(unfinished).endswith("12 candidates\n  unfinished)")
    assert "no winner" in repr(replace(finished, summary={**finished.summary, "winner": None}))


class Held(Silent):
    """Keeps the search waiting in its first stage, and then may interrupt it."""

    def __init__(self, interrupts: bool = False) -> None:
        self.within, self.go_on, self.interrupts = threading.Event(), threading.Event(), interrupts

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        self.within.set()
        assert self.go_on.wait(60)
        if self.interrupts:
            raise KeyboardInterrupt


def test_another_thread_is_refused_until_the_search_has_ended(tmp_path: Path, finished: SearchResult):
    flags, ended = (torch.get_num_threads(), torch.backends.cudnn.deterministic), []
    for interrupts in (True, False):
        held = Held(interrupts)

        def search(held: Held = held) -> None:
            try:
                ended.append(run_search(settings_of(tmp_path, f"first{held.interrupts}"), progress=held))
            except KeyboardInterrupt as error:
                ended.append(error)

        first = threading.Thread(target=search)
        first.start()
        assert held.within.wait(60)
        with pytest.raises(RunError, match=r"Another thread .* use another process"):
            run_search(settings_of(tmp_path, "second"))
        assert not (tmp_path / "second").exists()
        held.go_on.set()
        first.join()
    assert isinstance(ended[0], KeyboardInterrupt)
    for result in (ended[1], run_search(settings_of(tmp_path, "second"))):
        assert_frame_equal(result.table.drop(columns=TIMES), finished.table.drop(columns=TIMES))
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic) == flags


def test_the_summary_is_the_promised_document(finished: SearchResult):
    summary = finished.summary
    assert json.loads((finished.directory / "summary.json").read_text()) == summary
    promised = ["schema", "space", "dataset", "proxy", "candidates", "evaluated", "diverged", "failed", "top", "winner"]
    assert [name for name in summary if name in promised] == promised
    assert (summary["schema"], summary["space"], summary["dataset"], summary["proxy"]) == (
        1,
        "tiny",
        "digits",
        "random",
    )
    assert (summary["candidates"], summary["evaluated"], summary["diverged"], summary["failed"]) == (
        CANDIDATES,
        CANDIDATES,
        0,
        0,
    )
    keys = ["rank", "id", "config", "proxy_accuracy", "whole_accuracy", "test_accuracy", "parameters", "multiply_adds"]
    assert [list(entry) for entry in summary["top"]] == [keys] * FINALISTS
    assert [entry["rank"] for entry in summary["top"]] == [1, 2]
    assert list(summary["seconds"]) == ["condense", "search", "finalists", "total"]
    assert all(seconds >= 0 for seconds in summary["seconds"].values())
    assert summary["run"] == str(finished.directory)
    assert [(rung["epochs"], rung["candidates"]) for rung in summary["rungs"]] == [
        (rung.epochs, rung.candidates) for rung in RUNGS
    ]


def test_the_winner_is_the_finalist_with_the_highest_whole_accuracy(finished: SearchResult):
    top, winner = finished.summary["top"], finished.summary["winner"]
    assert winner in top
    assert winner["whole_accuracy"] == max(entry["whole_accuracy"] for entry in top)
    weights = load_file(finished.directory / "winner" / "weights.safetensors")
    kept = load_file(finished.directory / "finalists" / f"{winner['id']}-0.safetensors")
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


ALWAYS_THE_FIRST = """
import torch
from torch import nn

from nasproxy import SearchSpace


class First(nn.Linear):
    def forward(self, features):
        return 0 * super().forward(features) + torch.eye(self.out_features)[0] * 20 / self.in_features


class Alike(SearchSpace):
    name = "alike"
    choices = {"width": [2, 4, 8]}

    def build(self, config, *, in_channels, num_classes, image_size):
        hidden = nn.Linear(image_size[0] * image_size[1] * in_channels, config["width"])
        return nn.Sequential(nn.Flatten(), hidden, First(config["width"], num_classes))
"""
"""All networks say the first class; the larger they are, the less sure of it."""


@pytest.mark.parametrize(("objectives", "width"), [(("accuracy",), 8), (("accuracy", "parameters"), 2)])
def test_with_several_objectives_ties_on_the_whole_data_go_to_the_better_in_the_others(
    tmp_path: Path, objectives: tuple[str, ...], width: int
):
    found = run_search(settings_of(tmp_path, text=ALWAYS_THE_FIRST, objectives=objectives, top_k=3)).summary
    assert len({entry["whole_accuracy"] for entry in found["top"]}) == 1
    assert found["winner"]["config"] == {"width": width}


def test_the_table_has_a_row_for_each_candidate_best_first(finished: SearchResult):
    table = finished.table
    kept = read_table(finished.directory).drop(columns="reason")
    assert_frame_equal(kept, table[kept.columns], check_dtype=False)
    assert list(table["rank"]) == list(range(1, CANDIDATES + 1))
    full = RUNGS[-1].candidates
    assert list(table["state"]) == ["complete"] * full + ["pruned"] * (CANDIDATES - full)
    done = 0
    for rung in reversed(RUNGS):
        part, done = table[done : rung.candidates], rung.candidates
        assert set(part["proxy_epochs"]) == {rung.epochs}
        order = part.sort_values(["proxy_accuracy", "proxy_cross_entropy"], ascending=[False, True])
        assert list(order["id"]) == list(part["id"])
    assert done == CANDIDATES
    for row in table.to_dict("records"):
        config = {"width": row["params_width"], "activation": row["params_activation"]}
        assert Candidate.of(config).id == row["id"]
        width = row["params_width"]
        assert row["parameters"] == 256 * width + width + width * 10 + 10
        assert row["multiply_adds"] == 256 * width + width * 10
        assert row["proxy_accuracy"] in {n / 400 for n in range(401)}
    assert table["whole_accuracy"].notna().sum() == FINALISTS
    assert table.loc[table["whole_accuracy"].notna(), "rank"].tolist() == [1, 2]
    assert table["reason"].isna().all()


def test_the_directory_holds_what_is_promised(finished: SearchResult):
    names = {path.name for path in finished.directory.iterdir()} - {".lock"}
    assert names == {
        "run.json", "proxy.safetensors", "study.log", "seconds.json", "results.csv", "summary.json", "report.html",
        "finalists", "winner",
    }  # fmt: skip
    assert load_proxy(finished.directory / "proxy.safetensors").method == "random"
    facts = json.loads((finished.directory / "run.json").read_text())
    assert facts["settings"]["preset"] == "quick"
    assert facts["identity"]["scheduler"] == "halving"
    assert facts["dataset"]["image_size"] == [16, 16]
    assert facts["space"]["size"] == CANDIDATES
    assert "torch" in facts["versions"]


def test_each_training_is_done_once(finished: SearchResult):
    trained = recorded_trainings(finished.directory)
    assert len(trained) == TRAININGS
    assert set(trained.values()) == {1}


def test_a_finished_run_is_resumed_without_training(finished: SearchResult):
    before, lines = read_table(finished.directory), len(journal_lines(finished.directory))
    files = {path: path.read_bytes() for path in finished.directory.rglob("*") if path.is_file()}
    again = run_search(settings_of(finished.directory.parent), resume=True)
    assert recorded_trainings(finished.directory).total() == TRAININGS
    assert len(journal_lines(finished.directory)) < lines + CANDIDATES
    assert_frame_equal(read_table(finished.directory), before)
    assert again.summary == finished.summary
    assert {path: path.read_bytes() for path in files if path.name != "study.log"} == {
        path: content for path, content in files.items() if path.name != "study.log"
    }


def test_the_same_settings_give_the_same_scores_another_seed_others(finished: SearchResult, tmp_path: Path):
    same = run_search(settings_of(tmp_path, "same"))
    other = run_search(settings_of(tmp_path, "other", seed=1))
    assert_frame_equal(read_table(same.directory), read_table(finished.directory))
    ours, theirs = (table.set_index("id")["proxy_cross_entropy"] for table in (same.table, other.table))
    assert not (ours.sort_index() == theirs.sort_index()).any()


def test_scores_do_not_depend_on_who_else_takes_part(finished: SearchResult, tmp_path: Path):
    few = run_search(settings_of(tmp_path, limit=10, scheduler="none"))
    assert len(few.table) == few.summary["candidates"] == 10
    full = finished.table[finished.table["state"] == "complete"]
    both = few.table.merge(full, on="id")
    assert len(both) > 0
    assert list(both["proxy_cross_entropy_x"]) == list(both["proxy_cross_entropy_y"])


def test_a_limit_on_size_leaves_fewer_of_the_sample(tmp_path: Path):
    sample = run_search(settings_of(tmp_path, "sample", limit=8)).table
    sifted = run_search(settings_of(tmp_path, "sifted", limit=8, max_parameters=2000)).table
    small = sample[sample["parameters"] <= 2000]
    assert 2 < len(small) < 8
    assert set(sifted["id"]) == set(small["id"])


def test_a_proxy_file_takes_the_place_of_a_named_proxy(finished: SearchResult, tmp_path: Path):
    file = save_proxy(random_proxy(load_dataset("digits"), 2, seed=0), tmp_path / "mine.safetensors")
    found = run_search(settings_of(tmp_path, proxy=str(file)))
    assert_frame_equal(read_table(found.directory), read_table(finished.directory))
    assert found.summary["proxy"] == str(file)
    changed = save_proxy(random_proxy(load_dataset("digits"), 2, seed=1), tmp_path / "mine.safetensors")
    with pytest.raises(RunError, match="proxy_fingerprint"):
        run_search(settings_of(tmp_path, proxy=str(changed)), resume=True)


def test_repeats_are_averaged(tmp_path: Path):
    found = run_search(settings_of(tmp_path, limit=3, repeats=2, scheduler="none", top_k=1))
    assert recorded_trainings(found.directory).total() == 3 * 2 + 2
    study = optuna.load_study(
        study_name="nasproxy",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(found.directory / "study.log"))
        ),
    )
    accuracies = found.table.set_index("id")["proxy_accuracy"]
    for trial in study.trials:
        single = [trial.user_attrs[f"proxy:4:{repeat}"]["scores"][-1][1] for repeat in (0, 1)]
        assert accuracies[trial.user_attrs["id"]] == pytest.approx(sum(single) / 2)
        assert trial.value == pytest.approx(sum(single) / 2)
    assert len(list((found.directory / "finalists").iterdir())) == 2


def test_a_database_serves_as_well_as_the_journal(finished: SearchResult, tmp_path: Path):
    address = f"sqlite:///{tmp_path}/study.db"
    found = run_search(settings_of(tmp_path, storage=address))
    assert_frame_equal(read_table(found.directory), read_table(finished.directory))
    assert not (found.directory / "study.log").exists()
    (name,) = optuna.get_all_study_names(address)
    assert len(optuna.load_study(study_name=name, storage=address).trials) == CANDIDATES
    again = run_search(settings_of(tmp_path, storage=address), resume=True)
    assert_frame_equal(read_table(again.directory), read_table(finished.directory))


def test_runs_of_one_name_do_not_mix_in_a_shared_database(tmp_path: Path):
    address = f"sqlite:///{tmp_path}/study.db"
    run_search(settings_of(tmp_path / "a", storage=address))
    try:
        second = run_search(settings_of(tmp_path / "b", storage=address, seed=1))
    except InputError:
        return  # refusing is as good
    alone = run_search(settings_of(tmp_path / "c", seed=1))
    assert_frame_equal(read_table(second.directory), read_table(alone.directory))


def test_a_run_that_has_no_results_yet_takes_none_from_another_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    few = DistributionRecipe(ipc=2, iterations=4, real_batch=4, width=4, depth=1)
    monkeypatch.setattr(DistributionRecipe, "preset", lambda preset, ipc: few)
    address = f"sqlite:///{tmp_path}/study.db"
    first = settings_of(tmp_path / "a", storage=address, proxy="dm", time_budget=1e-9)
    with pytest.raises(BudgetError):
        run_search(first)
    second = run_search(settings_of(tmp_path / "b", storage=address, seed=1))
    before = contents(tmp_path)
    for go_on in (run_search, dry_run):
        with pytest.raises(RunError, match="nasproxy-run in the storage is of another run") as caught:
            go_on(replace(first, time_budget=None), resume=True)
    assert contents(tmp_path) == before
    assert "another name" in caught.value.hint
    (tmp_path / "a" / "run").rename(tmp_path / "a" / "mine")
    found = run_search(replace(first, time_budget=None, out=tmp_path / "a" / "mine"), resume=True)
    alone = run_search(settings_of(tmp_path / "c", proxy="dm"))
    assert_frame_equal(read_table(found.directory), read_table(alone.directory))
    again = run_search(settings_of(tmp_path / "b", storage=address, seed=1), resume=True)
    assert again.summary == second.summary


def test_a_run_from_before_its_study_knew_it_is_gone_on_with(tmp_path: Path):
    settings = settings_of(tmp_path, storage=f"sqlite:///{tmp_path}/study.db", limit=2, top_k=1)
    first = run_search(settings)
    with sqlite3.connect(tmp_path / "study.db") as database:
        assert database.execute("DELETE FROM study_user_attributes WHERE key = 'run'").rowcount == 1
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    del facts["token"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    assert run_search(settings, resume=True).summary == first.summary


def test_a_run_begun_anew_in_a_shared_database_takes_nothing_from_the_one_before(tmp_path: Path):
    settings = settings_of(tmp_path, storage=f"sqlite:///{tmp_path}/study.db")
    run_search(settings)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match="holds a study nasproxy-run already"):
        run_search(settings)
    assert not (tmp_path / "run").exists()


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_in_a_database_is_not_begun_anew_without_it(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/study.db"
    run_search(settings_of(tmp_path, storage=storage))
    before = contents(tmp_path)
    for go_on in (run_search, dry_run):
        with pytest.raises(RunError, match=r"is in a database, sqlite:///.*study\.db") as caught:
            go_on(settings_of(tmp_path), resume=True)
        assert "--storage" in caught.value.hint
        with pytest.raises(RunError, match=r"holds no study nasproxy-run; the run in .* was begun with sqlite"):
            go_on(settings_of(tmp_path, storage=f"sqlite:///{tmp_path}/other.db"), resume=True)
    assert contents(tmp_path) == before


def test_a_run_with_a_journal_is_not_begun_anew_in_a_database(finished: SearchResult):
    folder = finished.directory.parent
    before = contents(folder)
    with pytest.raises(RunError, match=r"is its study\.log"):
        run_search(settings_of(folder, storage=f"sqlite:///{folder}/study.db"), resume=True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("lost", "left", "evidence"),
    [
        ("study.log", None, "results.csv"),
        ("study.log", b"", "finalists"),
        ("study.db", None, "finalists"),
        ("study.db", b"", "results.csv"),
    ],
)
def test_a_lost_study_of_a_run_that_has_had_results_is_an_error(
    tmp_path: Path, lost: str, left: bytes | None, evidence: str
):
    run = tmp_path / "run"
    study = run / "study.log" if lost == "study.log" else tmp_path / "study.db"
    settings = settings_of(tmp_path, storage=None if lost == "study.log" else f"sqlite:///{study}", limit=4)
    run_search(settings)
    study.unlink()
    if left is not None:
        study.write_bytes(left)
    shutil.rmtree(run / "finalists") if evidence == "results.csv" else (run / "results.csv").unlink()
    for go_on in (dry_run, run_search):
        with pytest.raises(RunError, match=f"missing or empty, but .*/{evidence} shows"):
            go_on(settings, resume=True)


def test_no_password_of_a_storage_is_kept(tmp_path: Path):
    secret = SearchSettings(storage="postgresql+psycopg2://me:secret@host/db?password=secret")
    assert secret.as_json()["storage"] == "postgresql+psycopg2://host/db"
    for password in ("se/cr/et", "s:e?c", "s@e", ""):
        secret = SearchSettings(storage=f"postgresql://me:{password}@host:5432/db")
        assert secret.as_json()["storage"] == "postgresql://host:5432/db"
    run_search(settings_of(tmp_path, storage=f"sqlite:///{tmp_path}/study.db?timeout=7", limit=2, top_k=1))
    text = (tmp_path / "run" / "run.json").read_text()
    assert f"sqlite:///{tmp_path}/study.db" in text
    assert "timeout=7" not in text


def test_configurations_that_make_no_sense_are_left_out_and_counted(tmp_path: Path):
    text = SPACE + (
        "\n    def is_valid(self, config, image_size):\n"
        "        return config['width'] != 16 or f'{image_size[0]} pixels are too few'\n"
    )
    notes: list[str] = []

    class Listening:
        def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None: ...
        def advance(self, headline: str = "", work: float = 1.0) -> None: ...
        def note(self, text: str) -> None:
            notes.append(text)

    found = run_search(settings_of(tmp_path, text=text), progress=Listening())
    assert found.summary["candidates"] == 9
    assert set(found.table["params_width"]) == {2, 4, 8}
    assert any(note.startswith("3 configurations make no sense") for note in notes)
    assert any(note.endswith("is_valid says of all of them: 16 pixels are too few.") for note in notes)


def test_the_most_frequent_reason_is_told(tmp_path: Path):
    text = SPACE + (
        "\n    def is_valid(self, config, image_size):\n"
        "        even = config['width'] == 2 or config['activation'] != 'tanh' or 'heads must divide dim'\n"
        "        return even if config['activation'] != 'relu' or config['width'] > 2 else False\n"
    )
    said = invoke(*search_words(write_space(tmp_path, text), tmp_path / "run"))
    assert "4 configurations make no sense and are left out; is_valid says of 3 of them" in said.err
    assert "more than for any other reason: heads must divide dim." in said.err
    assert "image size" not in said.err


@pytest.mark.parametrize("answer", ["np.bool_(config['width'] < 16)", "1", "''", "None"])
def test_a_space_that_answers_neither_yes_nor_no_is_refused(tmp_path: Path, answer: str):
    asked = f"\n    def is_valid(self, config, image_size):\n        return {answer}\n"
    with pytest.raises(SpaceError, match="instead of True, False or the reason why not"):
        run_search(settings_of(tmp_path, text="import numpy as np\n" + SPACE + asked))
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_network_that_ends_the_process_when_it_is_built_is_a_failed_candidate(tmp_path: Path):
    text = SPACE.replace("        activation = {", "        config['width'] == 16 and exit(3)\n        activation = {")
    found = run_search(settings_of(tmp_path, text=text))
    failed = found.table[found.table["state"] == "failed"]
    assert set(failed["params_width"]) == {16}
    assert len(failed) == found.summary["failed"] == 3
    assert all("SystemExit: 3" in reason for reason in failed["reason"])


def test_what_one_process_cannot_heed_is_said(tmp_path: Path):
    words = search_words(write_space(tmp_path), tmp_path / "run", "--limit", "2", "--top-k", "1")
    said = invoke(*words, "--workers", "4", "--gpus-per-worker", "2")
    assert said.code == 0
    assert "trains in this process alone; --workers 4 and --gpus-per-worker 2 make no difference." in said.err
    assert "in this process alone" not in invoke(*words, "--resume", "--workers", "1").err


HAZARDS = """
import torch
from torch import nn

from nasproxy import SearchSpace


class Hazard(nn.Module):
    def __init__(self, fate):
        super().__init__()
        self.fate = fate

    def forward(self, logits):
        if self.training and self.fate == "raise":
            raise RuntimeError("a broken dream")  # HERE
        if self.training and self.fate == "memory":
            raise torch.OutOfMemoryError("no memory for a dream")
        if self.training and self.fate == "shape":
            return logits[:, :3]
        return logits * 1e38 if self.fate == "diverge" else logits


class Hazards(SearchSpace):
    name = "hazards"
    choices = {"fate": FATES, "width": [2, 4]}

    def build(self, config, *, in_channels, num_classes, image_size):
        if config["fate"] == "build":
            raise ValueError("not this one")
        layers = nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes)
        return nn.Sequential(nn.Flatten(), *layers, Hazard(config["fate"]))
"""


def test_failures_and_divergences_are_counted_and_the_rest_goes_on(tmp_path: Path):
    fates = '["none", "raise", "memory", "shape", "diverge", "build"]'
    found = run_search(settings_of(tmp_path, text=HAZARDS.replace("FATES", fates), scheduler="none"))
    summary, table = found.summary, found.table
    assert (summary["candidates"], summary["evaluated"], summary["diverged"], summary["failed"]) == (12, 4, 2, 8)
    assert list(table["state"]) == ["complete"] * 4 + ["failed"] * 8
    assert list(table["params_fate"][:4]) == ["none", "none", "diverge", "diverge"]
    assert list(table["rank"][:4]) == [1, 2, 3, 4]
    assert table["rank"][4:].isna().all()
    rows = pd.read_csv(found.directory / "results.csv", dtype=str)
    for column in ("rank", "proxy_epochs"):  # integers also where some have none
        assert table[column].dtype == load_run(found.directory).table[column].dtype == "Int64"
        assert rows[column][:4].str.isdecimal().all()
    diverged = table[table["diverged"]]
    assert set(diverged["proxy_accuracy"]) == {0.0}
    assert diverged["proxy_cross_entropy"].isna().all()
    reasons = {fate: set(rows["reason"]) for fate, rows in table.groupby("params_fate")}
    line = next(n for n, text in enumerate(HAZARDS.splitlines(), 1) if text.endswith("# HERE"))
    assert reasons["raise"] == {f"RuntimeError: a broken dream (my_space.py:{line})"}
    assert all("no memory for a dream" in reason for reason in reasons["memory"])
    assert all("not this one (my_space.py:" in reason for reason in reasons["build"])
    assert all(math.isnan(reason) for reason in reasons["none"] | reasons["diverge"] if isinstance(reason, float))
    assert summary["winner"]["config"]["fate"] == "none"


def test_whatever_an_error_says_the_table_can_be_written_and_read(tmp_path: Path):
    said = "40\\r80\\r\\n, a file \\udcff, \\x00 and \\u2028"
    text = HAZARDS.replace("FATES", '["none", "raise"]').replace("a broken dream", said)
    found = run_search(settings_of(tmp_path, text=text, scheduler="none"))
    assert found.summary["failed"] == 2
    reasons = [reason for reason in load_run(found.directory).table["reason"] if reason]
    assert len(reasons) == 2
    assert all(reason.startswith("RuntimeError: 40") and "(my_space.py:" in reason for reason in reasons)


GLUTTONS = """
import pathlib
import torch
from torch import nn

from nasproxy import SearchSpace


class Glutton(nn.Module):
    def __init__(self, appetite):
        super().__init__()
        self.appetite = appetite

    def forward(self, logits):
        if self.training and self.appetite != "none":
            tries = pathlib.Path(__file__).with_name(self.appetite)
            first = not tries.exists()
            with tries.open("a") as file:
                file.write("x")
            if first or self.appetite == "always":
                torch.empty(2**60, dtype=torch.uint8)
        return logits


class Gluttons(SearchSpace):
    name = "gluttons"
    choices = {"appetite": ["none", "once", "always"]}

    def build(self, config, *, in_channels, num_classes, image_size):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes), Glutton(config["appetite"]))
"""


def test_a_training_that_lacked_memory_is_tried_a_second_time(tmp_path: Path):
    found = run_search(settings_of(tmp_path, text=GLUTTONS, scheduler="none", top_k=1))
    table = found.table.set_index("params_appetite")
    assert dict(table["state"]) == {"none": "complete", "once": "complete", "always": "failed"}
    assert "allocate memory" in table["reason"]["always"]
    assert (tmp_path / "always").read_text() == "xx"
    assert found.summary["failed"] == 1


def test_a_run_goes_on_whose_dataset_is_called_by_another_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("photos")
    asked = {"limit": 2, "top_k": 1, "dataset": "photos"}
    run_search(settings_of(tmp_path, **asked))
    for path in ("./photos", "photos/", str(tmp_path / "photos"), "link"):
        run_search(settings_of(tmp_path, **{**asked, "dataset": path}), resume=True)
    assert recorded_trainings(tmp_path / "run").total() == 3
    shutil.copytree(tmp_path / "photos", tmp_path / "others")
    (tmp_path / "others" / "a" / "0.png").unlink()
    with pytest.raises(RunError, match=r"dataset was 'photos', now 'others'; .*changed since"):
        run_search(settings_of(tmp_path, **{**asked, "dataset": "others"}), resume=True)


@pytest.mark.parametrize("fates", ['["raise"]', '["build"]', '["diverge"]'])
def test_a_space_without_a_single_good_network_comes_to_an_end(tmp_path: Path, fates: str):
    space = write_space(tmp_path, HAZARDS.replace("FATES", fates))
    said = invoke(*search_words(space, tmp_path / "run", "--json"))
    assert "Traceback" not in said.err
    document = said.json
    assert "error" not in document, document
    assert document["candidates"] == 2
    assert (tmp_path / "run" / "report.html").exists()
    if fates == '["diverge"]':
        assert (document["diverged"], document["failed"], document["winner"], said.code) == (2, 0, None, 1)
    else:
        assert (document["evaluated"], document["failed"], document["winner"], said.code) == (0, 2, None, 1)
    said = invoke(*search_words(space, tmp_path / "run", "--resume"))
    assert "Traceback" not in said.out + said.err
    assert said.code == 1


def test_a_finalist_of_which_one_repeat_failed_does_not_break_the_end(tmp_path: Path):
    space = settings_of(tmp_path).space
    unlucky = {candidate.seed(0, 0, "whole") for candidate in map(Candidate.of, SpaceSource.parse(space).load())}
    text = SPACE.replace("from torch import nn", "import torch\nfrom torch import nn").replace(
        "        if self.training:",
        f"        if self.training and torch.initial_seed() in {unlucky}:\n"
        '            raise RuntimeError("the first of two")\n'
        "        if self.training:",
    )
    found = run_search(settings_of(tmp_path, text=text, limit=3, repeats=2, scheduler="none"))
    winner = found.summary["winner"]
    assert set(found.table["state"]) == {"complete"}
    assert (winner is None) == found.table["whole_accuracy"].isna().all()
    assert (found.directory / "winner").exists() == (winner is not None)
    assert found.table["reason"].notna().sum() == FINALISTS


def test_of_several_repeats_one_that_did_not_diverge_is_handed_over(tmp_path: Path):
    settings = settings_of(tmp_path, limit=2, top_k=1, repeats=2, scheduler="none")
    run_search(settings)
    first, second = sorted((tmp_path / "run" / "finalists").iterdir())
    save_file({name: torch.full_like(value, math.nan) for name, value in load_file(first).items()}, first)
    shutil.rmtree(tmp_path / "run" / "winner")
    run_search(settings, resume=True)
    handed, kept = load_file(tmp_path / "run" / "winner" / "weights.safetensors"), load_file(second)
    assert all(torch.equal(handed[name], value) for name, value in kept.items())


def test_where_every_finalist_diverged_there_is_no_winner_but_a_way_out(tmp_path: Path):
    run, space = tmp_path / "run", write_space(tmp_path)
    words = search_words(space, run, "--finalist-learning-rate", "1e30", "--limit", "3")
    said = invoke(*words, "--json")
    document = said.json
    assert (said.code, document["winner"], document["winner_directory"], document["failed"]) == (1, None, None, 0)
    assert [entry["whole_accuracy"] for entry in document["top"]] == [0.0, 0.0]
    assert not (run / "winner").exists()
    for part in ("rank 1, 2.", "no winner", f"{run / 'results.csv'}", "below 1e+30", f"train {run} --rank 1 --anew"):
        assert part in said.err
    assert "all of them left the finite numbers" in (run / "report.html").read_text()
    # A run of before, which handed over what is not finite.
    (run / "winner").mkdir()
    (run / "summary.json").write_text(json.dumps({**document, "winner": document["top"][0]}))
    again = invoke(*words, "--resume", "--json")
    assert (again.code, {**again.json, "seconds": None}) == (1, {**document, "seconds": None})
    assert "no winner" in again.err
    assert not (run / "winner").exists()
    assert recorded_trainings(run).total() == 3 + FINALISTS
    assert "No winner" in invoke(*words, "--resume").out
    error = invoke("export", str(run), "--out", str(tmp_path / "model"), "--json").json["error"]
    assert "has no winner" in error["message"]
    assert "--rank" in error["hint"]
    said = invoke("train", str(run), "--rank", "1", "--anew", "--epochs", "1", "--learning-rate", "0.01")
    assert said.code == 0, said.err


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.mark.parametrize("unlucky", [1, 2])
def test_a_finalist_that_diverged_in_one_repeat_is_said_to_and_comes_last(tmp_path: Path, unlucky: int):
    chosen = make_plan(settings_of(tmp_path, limit=2), resume=False).candidates
    best = run_search(settings_of(tmp_path, "calm", limit=2, repeats=2, scheduler="none")).summary["winner"]["id"]
    wild = sorted(chosen, key=lambda candidate: candidate.id != best)[:unlucky]  # the winner, or all
    seeds = {candidate.seed(0, 0, "whole") for candidate in wild}
    text = SPACE.replace("from torch import nn", "import torch\nfrom torch import nn").replace(
        "        return images",
        f"        return images * float('nan') if torch.initial_seed() in {seeds} else images",
    )
    notes = Notes()
    found = run_search(settings_of(tmp_path, text=text, limit=2, repeats=2, scheduler="none"), progress=notes)
    table = found.table.set_index("id")
    for candidate in wild:
        row = table.loc[candidate.id]
        assert (row["whole_accuracy"], row["test_accuracy"], pd.isna(row["whole_cross_entropy"])) == (0.0, 0.0, True)
        assert any(f"{row['rank']} (1 of 2)" in text for text in notes.texts)
    winner = found.summary["winner"]
    assert winner["id"] != best or unlucky == 2
    assert (winner["whole_accuracy"] > 0) == (unlucky == 1)
    weights = load_file(found.directory / "winner" / "weights.safetensors")
    assert all(bool(value.isfinite().all()) for value in weights.values())


COSTLY = SPACE.replace(
    "        activation = {",
    """        with open(__file__ + ".built", "a") as file:
            print(config, file=file)
        activation = {""",
)


@pytest.mark.parametrize(
    ("changed", "resume", "message"),
    [
        ({}, False, "already holds a run"),
        ({"dataset": "no such"}, False, "already holds a run"),
        ({}, True, "seed was 0"),
    ],
)
def test_a_directory_that_is_taken_is_refused_before_any_network_is_built(
    tmp_path: Path, changed: dict[str, str], resume: bool, message: str
):
    space = write_space(tmp_path, COSTLY)
    with open_run(tmp_path / "run", {"identity": {"seed": 0}}, resume=False):
        pass
    facts: dict[str, Any] = {"space": str(space), "proxy": "random", "executor": "inline", "seed": 1, **changed}
    asked = SearchSettings(**facts, out=tmp_path / "run")
    with pytest.raises(RunError, match=message):
        run_search(asked, resume=resume)
    assert not (tmp_path / "my_space.py.built").exists()


def test_another_run_in_the_directory_is_refused_by_what_differs(finished: SearchResult):
    before = {path: path.read_bytes() for path in finished.directory.rglob("*") if path.is_file()}
    for changed in (
        {"seed": 5},
        {"epochs": 5},
        {"ipc": 3},
        {"top_k": 3},
        {"limit": 4},
        {"repeats": 2},
        {"image_size": (8, 8)},
    ):
        with pytest.raises(RunError, match=next(iter(changed))):
            run_search(settings_of(finished.directory.parent, **changed), resume=True)
    with pytest.raises(RunError, match="already holds a run"):
        run_search(settings_of(finished.directory.parent))
    assert {path: path.read_bytes() for path in finished.directory.rglob("*") if path.is_file()} == before


def test_a_space_whose_choices_changed_is_another_run(tmp_path: Path):
    run_search(settings_of(tmp_path, limit=2, top_k=1))
    with pytest.raises(RunError, match="choices"):
        run_search(settings_of(tmp_path, text=SPACE.replace("[2, 4,", "[3, 4,"), limit=2, top_k=1), resume=True)


def test_a_space_whose_build_changed_is_another_run(tmp_path: Path):
    run_search(settings_of(tmp_path, limit=2, top_k=1))
    with pytest.raises(RunError):
        run_search(settings_of(tmp_path, text=SPACE.replace("nn.Tanh", "nn.GELU"), limit=2, top_k=1), resume=True)


def test_a_space_in_a_module_that_was_edited_is_another_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    module = write_space(tmp_path / "edited_package", name="spaces.py")
    settings = settings_of(tmp_path, space="edited_package.spaces:Tiny", limit=2, top_k=1)
    run_search(settings)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert space_of_run(facts, tmp_path / "run", None).module_name == "edited_package.spaces"
    module.write_text(SPACE.replace("nn.Tanh", "nn.GELU"))
    with pytest.raises(RunError, match="space_text"):
        run_search(settings, resume=True)
    for given in (None, settings.space):
        with pytest.raises(RunError, match="is not what built the networks"):
            space_of_run(facts, tmp_path / "run", given)
    module.write_text(SPACE)
    assert run_search(settings, resume=True).summary["evaluated"] == 2


def test_what_is_kept_of_the_code_of_a_file_stays_the_same(tmp_path: Path):
    source = SpaceSource.parse(str(write_space(tmp_path)))
    assert text_digest(source) == hashlib.sha256(SPACE.encode()).hexdigest()[:16]
    assert text_digest(SpaceSource.parse("convnet720")) == hashlib.sha256(b"").hexdigest()[:16]


def test_a_new_version_of_the_package_that_registers_a_space_does_not_end_its_runs(tmp_path: Path, monkeypatch):
    register_space(tmp_path, "stranger", "strange = stranger_spaces:Strange")
    monkeypatch.syspath_prepend(tmp_path)
    before = text_digest(SpaceSource.parse("strange"))
    metadata = tmp_path / "stranger-1.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.1\n")
    assert text_digest(SpaceSource.parse("strange")) == before


def test_a_run_that_goes_on_with_other_versions_says_so(tmp_path: Path):
    words = search_words(write_space(tmp_path), tmp_path / "run", "--limit", "2", "--top-k", "1")
    assert "was begun with" not in invoke(*words).err
    assert "was begun with" not in invoke(*words, "--resume").err
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["versions"] |= {"torch": "1.0", "ray": "1.0"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    said = invoke(*words, "--resume")
    assert said.code == 0
    assert f"This run was begun with torch 1.0 and goes on with torch {version('torch')}, whose scores" in said.err


def test_weights_that_do_not_fit_at_the_hand_over_are_an_error(tmp_path: Path):
    text = SPACE.replace('config["width"])', 'config["width"] + os.path.exists(__file__ + ".wider"))')
    settings = settings_of(tmp_path, text=text, limit=2, top_k=1)
    run_search(settings)
    shutil.rmtree(tmp_path / "run" / "winner")
    (tmp_path / "my_space.py.wider").touch()
    with pytest.raises(RunError, match="do not fit the network that the space builds: size mismatch"):
        run_search(settings, resume=True)


def test_a_leftover_of_an_interrupted_write_does_no_harm(finished: SearchResult, tmp_path: Path):
    settings = settings_of(tmp_path)
    run_search(settings)
    for name in (".results.csv.77", ".summary.json.77", ".proxy.safetensors.77", "study.log.lock"):
        (tmp_path / "run" / name).write_bytes(b"half")
    (tmp_path / "run" / "results.csv").unlink()
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "winner" / "classify.py").write_text("half")
    run_search(settings, resume=True)
    assert_frame_equal(read_table(tmp_path / "run"), read_table(finished.directory))
    assert (tmp_path / "run" / "winner" / "classify.py").read_text() != "half"


@pytest.mark.parametrize("missing", ["proxy.safetensors", "finalists", "winner"])
def test_what_is_missing_from_a_run_is_made_again(finished: SearchResult, tmp_path: Path, missing: str):
    settings = settings_of(tmp_path)
    run_search(settings)
    gone = tmp_path / "run" / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    run_search(settings, resume=True)
    assert_frame_equal(read_table(tmp_path / "run"), read_table(finished.directory))
    assert gone.exists()


# Enough for nothing; for run.json; for the proxy and a part of the study; for all but the winner or the report.
@pytest.mark.parametrize("room", [0, 8, 40, 120, 300])
def test_a_full_disk_is_an_error_and_the_run_goes_on_where_there_is_space(
    finished: SearchResult, small_disk: Path, tmp_path: Path, room: int
):
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(2 * 2**20 - room * 1024))
    words = search_words(write_space(tmp_path), small_disk / "run", "--json")
    said = invoke(*words)
    error = said.json["error"]
    assert said.code in (1, 2)
    assert error["kind"] in ("write", "run"), error
    assert "No space left" in error["message"]
    assert error["hint"]
    assert ("--resume" in error["hint"]) == (small_disk / "run" / "run.json").exists()
    assert "Traceback" not in said.err
    ballast.unlink()
    said = invoke(*words, "--resume")
    assert said.code == 0, said.err
    assert_frame_equal(read_table(small_disk / "run"), read_table(finished.directory))
    assert set(recorded_trainings(small_disk / "run").values()) == {1}


def test_a_disk_that_cannot_be_written_is_an_error(small_disk: Path, tmp_path: Path):
    words = search_words(write_space(tmp_path), small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = invoke(*words, "--json")
    assert said.code in (1, 2)
    assert "Read-only" in said.json["error"]["message"]
    assert said.json["error"]["kind"] != "internal"


def test_a_run_on_a_disk_that_has_become_read_only_is_an_error(small_disk: Path, tmp_path: Path):
    words = search_words(write_space(tmp_path), small_disk / "run", "--limit", "2", "--top-k", "1")
    assert invoke(*words).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = invoke(*words, "--resume", "--json")
    assert said.code in (1, 2)
    assert said.json["error"]["kind"] != "internal", said.json


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit": 13}, "--limit 13 is more than the 12"),
        ({"top_k": 13}, "--top-k 13 is more than the 12"),
        ({"limit": 3, "top_k": 4}, "--top-k 4 is more than the 3"),
        ({"ipc": 2000}, "2000 images per class were asked for, but class"),
        ({"proxy": "randon"}, "No proxy is called 'randon'"),
        ({"executor": "tune", "workers": 10_000}, "10000 workers of 1 threads need 10000 cores"),
        ({"threads_per_worker": 10_000}, "10000 threads need 10000 cores"),
        ({"image_size": (0, 8)}, "0"),
        ({"storage": "nonsense://"}, "storage"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(tmp_path: Path, changed: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message) as caught:
        run_search(settings_of(tmp_path, **changed))
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["my_space.py"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_is_not_promised_where_there_is_none(tmp_path: Path):
    with pytest.raises(InputError, match="--device cuda") as caught:
        run_search(settings_of(tmp_path, device="cuda"))
    assert "cpu" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_the_default_directory_is_named_after_space_and_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = run_search(settings_of(tmp_path, out=None, limit=2, top_k=1))
    assert found.directory.parent.resolve() == tmp_path / "runs"
    assert found.directory.name.endswith("-tiny-random")
    with pytest.raises(InputError, match="--resume needs"):
        run_search(settings_of(tmp_path, out=None), resume=True)


def test_tables_open_in_plain_pandas(finished: SearchResult):
    table = pd.read_csv(finished.directory / "results.csv")
    assert table["diverged"].dtype == bool
    assert table["rank"].dtype.kind == "i"


def test_a_run_that_goes_on_measures_only_what_its_table_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    unbuildable = "config['width'] == 16 and exit(3)\n        activation = {"
    asked = settings_of(tmp_path, text=SPACE.replace("activation = {", unbuildable))
    before = run_search(asked)
    measured: list[str] = []
    measure = costs.measure_cost

    def counting(space: SearchSpace, candidate: Candidate, **more: Any) -> costs.Cost:
        measured.append(candidate.id)
        return measure(space, candidate, **more)

    monkeypatch.setattr(costs, "measure_cost", counting)
    after = run_search(asked, resume=True)
    assert_frame_equal(after.table, before.table)
    assert sorted(measured) == sorted(before.table["id"][before.table["state"] == "failed"])
    table = before.directory / "results.csv"
    for damaged in (
        "",
        table.read_text()[:-20],
        table.read_text().replace("multiply_adds", "n"),
        "id,parameters\nx,y\n",
    ):
        measured.clear()
        table.write_text(damaged)
        assert_frame_equal(run_search(asked, resume=True).table, before.table)
        assert len(measured) == CANDIDATES
