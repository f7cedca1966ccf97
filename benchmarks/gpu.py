"""All that is worth knowing about nasproxy on a GPU, in commands of less than ten minutes.

    python benchmarks/gpu.py --dataset cifar10 --data-dir DIR --out gpu.json

Each step is a process of its own, so that an error of CUDA's ends no other, and its result is written as it arrives.
The same command skips what is there and goes on with the rest, until the budget is spent. What was cut off is kept as
far as it came, and begun anew next time; condensing and the table go on where they were. Beside ``gpu.json`` there is a
folder ``gpu`` of at most seven files: both may be copied elsewhere, and gone on with there. Exit code 1: a step failed,
or some of its candidates, or the GPU computes something else than the CPU; the file says which.

correctness   a few candidates on the CPU, and on the GPU by plain steps, by recorded ones (twice), and in bfloat16.
ranking-N     all candidates on a proxy, by N processes that share the card; goal: 60 s on an H200.
whole         the default ConvNet on the whole training part, batches of 256; goal: 20 s.
condensation  the paper's setting: seconds and FLOP/s of an outer iteration, then all 1,000; goal: 3 minutes.
table         figure 5's four proxies by benchmarks/correlation_table.py, one training a score, in what time is left.

From a checkout that is not installed ``PYTHONPATH=. python benchmarks/gpu.py …`` does all but the table, which finds
proxies by nasproxy's entry points. ``pip install --no-deps --no-build-isolation .`` registers them without a network;
so does ``PYTHONPATH`` with a folder that holds an installation's ``nasproxy-….dist-info`` or ``nasproxy.egg-info``.

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
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from nasproxy.condensation.course import Course
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import NasproxyError
from nasproxy.files import make_folder, write_atomically, write_json
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.cost import count_multiply_adds
from nasproxy.proxies.make import cached_proxy, make_proxy, open_checkpoints, random_proxy
from nasproxy.proxies.proxy_file import save_proxy
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.cost_model import CostModel
from nasproxy.search.costs import Costs, longest_first
from nasproxy.search.task import PROXY, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.sampling import choose_candidates, stratified
from nasproxy.spaces.source import SpaceSource
from nasproxy.training import train as training_module
from nasproxy.training.precision import in_bfloat16, resolve_precision
from nasproxy.training.process import prepare_process
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, evaluate, train, training
from nasproxy.versions import library_versions, machine_facts

HERE = Path(__file__).parent
SPACE = HERE.parent / "search_spaces" / "convnet720.py"
FIGURE_5 = "condensed,random,herding,early-stopping"
TRIED = 2  # outer iterations of condensation that are timed, after one that is not
GRACE = 60.0  # seconds after the budget in which a step must have ended
TO_KEEP = 20.0  # seconds that one which has not may take to keep what it has
SMALLEST = 1e-6  # losses below are taken for this one: nothing is a multiple of 0
STEPS = ("correctness", "ranking-1", "whole", "condensation", "ranking-2", "ranking-4", "table")
UNCOUNTED = ("out", "budget_minutes", "steps", "data_dir", "in_process")  # options that make no other result


def main() -> int:
    """Does the steps that are missing; returns the exit code."""
    asked = _parser().parse_args()
    deadline = time.monotonic() + 60 * asked.budget_minutes
    try:
        for name in asked.steps:
            asked.budget_minutes = (deadline - time.monotonic()) / 60
            if is_done(asked, name):
                print(f"{name}: done before", flush=True)
            elif asked.budget_minutes < 0:
                print(f"{name}: no time is left", flush=True)
            elif asked.in_process:
                Script(asked).do(name)
            elif (code := _do_apart(asked, name)) in (2, 130):  # not the step's fault
                return code
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on after the last finished step.", file=sys.stderr)
        return 130
    found = _read(asked.out)
    return 0 if all(_is_well(found[name]) for name in asked.steps if name in found) else 1


def is_done(asked: argparse.Namespace, name: str) -> bool:
    """Whether the file has the step's whole result, by the same settings."""
    there = _read(asked.out).get(name, {})
    return bool(there.get("complete")) and there.get("settings") == _settings(asked)


def _read(out: Path) -> dict[str, Any]:
    return dict(json.loads(out.read_text(encoding="utf-8"))) if out.exists() else {}


def _settings(asked: argparse.Namespace) -> dict[str, Any]:
    return {key: value for key, value in vars(asked).items() if key not in UNCOUNTED}


