import json
import time
from pathlib import Path

import pytest
from disturbed_search import lines_of, wait_until
from tiny_search import finish, invoke, search_words, start, write_space

from nasproxy.search import stopwatch
from nasproxy.search.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as a list of one number to be set."""
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return now


def test_each_stage_has_its_time_and_the_total_has_all(clock: list[float]):
    watch = Stopwatch(began=99.0)
    for stage, now in (("condense", 102.0), ("search", 110.0), ("", 111.0), ("finalists", 120.0)):
        watch.begin(stage)
        clock[0] = now
    assert watch.seconds == {"condense": 2.0, "search": 8.0, "finalists": 9.0, "total": 21.0}


def test_a_stage_that_not_every_run_has_is_kept_where_there_is_one(clock: list[float], tmp_path: Path):
    file = tmp_path / "seconds.json"
    watch = Stopwatch(file)
    watch.begin("finalists")
    clock[0] += 2.0
    watch.begin("calibration")
    clock[0] += 3.0
    watch.keep()
    expected = {"condense": 0.0, "search": 0.0, "calibration": 3.0, "finalists": 2.0, "total": 5.0}
    assert Stopwatch(file).seconds == expected
    assert list(Stopwatch(file).seconds) == list(expected)


def test_what_was_kept_before_a_kill_is_added_to(clock: list[float], tmp_path: Path):
    file = tmp_path / "seconds.json"
    watch = Stopwatch(file)
    watch.begin("search")
    clock[0] += 4.0
    watch.tick()
    assert not file.exists()
    clock[0] += 4.0
    watch.tick()
    clock[0] += 3.0  # lost with the process
    again = Stopwatch(file)
    again.begin("search")
    clock[0] += 1.0
    assert again.seconds == {"condense": 0.0, "search": 9.0, "finalists": 0.0, "total": 9.0}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"search": 1}', '{"condense": 1, "search": -1, "finalists": 1, "total": 1}']
)
def test_a_damaged_file_counts_for_nothing(tmp_path: Path, content: str):
    file = tmp_path / "seconds.json"
    file.write_text(content)
    assert Stopwatch(file, began=time.perf_counter()).seconds["condense"] == 0.0


def test_a_disk_that_cannot_be_written_stops_nobody(tmp_path: Path):
    Stopwatch(tmp_path / "missing" / "seconds.json").keep()


def test_a_resumed_search_counts_what_it_took_before(tmp_path: Path):
    run = tmp_path / "run"
    words = search_words(write_space(tmp_path), run, "--json")
    process = start(words, seconds=0.02)
    wait_until(lambda: lines_of(run) >= 8, process)
    process.terminate()
    assert finish(process).code == 143
    before = json.loads((run / "seconds.json").read_text())
    assert 0 < before["search"] < before["total"]
    found = invoke(*words, "--resume").json["seconds"]
    assert list(found) == ["condense", "search", "finalists", "total"]
    assert found["search"] > before["search"]
    assert found["finalists"] > 0
    assert found["total"] > found["condense"] + found["search"] + found["finalists"]
    assert found["total"] > before["total"]
    assert invoke(*words, "--resume").json["seconds"] == found
