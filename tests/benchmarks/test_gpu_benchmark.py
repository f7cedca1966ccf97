"""The script for a GPU, tried out on the CPU with sizes that take seconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_dataset
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.cost import count_multiply_adds

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu

TINY = ["--device", "cpu", "--dataset", "digits", "--image-size", "8", "--limit", "3", "--ipc", "1", "--epochs", "2"]
TINY += ["--checked", "2", "--check-epochs", "2", "--whole-epochs", "1", "--iterations", "1"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the script with tiny sizes; returns the exit code and what is in its file."""
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))

    def begin(*words: str):
        out = tmp_path / "gpu.json"
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out), *TINY, *words])
        code = gpu.main()
        return code, json.loads(out.read_text()) if out.exists() else None

    return begin


def test_every_result_is_kept_as_it_arrives_and_not_measured_again(run, capsys):
    assert run("--budget-minutes", "-1") == (0, None)
    code, one = run("--steps", "correctness")
    assert code == 0
    assert one["correctness"]["repeats_exactly"]
    assert one["correctness"]["recorded_from_plain"] == one["correctness"]["cpu_from_plain"] == 0
    assert 0 < one["correctness"]["bfloat16_from_float32"] < 0.1
    capsys.readouterr()
    code, both = run("--steps", "correctness", "ranking-1")
    assert code == 0
    assert "correctness: done before" in capsys.readouterr().out
    assert both["correctness"] == one["correctness"]
    ranking = both["ranking-1"]
    assert ranking["complete"]
    assert ranking["candidates"] == 3
    counted = sum(row[4] for row in ranking["rows"])
    assert ranking["petaflop"] == pytest.approx(2 * counted * (3 * 2 * 10 + 400) / 1e15)
    assert sum(row[1] for row in ranking["rows"]) <= ranking["seconds"] + 0.01


class Counter(TorchDispatchMode):
    """As FlopCounterMode, whose record of modules cannot see the gradient of what is given to one."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


@pytest.mark.parametrize(
    "most",
    [
        {"matching_steps": 1, "ipc": 2, "real_batch": 30},
        {"matching_steps": 1, "ipc": 30, "real_batch": 1},
        {"matching_steps": 2, "ipc": 5, "real_batch": 1, "inner_epochs": 50},
    ],
    ids=["real images", "synthetic images", "inner training"],
)
def test_an_iterations_operations_are_those_that_torch_counts(most):
    # Without what torch cannot count: the gradients that are written out, and Winograd's convolutions.
    recipe = MatchingRecipe(iterations=1, width=32, depth=3, activation="leaky_relu", **most)
    dataset = tiny_dataset((40, 30))
    each = count_multiply_adds(ConvNet(1, 2, (8, 8), width=32), 1, (8, 8))
    with Counter() as counter:
        recipe.make(dataset, seed=0, device=torch.device("cpu"), precision="float32-direct")
    assert gpu.iteration_operations(recipe, each, [40, 30]) == pytest.approx(counter.total, rel=0.06)


def test_the_papers_condensation_is_of_22_petaflop():
    each = count_multiply_adds(ConvNet(3, 10, (32, 32)), 3, (32, 32))
    found = gpu.iteration_operations(MatchingRecipe.paper(10), each, [5000] * 10)
    assert 1000 * found == pytest.approx(22e15, rel=0.02)


@pytest.mark.slow
def test_two_processes_rank_what_one_does_and_the_table_is_drawn(run, tmp_path):
    steps = ["ranking-1", "ranking-2", "whole", "condensation", "table"]
    options = ["--top-k", "3", "--sample", "3", "--proxies", "random,early-stopping"]
    code, found = run("--steps", *steps, "--table-options", *options)
    assert code == 0
    scores = [{row[0]: row[2:] for row in found[name]["rows"]} for name in ("ranking-1", "ranking-2")]
    assert scores[0] == scores[1]
    assert found["whole"]["epochs"] == 1
    assert found["whole"]["test_accuracy"] > 0.1
    condensation = found["condensation"]
    assert condensation["in_full"]
    rate, seconds = condensation["teraflop_per_second"], condensation["seconds"]
    assert seconds > 0
    rounded = 0.05 * rate + 0.001 * seconds
    assert rate * seconds == pytest.approx(condensation["teraflop_per_iteration"], abs=rounded)
    assert found["table"]["complete"]
    assert (tmp_path / "gpu" / "table_scores" / "comparison.md").exists()
