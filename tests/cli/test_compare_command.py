"""The command ``nasproxy compare``: what it prints, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_search import Said, invoke, write_space

ROW = [
    "proxy", "performance", "correlation", "correlation_interval", "kendall", "overall_correlation",
    "overall_interval", "overall_n", "regret", "minutes", "storage_images", "reason",
]  # fmt: skip
QUICK = ["--proxies", "random, parameters,naswot", "--ipc", "2", "--epochs", "1", "--finalist-epochs", "1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def said(home: Path) -> Said:
    where = ["--space", str(write_space(home)), "--out", str(home / "run"), "--executor", "inline"]
    return invoke("compare", *where, *QUICK, "--top-k", "5", "--sample", "12")


def test_the_table_and_what_it_means_go_to_stdout(said: Said, home: Path):
    assert said.code == 0, said.err
    for text in ("Performance", "random", "parameters", "By chance alone", "paired bootstrap", str(home / "run")):
        assert text in " ".join(said.out.split())
    assert "Whole data: 12" in said.err
    assert "random: 12" in said.err


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_on_a_narrow_terminal_no_figure_is_cut(said: Said, home: Path, on_terminal: Callable[..., str], columns: int):
    whole = said.out.split("\n\n")[0].splitlines()
    narrow = on_terminal(columns, "compare", "--from", str(home / "run")).split("\n\n")[0]
    assert max(map(len, narrow.splitlines())) <= columns
    assert "…" not in narrow
    for column in ("Proxy", "Precision@5", "Regret", "Minutes", "Images"):
        assert column in narrow
    for figure in " ".join(whole[1:]).split():
        assert figure in narrow
    assert [line.split()[0] for line in narrow.splitlines()[1:] if line[0] != " "] == ["random", "parameters", "naswot"]


def test_json_is_the_promised_document(said: Said, home: Path):
    document = invoke("compare", "--from", str(home / "run"), "--json").json
    assert document["schema"] == 1
    assert document["run"] == str(home / "run")
    assert [row["proxy"] for row in document["rows"]] == ["random", "parameters", "naswot"]
    for row in document["rows"]:
        assert [name for name in row if name in ROW] == ROW
    naswot = document["rows"][2]
    assert naswot["correlation"] is None
    assert naswot["reason"]
    assert document == json.loads((home / "run" / "comparison.json").read_text())


def test_resumed_without_names_it_is_of_the_proxies_that_it_was_of(said: Said, home: Path):
    where = ["--space", str(home / "my_space.py"), "--out", str(home / "run"), "--executor", "inline", "--resume"]
    again = invoke("compare", *where, *QUICK[2:], "--top-k", "5", "--sample", "12")
    assert again.code == 0, again.err
    assert again.out.split("Proxy")[1].split("Files")[0] == said.out.split("Proxy")[1].split("Files")[0]


def test_what_takes_a_search_says_how_a_comparison_is_drawn_and_does_not_overwrite_it(said: Said, home: Path):
    run, before = home / "run", (home / "run" / "report.html").read_bytes()
    for words in (["report"], ["export", "--out", "net"], ["predict", str(home)]):
        refused = invoke(words[0], str(run), *words[1:], "--json")
        assert (refused.code, refused.json["error"]["kind"]) == (2, "run")
        assert f"nasproxy compare --from {run} --out {run}" in refused.json["error"]["hint"]
    for part in ("proxies/random", "proxies/parameters", "whole"):
        for word in ("report", "predict"):
            refused = invoke(word, str(run / part), *([str(home)] if word == "predict" else []), "--json")
            assert (refused.code, refused.json["error"]["kind"]) == (2, "run")
            assert f"{run / part} is a part of a comparison" in refused.json["error"]["message"]
            assert f"nasproxy compare --from {run.resolve()} --out {run.resolve()}" in refused.json["error"]["hint"]
    same = ["--proxy", "random", "--scheduler", "none", *QUICK[2:], "--top-k", "5", "--executor", "inline"]
    refused = invoke("search", "--space", str(home / "my_space.py"), "--out", str(run), *same, "--resume", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (2, "run")
    assert "holds a comparison of proxies" in refused.json["error"]["message"]
    assert (run / "report.html").read_bytes() == before
    assert not (run / "results.csv").exists()


def test_the_table_is_drawn_anew_without_training(said: Said, home: Path, tmp_path: Path):
    again = invoke("compare", "--from", str(home / "run" / "scores.csv"), "--out", str(tmp_path / "drawn"))
    assert again.code == 0
    assert again.out.split("Files")[0] == said.out.split("Files")[0]
    assert again.err == ""
    for name in ("comparison.md", "comparison.tex", "comparison.csv", "within.csv"):
        assert (tmp_path / "drawn" / name).read_bytes() == (home / "run" / name).read_bytes()


def test_nothing_is_drawn_over_but_what_was_drawn_before(said: Said, home: Path, tmp_path: Path):
    for name in ("report.html", "run.json", "notes.txt"):
        mine = tmp_path / name.partition(".")[0]
        mine.mkdir()
        (mine / name).write_text("mine")
        refused = invoke("compare", "--from", str(home / "run"), "--out", str(mine), "--json")
        assert (refused.code, refused.json["error"]["kind"]) == (2, "input")
        assert "--out" in refused.json["error"]["hint"]
        assert [(path.name, path.read_text()) for path in mine.iterdir()] == [(name, "mine")]
    (tmp_path / "empty").mkdir()
    for out in (home / "run", tmp_path / "empty", tmp_path / "empty", tmp_path / "new"):
        drawn = invoke("compare", "--from", str(home / "run"), "--out", str(out))
        assert drawn.code == 0, drawn.err
        assert ("scores.csv" in drawn.out.split("Files")[1]) == (out == home / "run")


def test_only_files_that_are_there_are_named(said: Said, home: Path, tmp_path: Path):
    assert said.out.split("Files")[1].split(": ")[1].split() == [
        "report.html,",
        "figures/*,",
        "comparison.*,",
        "scores.csv",
    ]
    for name in ("scores.csv", "scores.json"):
        (tmp_path / name).write_bytes((home / "run" / name).read_bytes())
    for path in (tmp_path, Path()):
        assert invoke("compare", "--from", str(path)).out.split("Files")[1].split() == [f"{path}:", "scores.csv"]
    (tmp_path / "scores.csv").rename(tmp_path / "kept.csv")
    (tmp_path / "scores.json").rename(tmp_path / "kept.json")
    assert "Files" not in invoke("compare", "--from", str(tmp_path / "kept.csv")).out


def test_a_changed_column_is_refused_by_its_name(said: Said, home: Path, tmp_path: Path):
    for name in ("scores.csv", "scores.json"):
        (tmp_path / name).write_bytes((home / "run" / name).read_bytes())
    text = (tmp_path / "scores.csv").read_text()
    (tmp_path / "scores.csv").write_text(text.replace("whole.0", "hole.0", 1))
    found = invoke("compare", "--from", str(tmp_path), "--json")
    assert found.code == 2
    assert "whole.0" in found.json["error"]["message"]


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--proxies", "random,synflo"], ["synflo", "Did you mean synflow"]),
        (["--proxies", ","], ["no proxy"]),
        (["--proxies", "random", "--preset", "quik"], ["quik", "quick"]),
        (["--from", "nowhere"], ["nowhere", "scores"]),
        (["--from", "nowhere", "--resume"], ["--from", "--resume"]),
        (["--from", "nowhere", "--proxies", "random", "--top-k", "10"], ["--proxies, --top-k", "no effect", "--json"]),
        (["--soft-labels", "--seed", "0", "--from", "nowhere", "--out", "new"], ["--soft-labels, --seed would"]),
        (["--proxies", "random", "--sample", "1"], ["--sample", "3"]),
    ],
)
def test_bad_input_is_one_message(words, fragments, folder):
    found = invoke("compare", *words, *([] if "--from" in words else ["--executor", "inline"]))
    assert found.code == 2
    assert found.out == ""
    for fragment in fragments:
        assert fragment in " ".join(found.err.split())
    assert "Traceback" not in found.err
    assert list(folder.iterdir()) == []
