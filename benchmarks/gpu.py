"""All that is worth knowing about nasproxy on a GPU, in less than half an hour of it.

    python benchmarks/gpu.py --dataset cifar10 --data-dir DIR --out gpu.json
    PYTHONPATH=. python benchmarks/gpu.py …        # from a checkout that is not installed

Each step's result is written as it arrives; the same command skips what is there and goes on with the rest, until the
budget is spent. What was cut off is kept as far as it came, and begun anew next time.

correctness   a few candidates on the CPU, and on the GPU by plain steps, by recorded ones (twice), and in bfloat16.
ranking-N     all candidates on a proxy, by N processes that share the card; goal: 60 s on an H200.
whole         the default ConvNet on the whole training part, batches of 256; goal: 20 s.
condensation  the paper's setting: seconds and FLOP/s of an outer iteration, all 1,000 if time allows; goal: 3 minutes.
table         figure 5's four proxies by benchmarks/correlation_table.py, one training a score, in what time is left.

Ray is not needed. Besides what every machine with PyTorch, scikit-learn, pandas and rich has, the steps need jaxtyping,
safetensors and platformdirs; the table also optuna, colorlog, sqlalchemy, alembic, mako, typer, jinja2 and filelock.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import logging
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import NasproxyError, RunError
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.cost import count_multiply_adds
from nasproxy.proxies.make import make_proxy, random_proxy
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.candidate import Candidate
from nasproxy.search.cost_model import CostModel
from nasproxy.search.costs import Costs, longest_first
from nasproxy.search.run_directory import write_json
from nasproxy.search.sampling import choose_candidates
from nasproxy.search.space_source import SpaceSource
from nasproxy.search.task import PROXY, Task
from nasproxy.training import train as training_module
from nasproxy.training.precision import resolve_precision
from nasproxy.training.process import prepare_process
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, evaluate, train, training
from nasproxy.versions import library_versions, machine_facts

HERE = Path(__file__).parent
SPACE = HERE.parent / "search_spaces" / "convnet720.py"
FIGURE_5 = "condensed,random,herding,early-stopping"
TRIED = 2  # outer iterations of condensation that are timed, after one that is not


def main() -> int:
    """Does the steps that are missing; returns the exit code."""
    asked = _parser().parse_args()
    try:
        script = Script(asked)
        for name in asked.steps:
            script.do(name)
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on after the last finished step.", file=sys.stderr)
        return 130
    return 0 if script.agrees else 1


@dataclass(frozen=True)
class Ranked:
    """What a process has ranked.

    Args:
        began: reading of ``time.time``, when it stood ready.
        ended: after its last training.
        rows: id, seconds, accuracy and cross-entropy of each candidate.
        plain: why networks were trained without recording their steps, once for each.
    """

    began: float
    ended: float
    rows: list[tuple[str, float, float, float]]
    plain: list[str]


class Script:
    """The steps, and the file of their results."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._deadline: float = time.monotonic() + 60 * asked.budget_minutes
        self._device = torch.device(asked.device)
        self._precision = resolve_precision(asked.precision, self._device)
        self._dataset = load_dataset(asked.dataset, data_dir=asked.data_dir, image_size=asked.image_size)
        self._space = SpaceSource.parse(str(SPACE))
        found, _ = choose_candidates(self._space.load(), self._dataset.image_size, limit=asked.limit, seed=0)
        self._candidates = found
        dataset = self._dataset
        self._costs = Costs(
            self._space.load(),
            found,
            channels=dataset.channels,
            image_size=dataset.image_size,
            num_classes=dataset.num_classes,
        )
        self._done: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
        prepare_process(torch.get_num_threads())

    @property
    def agrees(self) -> bool:
        """Whether the GPU was seen to compute what the CPU does; True where that was not asked."""
        return bool(self._done.get("correctness", {}).get("agrees", True))

    def do(self, name: str) -> None:
        """One step, unless it is there."""
        kind, _, count = name.partition("-")
        skipped = ("out", "budget_minutes", "steps", "data_dir")
        settings = {key: value for key, value in vars(self._asked).items() if key not in skipped}
        there = self._done.get(name, {})
        if there.get("complete") and there.get("settings") == settings:
            print(f"{name}: done before", flush=True)
            return
        if self._left < 0:
            print(f"{name}: no time is left", flush=True)
            return
        began = time.monotonic()
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "correctness": self._correctness,
            "ranking": partial(self._ranking, int(count or 1)),
            "whole": self._whole,
            "condensation": self._condensation,
            "table": self._table,
        }
        found = steps[kind]()
        about = {"settings": settings, "versions": library_versions(), "machine": machine_facts(self._device.type)}
        self._done[name] = {**found, **about, "wall_seconds": round(time.monotonic() - began, 2)}
        write_json(self._asked.out, self._done)
        shown = {key: value for key, value in found.items() if not isinstance(value, (list, dict))}
        print(f"{name}: {json.dumps(shown)}", flush=True)

    @property
    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _payload(self, device: torch.device, precision: str) -> Payload:
        proxy = random_proxy(self._dataset, self._asked.ipc, seed=0)
        threads = torch.get_num_threads()
        return Payload.of(self._space, self._dataset, proxy, device=device.type, precision=precision, threads=threads)

    def _tasks(self, candidates: Sequence[Candidate], epochs: int) -> list[Task]:
        recipe = TrainingRecipe(epochs)
        return [Task(candidate, PROXY, recipe, epochs, 0, candidate.seed(0, 0, PROXY)) for candidate in candidates]

    def _correctness(self) -> dict[str, Any]:
        count = min(self._asked.checked, len(self._candidates))
        tasks = self._tasks(_spread(self._candidates, count), self._asked.check_epochs)
        found, plain = {}, []
        for name, device, precision, recorded in (
            ("cpu float32", torch.device("cpu"), "float32", True),
            ("plain float32", self._device, "float32", False),
            ("recorded float32", self._device, "float32", True),
            ("recorded float32 again", self._device, "float32", True),
            ("recorded bfloat16", self._device, "bfloat16", True),
        ):
            with contextlib.nullcontext() if recorded else patch.object(training_module, "RECORDED", float("inf")):
                ranked = rank(self._payload(device, precision), tasks, float("inf"))
            found[name] = [row[2:] for row in ranked.rows]
            plain += ranked.plain
        losses = {name: [loss for _, loss in rows] for name, rows in found.items()}
        apart = partial(_apart, losses["plain float32"])
        compared = {
            "recorded_from_plain": apart(losses["recorded float32"]),
            "cpu_from_plain": apart(losses["cpu float32"]),
            "bfloat16_from_float32": apart(losses["recorded bfloat16"]),
            "repeats_exactly": losses["recorded float32"] == losses["recorded float32 again"],
        }
        agrees = compared["recorded_from_plain"] < 1e-3 and compared["cpu_from_plain"] < 0.02
        return {**compared, "agrees": agrees, "complete": True, "trained_without_recording": plain, "scores": found}

    def _ranking(self, processes: int) -> dict[str, Any]:
        tasks = self._tasks(self._candidates, self._asked.epochs)
        images = self._asked.ipc * self._dataset.num_classes
        predicted = CostModel(self._costs, proxy_images=images, train_images=len(self._dataset.train)).predict()
        ordered = list(longest_first(tasks, predicted))
        payload, deadline = self._payload(self._device, self._precision), time.time() + self._left
        shares = [ordered[number::processes] for number in range(processes)]
        if processes == 1:
            parts = [rank(payload, ordered, deadline)]
        else:
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                parts = pool.starmap(rank, [(payload, share, deadline) for share in shares])
        rows = [row for part in parts for row in part.rows]
        seconds = max(part.ended for part in parts) - min(part.began for part in parts)
        counted = sum(self._costs[row[0]].multiply_adds for row in rows)
        operations = 2 * counted * (3 * self._asked.epochs * images + len(self._dataset.validation))
        return {
            "complete": len(rows) == len(tasks),
            "candidates": len(rows),
            "seconds": round(seconds, 2),
            "petaflop": operations / 1e15,
            "teraflop_per_second": round(operations / seconds / 1e12, 3),
            "matrix_product_teraflop_per_second": _ceiling(self._device, self._precision),
            "trained_without_recording": [reason for part in parts for reason in part.plain],
            "columns": ["id", "seconds", "accuracy", "cross_entropy", "multiply_adds"],
            "rows": [[*row, self._costs[row[0]].multiply_adds] for row in rows],
        }

    def _whole(self) -> dict[str, Any]:
        dataset, device, epochs = self._dataset, self._device, self._asked.whole_epochs
        parts = {name: _images(dataset, name, device) for name in ("train", "validation", "test")}
        torch.manual_seed(0)
        network = ConvNet(dataset.channels, dataset.num_classes, dataset.image_size)
        each = count_multiply_adds(network, dataset.channels, dataset.image_size)
        network = network.to(device)
        few = Images(parts["train"].images[:512], parts["train"].labels[:512])
        train(copy.deepcopy(network), few, TrainingRecipe(1), None, seed=0, precision=self._precision)
        _wait_for(device)
        began, done = time.perf_counter(), 0
        every = tuple(range(10, epochs, 10))
        recipe = TrainingRecipe(epochs)
        accuracies = []
        for score in training(
            network,
            parts["train"],
            recipe,
            parts["validation"],
            seed=0,
            precision=self._precision,
            evaluate_at=every,
        ):
            done = score.epoch
            accuracies.append((done, score.accuracy))
            if self._left < 0:
                break
        seconds = time.perf_counter() - began
        test = evaluate(network, parts["test"], epoch=done, precision=self._precision)
        operations = 6 * each * len(parts["train"]) * done
        return {
            "complete": done == epochs,
            "epochs": done,
            "seconds": round(seconds, 2),
            "test_accuracy": test.accuracy,
            "petaflop": operations / 1e15,
            "teraflop_per_second": round(operations / seconds / 1e12, 3),
            "validation_accuracies": accuracies,
        }

    def _condensation(self) -> dict[str, Any]:
        recipe = replace(MatchingRecipe.paper(self._asked.ipc), iterations=self._asked.iterations)
        times = [time.perf_counter()]
        tried = replace(recipe, iterations=1 + TRIED)
        where: dict[str, Any] = {"seed": 0, "device": self._device, "precision": self._precision}
        tried.make(self._dataset, **where, on_iteration=lambda *_: times.append(time.perf_counter()))
        each = statistics.median(b - a for a, b in itertools.pairwise(times[1:]))
        found = {"seconds_per_iteration": round(each, 4), "predicted_seconds": round(each * recipe.iterations, 1)}
        operations = self._condensation_operations(recipe)
        found["teraflop_per_iteration"] = operations / 1e12
        found["iteration_teraflop_per_second"] = round(operations / each / 1e12, 3)
        in_time = each * recipe.iterations < self._left
        if in_time:
            proxy = make_proxy(self._dataset, recipe, **where)
            found["seconds"] = round(proxy.seconds, 1)
            found["teraflop_per_second"] = round(operations * recipe.iterations / proxy.seconds / 1e12, 3)
        return {**found, "iterations": recipe.iterations, "in_full": in_time, "complete": in_time}

    def _condensation_operations(self, recipe: MatchingRecipe) -> int:
        dataset = self._dataset
        network = ConvNet(dataset.channels, dataset.num_classes, dataset.image_size)
        each = count_multiply_adds(network, dataset.channels, dataset.image_size)
        sizes = torch.bincount(dataset.train.labels, minlength=dataset.num_classes).tolist()
        return iteration_operations(recipe, each, sizes)

    def _table(self) -> dict[str, Any]:
        asked = self._asked
        folder = asked.out.with_suffix("")
        words = ["--dataset", asked.dataset, "--space", str(SPACE), "--proxies", FIGURE_5, "--ipc", str(asked.ipc)]
        words += ["--epochs", str(asked.epochs), "--finalist-epochs", str(asked.whole_epochs), "--repeats", "1"]
        words += ["--executor", "inline", "--device", self._device.type, "--out", str(folder / "table")]
        words += ["--results", str(folder), "--name", "table_scores", "--time-budget", str(self._left / 60)]
        optional = {"--data-dir": asked.data_dir, "--image-size": asked.image_size, "--limit": asked.limit}
        words += [word for name, value in optional.items() if value is not None for word in (name, str(value))]
        words += asked.table_options
        code = subprocess.run([sys.executable, HERE / "correlation_table.py", *words], check=False).returncode  # noqa: S603
        return {"complete": code == 0, "exit_code": code, "folder": folder.name}


