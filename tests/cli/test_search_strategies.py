"""``nasproxy search`` when it does not rank every candidate by accuracy alone."""

import json
from pathlib import Path

import pandas as pd
import pytest
from tiny_search import CANDIDATES, Said, invoke, search_words, write_space

SAMPLED = ["--sampler", "tpe", "--trials", "7"]


def table_of(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "results.csv", dtype={"id": str})


def search(folder: Path, *more: str) -> Said:
    return invoke(*search_words(write_space(folder), folder / "run", *more, "--json"))


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_sampler_ranks_as_many_as_are_asked_for(tmp_path: Path, sampler: str):
    said = search(tmp_path, "--sampler", sampler, "--trials", "7")
    assert said.code == 0
    document, table = said.json, table_of(tmp_path / "run")
    assert (document["candidates"], document["evaluated"]) == (7, 7)
    assert [rung["candidates"] for rung in document["rungs"]] == [7]
    assert len(table) == table["id"].nunique() == 7
    assert set(table["state"]) == {"complete"}
    assert [entry["id"] for entry in document["top"]] == list(table["id"][:2])


def test_a_sampled_search_goes_on_where_it_was_and_proposes_the_same(tmp_path: Path):
    search(tmp_path / "whole", *SAMPLED)
    search(tmp_path / "cut", *SAMPLED)
    journal = tmp_path / "cut" / "run" / "study.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    (tmp_path / "cut" / "run" / "summary.json").unlink()
    said = search(tmp_path / "cut", *SAMPLED, "--resume")
    assert said.code == 0
    columns = ["id", "proxy_accuracy", "proxy_cross_entropy", "whole_accuracy"]
    tables = [table_of(tmp_path / name / "run")[columns] for name in ("whole", "cut")]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.slow
def test_ray_tune_proposes_and_scores_as_the_inline_executor(tmp_path: Path):
    search(tmp_path / "here", *SAMPLED)
    said = search(tmp_path / "tune", *SAMPLED, "--executor", "tune", "--workers", "2")
    assert said.code == 0
    columns = ["id", "proxy_accuracy", "proxy_cross_entropy", "whole_accuracy"]
    pd.testing.assert_frame_equal(*(table_of(tmp_path / name / "run")[columns] for name in ("here", "tune")))


def test_more_trials_than_candidates_are_all_of_them(tmp_path: Path):
    said = search(tmp_path, "--sampler", "random")
    assert said.json["candidates"] == CANDIDATES
    assert f"--trials 100 is more than there are: the sampler proposes each of the {CANDIDATES} candidates" in said.err
    assert "--trials" not in search(tmp_path / "few", "--sampler", "random", "--trials", str(CANDIDATES)).err


def test_of_more_trials_than_candidates_within_a_limit_it_is_told_too(tmp_path: Path):
    said = search(tmp_path, "--sampler", "random", "--trials", "10", "--max-parameters", "1500")
    assert f"proposes each of the {said.json['candidates']} candidates once" in said.err
    assert 2 <= said.json["candidates"] < 10


def test_candidates_that_are_too_large_are_left_out(tmp_path: Path):
    sizes = search(tmp_path / "all").json and table_of(tmp_path / "all" / "run")["parameters"]
    middle = int(sizes.median())
    said = search(tmp_path / "small", "--max-parameters", str(middle))
    assert said.json["candidates"] == (sizes <= middle).sum() < CANDIDATES
    assert table_of(tmp_path / "small" / "run")["parameters"].max() <= middle
    assert f"{(sizes > middle).sum()} candidates are larger than --max-parameters {middle}" in said.err


@pytest.mark.parametrize("limit", [["--max-parameters", "10"], ["--max-multiply-adds", "10"]])
def test_limits_that_leave_too_few_are_refused_before_anything_is_written(tmp_path: Path, limit: list[str]):
    said = search(tmp_path, *limit)
    assert said.code == 2
    error = said.json["error"]
    assert error["kind"] == "input"
    assert " ".join(limit) in error["message"]
    assert "parameters and take" in error["hint"]
    assert not (tmp_path / "run").exists()


def test_the_table_marks_the_front_of_several_objectives(tmp_path: Path):
    words = search_words(write_space(tmp_path), tmp_path / "run", "--scheduler", "none", "--top-k", "9")
    said = invoke(*words, "--objective", "accuracy", "--objective", "parameters")
    rows = {line.split()[0]: line for line in said.out.splitlines() if " width=" in line and line.split()[0].isdigit()}
    table = table_of(tmp_path / "run").head(9)
    assert {name for name, line in rows.items() if " * " in line} == {
        *table.loc[table["pareto"], "rank"].astype(int).astype(str)
    }
    assert 1 <= sum(" * " in line for line in rows.values()) < 9
    assert "Pareto" in said.out
    alone = search_words(tmp_path / "my_space.py", tmp_path / "alone", "--limit", "2", "--top-k", "1")
    assert "Pareto" not in invoke(*alone).out


