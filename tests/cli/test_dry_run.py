"""``nasproxy search --dry-run``."""

from pathlib import Path

from tiny_search import CANDIDATES, FINALISTS, RUNGS, Said, invoke, search_words, write_space

from nasproxy.analysis.text import counted


def dry(folder: Path, *more: str) -> Said:
    return invoke(*search_words(write_space(folder), folder / "run", *more, "--dry-run"))


def test_it_says_what_would_be_done_and_writes_nothing(tmp_path: Path):
    said = dry(tmp_path, "--time-budget", "600", "--json")
    assert said.code == 0
    found = said.json
    assert (found["time_budget"], found["budget_suffices"]) == (600, True)
    assert (found["dry_run"], found["candidates"], found["workers"]) == (True, CANDIDATES, 1)
    assert found["rungs"] == [{"epochs": r.epochs, "candidates": r.candidates, "done": 0} for r in RUNGS]
    assert found["finalists"] == {"candidates": FINALISTS, "done": 0}
    seconds = found["seconds"]
    assert list(seconds) == ["condense", "search", "finalists", "total"]
    assert seconds["condense"] == 0
    assert seconds["search"] > 0
    assert seconds["finalists"] > 0
    assert seconds["total"] == sum(list(seconds.values())[:3])
    assert found["memory_bytes"] > 2**27
    assert not (tmp_path / "run").exists()


def test_what_a_run_has_done_is_counted_and_left_alone(tmp_path: Path):
    assert invoke(*search_words(write_space(tmp_path), tmp_path / "run")).code == 0
    journal = tmp_path / "run" / "study.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "work')  # half a line, as a kill leaves it
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert dry(tmp_path).code == 2  # as the search itself: --resume is missing
    found = dry(tmp_path, "--resume", "--json").json
    assert [rung["done"] for rung in found["rungs"]] == [rung.candidates for rung in RUNGS]
    assert found["finalists"]["done"] == FINALISTS
    assert found["time_budget"] is found["budget_suffices"] is None
    assert found["seconds"]["total"] == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_people_can_read_it(tmp_path: Path):
    said = dry(tmp_path, "--time-budget", "0.0001")
    assert "budget of 0.0 s ends before the end of condensing and ranking" in " ".join(said.out.split())
    assert f"{CANDIDATES} candidates of tiny" in said.out
    assert f"{RUNGS[0].candidates} × {counted(RUNGS[0].epochs, 'epoch')}" in said.out
    assert "Nothing was written" in said.out


def test_condensing_counts_until_it_is_cached(tmp_path: Path):
    condensed = ("--proxy", "condensed", "--ipc", "1", "--limit", "4", "--json")
    assert dry(tmp_path, *condensed).json["seconds"]["condense"] > 0


def test_it_refuses_what_the_search_refuses(tmp_path: Path):
    assert dry(tmp_path, "--top-k", "99").code == 2
    assert not (tmp_path / "run").exists()