def iteration_operations(recipe: MatchingRecipe, multiply_adds: int, class_sizes: Sequence[int]) -> int:
    """Floating-point operations of an outer iteration of gradient matching, two for each multiply-add.

    Forward and backward are three times the forward pass. Differentiating the synthetic images' gradients is five
    times: for the default ConvNet at 32×32 torch's counter finds 2.5 backward passes in it.

    Args:
        recipe: how many images go through the network, and how often.
        multiply_adds: of an image's forward pass.
        class_sizes: training images of each class.
    """
    real, synthetic = sum(min(recipe.real_batch, size) for size in class_sizes), recipe.ipc * len(class_sizes)
    matching = recipe.matching_steps * (3 * real + (3 + 5) * synthetic)
    training = (recipe.matching_steps - 1) * recipe.inner_epochs * 3 * synthetic
    return 2 * multiply_adds * (matching + training)


def rank(payload: Payload, tasks: Sequence[Task], deadline: float) -> Ranked:
    """Trains ``tasks`` one after another, until ``time.time`` is ``deadline``.

    The first is trained twice: what a process does once, as loading kernels, is not counted.
    """
    with _reasons() as plain:
        bench = Bench(payload)
        bench.perform(replace(tasks[-1], epochs=1))
        began, rows = time.time(), []
        for task in tasks:
            if time.time() > deadline:
                break
            outcome = bench.perform(task)
            if outcome.failure is not None:
                raise RunError(f"{dict(task.candidate.config)}: {outcome.failure}")
            score = outcome.scores[-1]
            rows.append((task.candidate.id, round(outcome.seconds, 5), score.accuracy, score.cross_entropy))
    return Ranked(began, time.time(), rows, plain)