def _is_well(found: Mapping[str, Any]) -> bool:
    """Of a step's result, whole or not."""
    return "error" not in found and not found.get("failures") and found.get("agrees", True)


def _keep(asked: argparse.Namespace, name: str, found: Mapping[str, Any]) -> None:
    """Writes a step's result into the file."""
    entry = {**found, "settings": _settings(asked), "ended": time.time()}
    write_json(asked.out, {**_read(asked.out), name: entry})
    shown = {key: value for key, value in found.items() if not isinstance(value, (list, dict))}
    print(f"{name}: {json.dumps(shown)}", flush=True)


def _do_apart(asked: argparse.Namespace, name: str) -> int:
    """One step in a process of its own; what it dies of is its result. Returns its exit code."""
    words = sys.argv[1:]
    last = words.index("--table-options") if "--table-options" in words else len(words)
    mine = ["--in-process", "--steps", name, "--budget-minutes", str(asked.budget_minutes)]
    command = [sys.executable, __file__, *words[:last], *mine, *words[last:]]
    began, most = time.time(), 60 * asked.budget_minutes + GRACE
    try:
        code = _run_whole(command, most)
        reason = f"the step's process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
    except subprocess.TimeoutExpired:
        code, reason = 1, f"the step did not end within {most:.0f} s"
    if code and code not in (2, 130) and _read(asked.out).get(name, {}).get("ended", 0.0) < began:
        _keep(asked, name, {"complete": False, "error": reason})
    return code


