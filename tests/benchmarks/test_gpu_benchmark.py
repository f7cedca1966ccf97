"""The script for a GPU, tried out on the CPU with sizes that take seconds."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import tiny_dataset
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.cost import count_multiply_adds
from nasproxy.spaces.candidate import Candidate

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import gpu

TINY = ["--device", "cpu", "--dataset", "digits", "--image-size", "8", "--limit", "3", "--ipc", "1", "--epochs", "2"]
TINY += ["--checked", "2", "--check-epochs", "2", "--whole-epochs", "1", "--iterations", "1"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Runs the script with tiny sizes in this process; returns the exit code and what is in its file."""
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))

    def begin(*words: str, apart: bool = False):
        out = tmp_path / "gpu.json"
        monkeypatch.setattr(
            sys, "argv", ["gpu.py", "--out", str(out), *TINY, *([] if apart else ["--in-process"]), *words]
        )
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


def test_a_step_that_fails_ends_no_other(run, monkeypatch):
    def fail(_):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(gpu.Script, "_whole", fail)
    code, found = run("--steps", "whole", "ranking-1")
    assert code == 1
    assert found["whole"]["error"] == "RuntimeError: an illegal memory access"
    assert found["ranking-1"]["complete"]
    monkeypatch.setattr(gpu.Script, "_whole", lambda _: {"complete": True})
    code, found = run("--steps", "whole", "ranking-1")
    assert code == 0
    assert found["whole"]["complete"]


