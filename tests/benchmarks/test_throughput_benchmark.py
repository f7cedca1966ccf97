"""The throughput script: each run is kept, and none is measured twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import search_throughput


@pytest.mark.slow
def test_an_interrupted_measurement_goes_on_after_its_last_run(tmp_path, monkeypatch, capsys):
    out = tmp_path / "throughput.json"
    words = ["--parts", "throughput", "--rounds", "2", "--candidates", "2", "--epochs", "1", "--plain-tune-sample", "1"]
    words += ["--contenders", "loop float32", "inline float32", "--inline-threads", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["search_throughput.py", *words])
    assert search_throughput.main() == 0
    whole = json.loads(out.read_text())["throughput"]
    assert len(whole["runs"]) == 4
    loop, inline = whole["summary"]
    assert loop["ratio_to_loop"]["mean"] == 1
    assert loop["processor_ratio_to_loop"]["mean"] == pytest.approx(1, abs=1e-3)  # of rounded seconds
    assert inline["processor_ratio_to_loop"]["mean"] > 0
    part = {name: value for name, value in whole.items() if name != "summary"}
    lost = part["runs"].pop("inline float32, round 1")
    out.write_text(json.dumps({"schema": 1, "throughput": part}))
    assert search_throughput.main() == 0
    again = json.loads(out.read_text())["throughput"]
    assert again["runs"].pop("inline float32, round 1") != lost
    assert again["runs"] == part["runs"]
    kept = out.read_text()
    assert search_throughput.main() == 0
    assert out.read_text() == kept
    assert "by processor time" in capsys.readouterr().out
