"""The throughput script: its loop trains the same networks, each run is kept, and none is measured twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import search_throughput
from search_contenders import of_plain_layers

from nasproxy.networks.convnet import NORMS, ConvNet


@pytest.mark.parametrize("norm", NORMS)
def test_a_loop_of_plain_layers_trains_the_same_network(norm):
    torch.manual_seed(0)
    model = ConvNet(3, 4, (8, 12), width=8, depth=2, norm=norm)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randn(5, 3, 8, 12)
    expected = model.eval()(images)
    plain = of_plain_layers(model)
    assert {type(layer).__module__.split(".")[0] for layer in plain} == {"torch"}
    assert all(parameter.is_contiguous() for parameter in plain.parameters())
    assert torch.allclose(plain.eval()(images), expected, rtol=1e-4, atol=1e-4)


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