@pytest.mark.parametrize(
    ("dying", "code", "error"),
    [
        ("import os; os.kill(os.getpid(), 9)", 1, "the step's process ended with signal 9"),
        ("import nothing_of_this_name", 1, "the step's process ended with exit code 1"),
        ("import time; time.sleep(60)", 1, "the step did not end within 1 s"),
        ("raise SystemExit(2)", 2, None),
    ],
    ids=["killed", "not begun", "hanging", "wrong input"],
)
def test_what_a_steps_process_dies_of_is_its_result(monkeypatch, tmp_path, dying, code, error):
    script, out = tmp_path / "dying.py", tmp_path / "gpu.json"
    script.write_text(dying)
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "GRACE", 1.0 if "sleep" in dying else 60.0)
    words = ["--out", str(out), "--steps", "whole", "ranking-1", "--budget-minutes", "0.001"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    assert gpu.main() == code
    found = json.loads(out.read_text()) if out.exists() else {}
    assert found.get("whole", {}).get("error") == error


@pytest.mark.parametrize("seconds", [60, 0], ids=["cut off", "ended"])
def test_no_process_of_a_step_outlives_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: int):
    script, left, kept = tmp_path / "leaving.py", tmp_path / "pid", tmp_path / "kept"
    script.write_text(f"""
import pathlib, subprocess, time
heedless = subprocess.Popen(["sh", "-c", "trap '' INT; exec sleep 300"])
pathlib.Path({str(left)!r}).write_text(str(heedless.pid))
try:
    time.sleep({seconds})
except KeyboardInterrupt:
    pathlib.Path({str(kept)!r}).touch()
""")
    monkeypatch.setattr(gpu, "__file__", str(script))
    monkeypatch.setattr(gpu, "GRACE", 5.0)
    words = ["--out", str(tmp_path / "gpu.json"), "--steps", "whole", "--budget-minutes", "0.02"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    gpu.main()
    assert kept.exists() == bool(seconds)
    end = time.monotonic() + 60
    while is_alive(int(left.read_text())):
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """A process that nobody has asked what it ended with is not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_the_first_step_too_ends_with_the_budget(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu.Script, "_left", -1.0)
    code, found = run("--steps", "correctness")
    assert code == 0
    assert (found["correctness"]["complete"], found["correctness"]["came_to"]) == (False, "cpu float32")


def test_a_candidate_that_fails_is_a_row(run, monkeypatch):
    choose = gpu.choose_candidates

    def with_another(*those, **more):
        found, invalid = choose(*those, **more)
        return [*found, Candidate.of({**found[0].config, "activation": "none of these"})], invalid

    monkeypatch.setattr(gpu, "choose_candidates", with_another)
    code, found = run("--steps", "ranking-1")
    ranking = found["ranking-1"]
    assert code == 1
    assert not ranking["complete"]
    assert ranking["candidates"] == 4
    (failed,) = ranking["failures"]
    assert "none of these" in ranking["failures"][failed]
    assert [row[2:4] for row in ranking["rows"] if row[0] == failed] == [[None, None]]
    assert all(row[2] is not None for row in ranking["rows"] if row[0] != failed)


def test_losses_are_apart_by_a_part_of_the_reference_unless_that_is_0_or_infinite():
    infinite = float("inf")
    assert gpu._apart([2.0, 1.0, infinite, 0.0], [2.5, 1.1, infinite, 0.0]) == 0.25
    assert gpu._apart([1.0], [infinite]) == gpu._apart([infinite], [1.0]) == infinite
    assert gpu._apart([0.0], [1e-9]) == pytest.approx(1e-3)


def test_the_candidates_that_are_checked_differ_in_every_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    words = ["gpu.py", "--out", str(tmp_path / "gpu.json"), *TINY, "--limit", "720", "--image-size", "16"]
    script = gpu.Script(gpu._parser().parse_args(words[1:]))
    sample = script._sample(8)
    assert len({candidate.id for candidate in sample}) == 8
    for name, values in gpu.SpaceSource.parse(str(gpu.SPACE)).load().choices.items():
        assert {candidate.config[name] for candidate in sample} == set(values), name


def test_a_condensation_that_is_cut_off_goes_on_where_it_was(run, monkeypatch, tmp_path):
    left = iter([1.0, -1.0])
    monkeypatch.setattr(gpu.Script, "_left", property(lambda _: next(left)))
    code, found = run("--steps", "condensation", "--iterations", "3")
    assert code == 0
    assert (found["condensation"]["iterations"], found["condensation"]["complete"]) == (2, False)
    assert (tmp_path / "gpu" / "condensing.safetensors").exists()
    monkeypatch.setattr(gpu.Script, "_left", 1.0)
    code, found = run("--steps", "condensation", "--iterations", "3")
    assert (found["condensation"]["iterations"], found["condensation"]["complete"]) == (3, True)
    (kept,) = (tmp_path / "gpu").iterdir()
    (cached,) = (tmp_path / "cache").rglob(kept.name)
    assert cached.read_bytes() == kept.read_bytes()
    cached.unlink()  # as on another machine
    (tmp_path / "gpu.json").unlink()
    code, again = run("--steps", "condensation", "--iterations", "3")
    assert again["condensation"]["seconds"] == found["condensation"]["seconds"]
    assert cached.read_bytes() == kept.read_bytes()


def test_a_folder_goes_into_one_file_and_comes_out_of_it(tmp_path):
    archive = tmp_path / "gpu" / "table.tar.gz"

    def write():
        with gpu.packed(archive) as folder:
            folder.mkdir()
            (folder / "study.log").write_text("a line")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    with gpu.packed(archive) as folder:
        assert (folder / "study.log").read_text() == "a line"
    assert [path.name for path in archive.parent.iterdir()] == ["table.tar.gz"]


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
    code, found = run("--steps", *steps, "--table-options", *options, apart=True)
    assert code == 0
    assert run("--steps", *steps, "--table-options", *options) == (0, found)
    scores = [{row[0]: row[2:] for row in found[name]["rows"]} for name in ("ranking-1", "ranking-2")]
    assert scores[0] == scores[1]
    assert found["whole"]["epochs"] == 1
    assert found["whole"]["test_accuracy"] > 0.1
    condensation = found["condensation"]
    assert condensation["complete"]
    rate, seconds = condensation["teraflop_per_second"], condensation["seconds"]
    assert seconds > 0
    rounded = 0.05 * rate + 0.001 * seconds
    assert rate * seconds == pytest.approx(condensation["teraflop_per_iteration"], abs=rounded)
    assert found["table"]["complete"]
    assert (tmp_path / "gpu" / "table_scores" / "comparison.md").exists()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts]
    assert len(kept) <= 8
    assert max(len(path.relative_to(tmp_path).parts) for path in kept) == 3