def test_several_objectives_rank_the_front_first(tmp_path: Path):
    said = search(tmp_path, "--objective", "accuracy", "--objective", "parameters", "--scheduler", "none")
    table = table_of(tmp_path / "run")
    front = table[table["pareto"]]
    assert list(front.index) == list(range(len(front)))
    assert front["parameters"].min() == table["parameters"].min()
    assert front["proxy_accuracy"].max() == table["proxy_accuracy"].max()
    assert [entry["id"] for entry in said.json["top"]] == list(table["id"][:2])
    figures = list(zip(table["proxy_accuracy"], table["parameters"], strict=True))
    for row, (accuracy, size) in zip(table["pareto"], figures, strict=True):
        beaten = any(a >= accuracy and s <= size and (a, s) != (accuracy, size) for a, s in figures)
        assert row == (not beaten)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sampler", "tpee"], "tpe"),
        (["--objective", "accuracy", "--objective", "parameter"], "parameters"),
        (["--objective", "parameters"], "accuracy"),
        (["--objective", "accuracy", "--objective", "accuracy"], "each once"),
        (["--trials", "5"], "--sampler"),
        (["--sampler", "tpe", "--scheduler", "halving"], "--scheduler none"),
        (["--sampler", "tpe", "--trials", "1"], "--top-k"),
        (["--sampler", "tpe", "--trials", "0"], "1 or more"),
        (["--max-parameters", "-3"], "1 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, words: list[str], said: str):
    answer = search(tmp_path, *words)
    assert answer.code == 2
    assert said in json.dumps(answer.json["error"])
    assert not (tmp_path / "run").exists()


LATENCY = ["--objective", "accuracy", "--objective", "latency"]


def test_latency_is_measured_once_ranked_by_and_shown(tmp_path: Path):
    words = search_words(write_space(tmp_path), tmp_path / "run", *LATENCY)
    said = invoke(*words)
    assert said.code == 0, said.err
    assert "Latency" in said.out.splitlines()[0]
    table = table_of(tmp_path / "run")
    assert (table["latency_ms"] > 0).all()
    full = table[table["state"] == "complete"]
    figures = list(zip(full["proxy_accuracy"], full["latency_ms"], strict=True))
    for row, (accuracy, latency) in zip(full["pareto"], figures, strict=True):
        assert row == (not any(a >= accuracy and t <= latency and (a, t) != (accuracy, latency) for a, t in figures))
    assert full["pareto"].is_monotonic_decreasing
    page = (tmp_path / "run" / "report.html").read_text()
    assert "against measured latency" in page
    assert "latency (ms)" in page
    again = invoke(*words, "--resume", "--json")
    assert list(table_of(tmp_path / "run")["latency_ms"]) == list(table["latency_ms"])
    assert [entry["latency_ms"] for entry in again.json["top"]] == list(table["latency_ms"][:2])


def test_latency_that_was_measured_before_an_interruption_is_not_measured_again(tmp_path: Path):
    words = search_words(write_space(tmp_path), tmp_path / "run", *LATENCY)
    assert invoke(*words).code == 0
    before = table_of(tmp_path / "run").set_index("id")["latency_ms"]
    journal = tmp_path / "run" / "study.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: 2 + CANDIDATES // 2]))
    assert invoke(*words, "--resume").code == 0
    after = table_of(tmp_path / "run").set_index("id")["latency_ms"]
    assert CANDIDATES // 3 <= (after == before[after.index]).sum() < CANDIDATES
    assert (after > 0).all()


def test_accuracies_do_not_depend_on_measuring_latency(tmp_path: Path):
    for name, words in (("plain", []), ("timed", LATENCY)):
        assert search(tmp_path / name, *words, "--scheduler", "none").code == 0
    plain, timed = (table_of(tmp_path / name / "run").set_index("id") for name in ("plain", "timed"))
    assert "latency_ms" not in plain
    pd.testing.assert_series_equal(plain["proxy_cross_entropy"].sort_index(), timed["proxy_cross_entropy"].sort_index())


def test_a_sampler_ranks_by_latency_and_goes_on(tmp_path: Path):
    words = [*LATENCY, "--sampler", "nsga2", "--trials", "5"]
    said = search(tmp_path, *words)
    assert said.code == 0, said.err
    table = table_of(tmp_path / "run")
    assert (table["latency_ms"] > 0).all()
    assert search(tmp_path, *words, "--resume").json["top"] == said.json["top"]