@contextlib.contextmanager
def _reasons() -> Iterator[list[str]]:
    """Collects why trainings were not recorded."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("nasproxy.training.recorded")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _apart(reference: Sequence[float], losses: Sequence[float]) -> float:
    """The largest relative difference."""
    return max(abs(one - other) / other for one, other in zip(losses, reference, strict=True))


def _ceiling(device: torch.device, precision: str, size: int = 8192) -> float:
    """10¹² operations a second of a large matrix product: what there is to reach."""
    size = size if device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    times = []
    for _ in range(10):
        _wait_for(device)
        began = time.perf_counter()
        a @ b
        _wait_for(device)
        times.append(time.perf_counter() - began)
    return round(2 * size**3 / statistics.median(times) / 1e12, 3)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _images(dataset: ImageDataset, part: str, device: torch.device) -> Images:
    split = getattr(dataset, part).to(device)
    return Images(dataset.normalisation.apply(split.images), split.labels)


def _spread(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    return [candidates[len(candidates) * number // count] for number in range(count)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    steps = ("correctness", "ranking-1", "whole", "condensation", "ranking-2", "ranking-4", "table")
    add("--steps", nargs="+", choices=steps, default=list(steps), help="default: all, in this order")
    add("--dataset", default="cifar10", help="as for nasproxy search")
    add("--data-dir", type=Path)
    add("--image-size", type=int)
    add("--budget-minutes", type=float, default=25.0, help="no step begins later (default: %(default)s)")
    add("--out", type=Path, default=HERE / "results" / "gpu.json")
    add("--device", default="cuda", choices=("cuda", "cpu"), help="cpu tries the script out")
    add("--precision", default="auto")
    add("--limit", type=int, help="candidates; all by default")
    add("--ipc", type=int, default=10, help="images a class of proxies (default: %(default)s)")
    add("--epochs", type=int, default=100, help="on a proxy (default: %(default)s)")
    add("--checked", type=int, default=8, help="candidates of the first step (default: %(default)s)")
    add("--check-epochs", type=int, default=40, help="of each of them (default: %(default)s)")
    add("--whole-epochs", type=int, default=100, help="on the whole data (default: %(default)s)")
    add("--iterations", type=int, default=1000, help="of condensation (default: %(default)s)")
    add("--table-options", nargs=argparse.REMAINDER, default=[], help="for correlation_table.py; last")
    return parser


if __name__ == "__main__":
    sys.exit(main())
