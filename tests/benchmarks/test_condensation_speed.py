"""The plain implementation that nasproxy is timed against is the same algorithm; the script's own arithmetic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from nasproxy.condensation.gradient_matching import matching_loss
from nasproxy.networks.convnet import ConvNet

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import condensation_speed
import plain_condensation


def test_the_plain_loss_and_its_gradient_are_nasproxys():
    torch.manual_seed(0)
    network = ConvNet(3, 4, (8, 8), width=6, depth=2)
    plain = plain_condensation.plain_convnet(3, 4, 8, width=6, depth=2)
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    real, images = torch.randn(7, 3, 8, 8), torch.randn(2, 3, 8, 8).requires_grad_()
    ours = matching_loss(network, real, images, 1, distance="layerwise-cosine", precision="float32")
    theirs = plain_condensation.matching_loss(plain, real, images, 1)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    slopes = [torch.autograd.grad(loss, images)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("ipc", "steps", "epochs", "part"), [(1, 1, 0, 1), (10, 2, 90, 0.2), (50, 2, 20, 0.04)])
def test_the_part_of_an_iteration_has_its_mixture(ipc, steps, epochs, part):
    recipe, share = condensation_speed.partial_iteration(ipc)
    assert (recipe.matching_steps, share) == (steps, pytest.approx(part))
    assert recipe.inner_epochs == pytest.approx(epochs, abs=1)


def test_what_is_not_measured_again_stays():
    one, ten = ({"ipc": ipc, "dataset": "random"} for ipc in (1, 10))
    kept = condensation_speed.merged({"speed": [one, ten]}, {"growth": {}})
    assert kept == {"speed": [one, ten], "growth": {}}
    again = {**one, "engines": {}}
    assert condensation_speed.merged(kept, {"speed": [again]}) == {"speed": [again, ten], "growth": {}}
    assert condensation_speed.merged(kept, {"accuracy": [ten]}) == {**kept, "accuracy": [ten]}


@pytest.mark.slow
def test_the_script_times_all_engines(tmp_path, monkeypatch):
    words = ["--ipc", "1", "--rounds", "1", "--threads", "1", "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["condensation_speed.py", *words])
    condensation_speed.main()
    (row,) = json.loads((tmp_path / "out.json").read_text())["speed"]
    assert set(row["engines"]) == set(condensation_speed.ENGINES)
    for engine in row["engines"].values():
        assert engine["peak_memory_bytes"] > engine["memory_before_bytes"] > 0
        assert len(engine["wall_seconds"]["values"]) == 1