def _run_whole(command: Sequence[str], seconds: float) -> int:
    """A command's exit code; when it ends, or is ended, all that it has started ends too, and leaves the card."""
    with subprocess.Popen(command, start_new_session=True) as process:  # noqa: S603
        try:
            return process.wait(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                # As by Ctrl-C, on which each process keeps what it has; who does not heed it is killed.
                os.killpg(process.pid, signal.SIGINT)
                try:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(TO_KEEP)
                finally:
                    os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Ranked:
    """What a process has ranked.

    Args:
        began: reading of ``time.time``, when it stood ready.
        ended: after its last training.
        rows: id, seconds, accuracy and cross-entropy of each candidate; None for the two of one that failed.
        plain: why networks were trained without recording their steps, once for each.
        failures: reasons by candidate id.
    """

    began: float
    ended: float
    rows: list[tuple[str, float, float | None, float | None]]
    plain: list[str]
    failures: dict[str, str]


class Script:
    """The steps, in this process."""

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
        self._folder: Path = asked.out.with_suffix("")  # of what does not go into the file
        prepare_process(torch.get_num_threads())

    def do(self, name: str) -> None:
        """One step; what goes wrong is its result."""
        kind, _, count = name.partition("-")
        began = time.monotonic()
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "correctness": self._correctness,
            "ranking": partial(self._ranking, int(count or 1)),
            "whole": self._whole,
            "condensation": self._condensation,
            "table": self._table,
        }
        try:
            found = steps[kind]()
        except Exception as error:
            traceback.print_exc()
            found = {"complete": False, "error": f"{type(error).__name__}: {error}"}
        about = {"versions": library_versions(), "machine": machine_facts(self._device.type)}
        _keep(self._asked, name, {**found, **about, "wall_seconds": round(time.monotonic() - began, 2)})

    @property
    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _payload(self, device: torch.device, precision: str, processes: int = 1) -> Payload:
        proxy = random_proxy(self._dataset, self._asked.ipc, seed=0)
        threads = max(1, torch.get_num_threads() // processes)
        return Payload.of(self._space, self._dataset, proxy, device=device.type, precision=precision, threads=threads)

    def _tasks(self, candidates: Sequence[Candidate], epochs: int) -> list[Task]:
        recipe = TrainingRecipe(epochs)
        return [Task(candidate, PROXY, recipe, epochs, 0, candidate.seed(0, 0, PROXY)) for candidate in candidates]

    def _correctness(self) -> dict[str, Any]:
        tasks = self._tasks(self._sample(min(self._asked.checked, len(self._candidates))), self._asked.check_epochs)
        found, losses, plain = {}, {}, []
        failures: dict[str, str] = {}
        for name, device, precision, recorded in (
            ("cpu float32", torch.device("cpu"), "float32", True),
            ("plain float32", self._device, "float32", False),
            ("recorded float32", self._device, "float32", True),
            ("recorded float32 again", self._device, "float32", True),
            ("recorded bfloat16", self._device, "bfloat16", True),
        ):
            with contextlib.nullcontext() if recorded else _plain_steps():
                ranked = rank(self._payload(device, precision), tasks, time.time() + self._left)
            if len(ranked.rows) < len(tasks):
                return {"complete": False, "came_to": name, "failures": failures}
            found[name] = [row[2:] for row in ranked.rows]
            losses[name] = [float("inf") if row[3] is None else row[3] for row in ranked.rows]
            plain += ranked.plain
            failures |= {f"{candidate}, {name}": reason for candidate, reason in ranked.failures.items()}
        apart = partial(_apart, losses["plain float32"])
        compared = {
            "recorded_from_plain": apart(losses["recorded float32"]),
            "cpu_from_plain": apart(losses["cpu float32"]),
            "bfloat16_from_float32": apart(losses["recorded bfloat16"]),
            "repeats_exactly": losses["recorded float32"] == losses["recorded float32 again"],
        }
        agrees = compared["recorded_from_plain"] < 1e-3 and compared["cpu_from_plain"] < 0.02 and not failures
        more = {"trained_without_recording": plain, "failures": failures, "scores": found}
        configs = [dict(task.candidate.config) for task in tasks]
        return {**compared, "agrees": agrees, "complete": not failures, "configs": configs, **more}

    def _sample(self, count: int) -> list[Candidate]:
        """Candidates of every choice, as far as so few can be."""
        configs = [candidate.config for candidate in self._candidates]
        return [Candidate.of(config) for config in stratified(self._space.load(), configs, count, seed=0)]

    def _ranking(self, processes: int) -> dict[str, Any]:
        tasks = self._tasks(self._candidates, self._asked.epochs)
        images = self._asked.ipc * self._dataset.num_classes
        predicted = CostModel(self._costs, proxy_images=images, train_images=len(self._dataset.train)).predict()
        ordered = list(longest_first(tasks, predicted))
        payload = self._payload(self._device, self._precision, processes)
        deadline = time.time() + self._left
        shares = [ordered[number::processes] for number in range(processes)]
        if processes == 1:
            parts = [rank(payload, ordered, deadline)]
        else:
            # Unlike multiprocessing's, it says so when a process is killed.
            with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
                parts = list(pool.map(rank, [payload] * processes, shares, [deadline] * processes))
        rows = [row for part in parts for row in part.rows]
        seconds = max(part.ended for part in parts) - min(part.began for part in parts)
        counted = sum(self._costs[row[0]].multiply_adds for row in rows if row[2] is not None)
        failures = {candidate: reason for part in parts for candidate, reason in part.failures.items()}
        operations = 2 * counted * (3 * self._asked.epochs * images + len(self._dataset.validation))
        return {
            "complete": len(rows) == len(tasks) and not failures,
            "candidates": len(rows),
            "seconds": round(seconds, 2),
            "petaflop": operations / 1e15,
            "teraflop_per_second": round(operations / seconds / 1e12, 3),
            "matrix_product_teraflop_per_second": _ceiling(self._device, self._precision),
            "trained_without_recording": [reason for part in parts for reason in part.plain],
            "failures": failures,
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
        make_folder(self._folder)
        kept = self._recall_proxy(recipe)
        checkpoints = open_checkpoints(self._folder / "condensing.safetensors", self._dataset, recipe, **where)
        assert checkpoints is not None
        course = Course(checkpoints, checkpoints.load(), lambda: self._left < 0)
        proxy = make_proxy(self._dataset, recipe, **where, course=course)
        if proxy.finished:
            save_proxy(proxy, kept)
            checkpoints.discard()
        done = len(proxy.history)
        found["seconds"] = round(proxy.seconds, 1)
        found["teraflop_per_second"] = round(operations * done / proxy.seconds / 1e12, 3)
        return {**found, "iterations": done, "of": recipe.iterations, "complete": proxy.finished}

    def _recall_proxy(self, recipe: MatchingRecipe) -> Path:
        """Where a condensed proxy is kept beside the other results; if it is there, nasproxy's cache gets it back."""
        cached = cached_proxy(self._dataset, recipe, seed=0, device=self._device, precision=self._precision)
        kept = self._folder / cached.name
        if kept.exists() and not cached.exists():
            write_atomically(make_folder(cached.parent) / cached.name, kept.read_bytes())
        return kept

    def _condensation_operations(self, recipe: MatchingRecipe) -> int:
        dataset = self._dataset
        network = ConvNet(dataset.channels, dataset.num_classes, dataset.image_size)
        each = count_multiply_adds(network, dataset.channels, dataset.image_size)
        sizes = torch.bincount(dataset.train.labels, minlength=dataset.num_classes).tolist()
        return iteration_operations(recipe, each, sizes)

    def _table(self) -> dict[str, Any]:
        asked = self._asked
        if self._left <= 0:  # loading the data has taken it
            return {"complete": False}
        self._recall_proxy(MatchingRecipe.paper(asked.ipc))
        words = ["--dataset", asked.dataset, "--space", str(SPACE), "--proxies", FIGURE_5, "--ipc", str(asked.ipc)]
        words += ["--epochs", str(asked.epochs), "--finalist-epochs", str(asked.whole_epochs), "--repeats", "1"]
        words += ["--executor", "inline", "--device", self._device.type]
        words += ["--results", str(self._folder), "--name", "table_scores", "--time-budget", str(self._left / 60)]
        optional = {"--data-dir": asked.data_dir, "--image-size": asked.image_size, "--limit": asked.limit}
        words += [word for name, value in optional.items() if value is not None for word in (name, str(value))]
        with packed(self._folder / "table.tar.gz") as folder:
            command = [sys.executable, HERE / "correlation_table.py", *words, "--out", str(folder)]
            code = subprocess.run([*command, *asked.table_options], check=False).returncode  # noqa: S603
        found = {"complete": code == 0, "exit_code": code, "folder": self._folder.name}
        return found if code in (0, 130) else {**found, "error": f"correlation_table.py ended with exit code {code}"}


@contextlib.contextmanager
def packed(archive: Path) -> Iterator[Path]:
    """A folder for the length of the context, of what ``archive`` holds; what is there in the end goes into it."""
    with TemporaryDirectory() as parent:
        folder = Path(parent) / "table"
        if archive.exists():
            with tarfile.open(archive) as file:
                file.extractall(parent, filter="data")
        try:
            yield folder
        finally:
            if folder.exists():
                make_folder(archive.parent)
                beside = archive.with_suffix(".new")
                with tarfile.open(beside, "w:gz") as file:
                    file.add(folder, folder.name)
                beside.replace(archive)


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
    failures: dict[str, str] = {}
    with _reasons() as plain:
        bench = Bench(payload)
        bench.perform(replace(tasks[-1], epochs=1))
        began, rows = time.time(), []
        for task in tasks:
            if time.time() > deadline:
                break
            outcome = bench.perform(task)
            score = outcome.scores[-1] if outcome.scores else None
            measured = (None, None) if score is None else (score.accuracy, score.cross_entropy)
            rows.append((task.candidate.id, round(outcome.seconds, 5), *measured))
            if outcome.failure is not None:
                failures[task.candidate.id] = outcome.failure
    return Ranked(began, time.time(), rows, plain, failures)


def _plain_steps() -> contextlib.AbstractContextManager[object]:
    return patch.object(training_module, "RECORDED", float("inf"))


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
    """The largest relative difference; infinite where one of the two diverged and the other did not."""
    return max(
        0.0 if one == other else abs(one - other) / (other if SMALLEST < other < float("inf") else SMALLEST)
        for one, other in zip(losses, reference, strict=True)
    )


def _ceiling(device: torch.device, precision: str, size: int = 8192) -> float:
    """10¹² operations a second of a large matrix product: what there is to reach."""
    size = size if device.type == "cuda" else 256
    dtype = torch.bfloat16 if in_bfloat16(precision) else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.allow_abbrev = False  # options are handed to the processes of steps by their whole names
    add = parser.add_argument
    add("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="default: all, in this order")
    add("--dataset", default="cifar10", help="as for nasproxy search")
    add("--data-dir", type=Path)
    add("--image-size", type=int)
    add("--budget-minutes", type=float, default=8.0, help="no step begins later (default: %(default)s)")
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
    add("--in-process", action="store_true", help="do the steps in this process")
    add("--table-options", nargs=argparse.REMAINDER, default=[], help="for correlation_table.py; last")
    return parser


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # or the step's processes would live on
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
