from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_search import RUNGS, SPACE, Said, invoke, search_words, write_space

from nasproxy.search.run_directory import new_directory
from nasproxy.text import counted

KEYS = [
    "schema",
    "space",
    "dataset",
    "proxy",
    "candidates",
    "evaluated",
    "diverged",
    "failed",
    "top",
    "winner",
    "seconds",
    "run",
]
ENTRY = ["rank", "id", "config", "proxy_accuracy", "whole_accuracy", "test_accuracy", "parameters", "multiply_adds"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def plain(home: Path) -> Said:
    return invoke(*search_words(write_space(home), home / "plain"))


@pytest.fixture(scope="module")
def as_json(home: Path) -> Said:
    return invoke(*search_words(write_space(home), home / "json", "--json"))


def test_json_is_the_promised_document(as_json: Said, home: Path):
    assert as_json.code == 0
    document = as_json.json
    assert [name for name in document if name in KEYS] == KEYS
    assert [list(entry) for entry in document["top"]] == [ENTRY] * 2
    assert list(document["winner"]) == ENTRY
    assert list(document["seconds"]) == ["condense", "search", "finalists", "total"]
    assert document["run"] == str(home / "json")
    for entry in document["top"]:
        assert all(0 <= entry[name] <= 1 for name in ENTRY[3:6])


def test_results_go_to_stdout_and_all_else_to_stderr(plain: Said, as_json: Said, home: Path):
    assert plain.code == 0
    winner = as_json.json["winner"]
    rungs = " → ".join(f"{rung.candidates} × {counted(rung.epochs, 'epoch')}" for rung in RUNGS)
    for text in (winner["id"], "Winner", "Trust", "Effort", f"12 of 12 ranked ({rungs})"):
        assert text in plain.out
    assert str(home / "plain") in plain.out
    for said in (plain, as_json):
        ranking = [f"Ranking, {counted(rung.epochs, 'epoch')}: {rung.candidates}" for rung in RUNGS]
        for stage in ("Measuring candidates: 12", *ranking, "Finalists"):
            assert stage in said.err
            assert stage not in said.out
        assert "\x1b" not in said.out + said.err
        assert "There is no test part" in said.err


def test_the_finalists_are_listed_in_proxy_order(plain: Said, as_json: Said):
    rows = [line.split() for line in plain.out.splitlines()]
    start = next(number for number, row in enumerate(rows) if row[:2] == ["Rank", "Proxy"])
    for row, entry in zip(rows[start + 1 :], as_json.json["top"], strict=False):
        assert row[0] == str(entry["rank"])
        assert row[1] == f"{100 * entry['proxy_accuracy']:.1f}"
        assert entry["id"] in row


@pytest.mark.parametrize("objectives", [["accuracy"], ["accuracy", "parameters", "latency"]], ids=["one", "three"])
def test_on_a_narrow_terminal_no_candidate_loses_a_part_of_its_name(
    folder: Path, on_terminal: Callable[..., str], objectives: list[str]
):
    long = SPACE.replace('"relu"', '"relu in its long spelling"').replace('"activation"', '"activation_function"')
    words = search_words(write_space(folder, long), folder / "run", "--top-k", "3", "--resume")
    words += [word for name in objectives for word in ("--objective", name)]
    top = invoke(*words, "--json").json["top"]
    choices = {entry["id"]: [f"{name}={value}" for name, value in entry["config"].items()] for entry in top}
    for columns in (60, 80, 200):
        said = on_terminal(columns, *words)
        table, winner = said.split("\nWinner ")
        lines = table.splitlines()
        assert "…" not in said
        assert max(map(len, lines)) <= columns
        assert lines[0].startswith("Rank   Proxy")
        rows = [number for number, line in enumerate(lines) if line.split()[:1] in (["1"], ["2"], ["3"])]
        for entry, begin, end in zip(top, rows, [*rows[1:], len(lines)], strict=True):
            for part in (entry["id"], *choices[entry["id"]]):
                assert any(part in line for line in lines[begin:end])
        first, *more = winner.split("\n  test accuracy")[0].splitlines()
        assert all(line.startswith("  ") for line in more)
        assert " ".join([first, *more]).split() == " ".join([first.split()[0], *choices[first.split()[0]]]).split()


def test_a_short_configuration_is_not_squeezed_below_its_title(folder: Path, on_terminal: Callable[..., str]):
    words = search_words(write_space(folder, SPACE.replace('"activation"', '"a"')), folder / "run", "--resume")
    for columns in (82, 88):
        lines = on_terminal(columns, *words).split("\n\n")[0].splitlines()
        assert max(map(len, lines)) <= columns
        assert ("Configuration" in lines[0]) == (columns > 85)


def test_where_it_is_piped_each_finalist_is_a_line(folder: Path):
    long = SPACE.replace('"activation"', f'"{"activation" * 20}"')
    words = search_words(write_space(folder, long), folder / "run", "--resume")
    top = invoke(*words, "--json").json["top"]
    lines = invoke(*words).out.splitlines()
    for line, entry in zip(lines[1:], top, strict=False):
        assert all(part in line for part in (entry["id"], *(f"{k}={v}" for k, v in entry["config"].items())))


def test_one_candidate_is_enough(folder: Path):
    said = invoke(*search_words(write_space(folder), folder / "run", "--limit", "1", "--top-k", "1", "--json"))
    assert said.code == 0
    assert said.json["candidates"] == 1
    assert said.json["winner"]["rank"] == 1


def test_a_run_without_a_name_gets_one(folder: Path):
    words = search_words(write_space(folder), folder, "--limit", "1", "--top-k", "1", "--json")
    position = words.index("--out")
    del words[position : position + 2]
    first, second = invoke(*words).json["run"], invoke(*words).json["run"]
    assert Path(first).parent == Path("runs")
    assert first.endswith("-my-space-random") or first.endswith("-tiny-random")
    assert second == f"{first}-2"
    said = invoke(*words, "--resume")
    assert said.code == 2
    assert "--out" in said.json["error"]["message"]


def test_two_that_begin_in_the_same_moment_have_a_folder_each(folder: Path):
    words = search_words(write_space(folder), folder, "--limit", "1", "--top-k", "1")
    position = words.index("--out")
    del words[position : position + 2]
    with new_directory(str(folder / "my_space.py"), "random") as other:
        said = invoke(*words, "--json")
        assert said.code == 0, said.err
        assert said.json["run"] == f"{other}-2"


def test_a_search_that_is_refused_leaves_no_folder(folder: Path):
    for command in ("search", "compare"):
        assert invoke(command, "--dataset", "nowhere").code == 2
    assert not (folder / "runs").exists()


def test_failures_are_one_in_the_exit_code_and_told(folder: Path):
    refuse = 'if config["width"] == 2:\n            raise ValueError("[bold]two[/bold] is not enough")'
    text = SPACE.replace("        activation = {", f"        {refuse}\n        activation = {{")
    said = invoke(*search_words(write_space(folder, text), folder / "run"))
    assert said.code == 1
    assert "3 candidates failed" in said.out
    assert "ValueError: [bold]two[/bold] is not enough (my_space.py:" in said.out


FATES = """
from torch import nn

from nasproxy import SearchSpace


class Fate(nn.Module):
    def __init__(self, fate):
        super().__init__()
        self.fate = fate

    def forward(self, images):
        if self.fate == "raise" and self.training:
            raise RuntimeError("boom")
        return (images,) if self.fate == "tuple" else images * float("nan") if self.fate == "diverge" else images


class Fated(SearchSpace):
    name = "fated"
    choices = {"fate": ["none", "raise", "tuple", "diverge", "build", "late"], "width": [2, 4, 8]}

    def build(self, config, *, in_channels, num_classes, image_size):
        if config["fate"] == "build":
            raise ValueError(f"width {config['width']} is no good")
        if config["fate"] == "late" and config["width"] > 2:
            raise OSError("[bold]late[/bold]")
        return nn.Sequential(
            nn.Flatten(), nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes), Fate(config["fate"])
        )
"""


def test_how_many_diverged_is_told_and_the_most_frequent_kinds_of_failure(folder: Path):
    said = invoke(*search_words(write_space(folder, FATES), folder / "run", "--scheduler", "none"))
    assert said.code == 1
    assert "7 of 18 ranked, 3 of them diverged (10 × 4 epochs); condense" in " ".join(said.out.split())
    lines = said.out.splitlines()
    told = lines.index("11 candidates failed")
    for reason in ("RuntimeError: boom (my_space.py:", "ValueError: width ", "SpaceError: The network returned tuple"):
        assert sum(line.startswith(f"  3 × {reason}") for line in lines[told + 1 : told + 4]) == 1
    assert lines[told + 4] == "  2 for 1 other reason: see reason in results.csv"


def test_where_all_candidates_fail_there_is_no_table_and_no_winner(folder: Path):
    text = SPACE.replace("nn.LazyLinear(num_classes)", "nn.LazyLinear(7)")
    said = invoke(*search_words(write_space(folder, text), folder / "run", "--limit", "2"))
    assert said.code == 1
    assert "No candidate came so far that it could be a finalist." in said.out
    assert "Trust" not in said.out
    assert "Rank" not in said.out
    assert "expected (2, 10)" in said.out
    assert "winner/" not in said.out
    assert not (folder / "run" / "winner").exists()


def test_a_proxy_file_of_ones_own(folder: Path, home: Path, as_json: Said):
    kept = home / "json" / "proxy.safetensors"
    said = invoke(*search_words(write_space(folder), folder / "run", "--proxy", str(kept), "--json"))
    assert said.code == 0
    assert said.json["top"] == as_json.json["top"]


def test_without_kernels_it_is_said_that_it_could_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nasproxy.search.run.why_none", lambda: "There are no kernels.")
    monkeypatch.setattr("nasproxy.compare.run.why_none", lambda: "There are no kernels.")
    space = write_space(tmp_path)
    assert "There are no kernels." in invoke(*search_words(space, tmp_path / "run")).err
    words = ["--space", str(space), "--executor", "inline", "--proxies", "parameters", "--finalist-epochs", "1"]
    assert "There are no kernels." in invoke("compare", *words, "--out", str(tmp_path / "compared")).err
