"""Seconds and memory of condensing by gradient matching: nasproxy against Algorithm 1 written down as it reads.

    python benchmarks/condensation_speed.py --ipc 1 10 --rounds 5
    python benchmarks/condensation_speed.py --dataset cifar10 --data-dir DIR --ipc 1 10

The rivals (``plain_condensation.py``, nasproxy in float32, nasproxy in bfloat16) are processes of their own, warmed up
and then asked for one outer iteration each in turn, so that other work on the machine meets all alike. They see the
same real images and settings: the paper's, 256 real images of a class in each matching step. Beside the wall time
stands the processor time of all threads, which hardly grows on a busy machine. An iteration at ten images a class
would take the plain one minutes: at T above 1 a part of it is run that has the same mixture of matching and inner
training (2 of 10 matching steps and a fifth of the inner epochs). Random pixels stand in for a dataset.

With ``--growth``, how nasproxy's seconds grow with images per class, classes and image size. With ``--accuracy N``,
what default ConvNets learn from N sets that each of the three makes of scikit-learn's digits in equally many
iterations. Each part replaces its own entries of ``benchmarks/results/condensation_speed.json`` and leaves the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from plain_condensation import outer_iteration, plain_convnet
from result_file import RESULTS, commit

from nasproxy.cli.output import plain_table, stdout
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.datasets.assemble import assemble
from nasproxy.datasets.image_dataset import ImageDataset, Split
from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.source import Source
from nasproxy.files import write_json
from nasproxy.networks.convnet import ConvNet
from nasproxy.training.process import peak_memory_bytes, prepare_process
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train
from nasproxy.versions import library_versions, machine_facts, usable_cores

PLAIN = "plain"
ENGINES = (PLAIN, "float32", "bfloat16")
CPU = torch.device("cpu")
# Short, so that the plain implementation takes minutes for a set; from noise, so that all accuracy is condensation's.
ACCURACY = {
    1: MatchingRecipe(ipc=1, iterations=100, matching_steps=1, inner_epochs=0, real_batch=64),
    10: MatchingRecipe(ipc=10, iterations=8, matching_steps=4, inner_epochs=5, real_batch=64),
}
ACCURACY_EPOCHS = 60


def main() -> None:
    """Runs what is asked for, writes the results, prints them."""
    arguments = _parser().parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    found: dict[str, Any] = {}
    kept = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if arguments.accuracy:
        found["accuracy"] = [accuracy(arguments, ipc) for ipc in arguments.ipc]
    elif arguments.growth:
        found["growth"] = growth(arguments)
    else:
        found["speed"] = [compare(arguments, ipc) for ipc in arguments.ipc]
    write_json(arguments.out, merged(kept, found))
    show(found)


def merged(kept: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What the file holds afterwards: rows of other sizes stay."""
    whole = {**kept, **found}
    for part in ("speed", "accuracy"):
        rows = {(row["dataset"], row["ipc"]): row for row in (*kept.get(part, []), *found.get(part, []))}
        if rows:
            whole[part] = [rows[key] for key in sorted(rows)]
    return whole


def compare(arguments: argparse.Namespace, ipc: int) -> dict[str, Any]:
    """All engines in turn at ``ipc`` images a class: seconds of each iteration, ratios, peak memory."""
    recipe, part = partial_iteration(ipc)
    rivals = {
        engine: Rival({**_task(arguments), "engine": engine, "ipc": ipc, "threads": arguments.threads})
        for engine in arguments.engines
    }
    load = [os.getloadavg()[0]]
    rounds = [{engine: rival.iterate() for engine, rival in rivals.items()} for _ in range(arguments.rounds)]
    memory = {engine: rival.end() for engine, rival in rivals.items()}
    engines = {
        engine: {
            "wall_seconds": spread([turn[engine]["wall"] for turn in rounds]),
            "processor_seconds": spread([turn[engine]["processor"] for turn in rounds]),
            "peak_memory_bytes": memory[engine]["peak"],
            "memory_before_bytes": memory[engine]["before"],
        }
        for engine in rivals
    }
    ratios = {
        engine: {
            kind: spread([turn[PLAIN][kind] / turn[engine][kind] for turn in rounds]) for kind in ("wall", "processor")
        }
        for engine in rivals
        if engine != PLAIN and PLAIN in rivals
    }
    return {
        "ipc": ipc,
        "dataset": arguments.dataset or f"random pixels, {arguments.classes} classes, 32×32×3",
        "matching_steps": recipe.matching_steps,
        "inner_epochs": recipe.inner_epochs,
        "real_batch": recipe.real_batch,
        "part_of_an_iteration": part,
        "engines": engines,
        "plain_takes_times_as_long": ratios,
        **_conditions(arguments, [*load, os.getloadavg()[0]]),
    }


def partial_iteration(ipc: int) -> tuple[MatchingRecipe, float]:
    """The paper's settings with two matching steps at the most, inner epochs in proportion, and what part that is."""
    whole = MatchingRecipe.paper(ipc)
    steps = min(2, whole.matching_steps)
    part = steps / whole.matching_steps
    epochs = round(part * (whole.matching_steps - 1) * whole.inner_epochs)
    return replace(whole, matching_steps=steps, inner_epochs=epochs), part


def growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """Processor seconds in float32, the least of a few, as one size after another is doubled.

    They are of one matching step; and, once more for images per class, of two with training between them.
    """
    step, trained = {"matching_steps": 1, "inner_epochs": 0}, {"matching_steps": 2, "inner_epochs": 5}
    base = {"ipc": 1, "classes": 2, "size": 32, "real_batch": 64}
    rows = []
    for name, values, part in (
        ("ipc", (1, 2, 4, 8), step),
        ("classes", (2, 4, 8), step),
        ("size", (16, 32, 64), step),
        ("ipc", (1, 2, 4, 8), trained),
    ):
        for value in values:
            case = {**base, **part, name: value}
            rival = Rival({**case, "engine": "float32", "threads": arguments.threads})
            seconds = [rival.iterate()["processor"] for _ in range(arguments.rounds)]
            peak = rival.end()["peak"]
            rows.append({"varied": name, **case, "processor_seconds": min(seconds), "peak_memory_bytes": peak})
    return {"rows": rows, **_conditions(arguments, [os.getloadavg()[0]])}


class Rival:
    """An engine in a process of its own, warmed up, that makes an outer iteration when asked."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._process = subprocess.Popen(  # noqa: S603, this very script
            [sys.executable, __file__, "--worker", json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._read()

    def iterate(self) -> dict[str, float]:
        """Wall and processor seconds of one iteration."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        return self._read()

    def end(self) -> dict[str, float]:
        """The process's memory in bytes: before its first iteration, and the most."""
        said, _ = self._process.communicate()
        found: dict[str, float] = json.loads(said)
        return found

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found


class _Enough(Exception):  # noqa: N818, no error
    """Nobody asks for another iteration."""


def work(task: dict[str, Any]) -> None:
    """The other end of :class:`Rival`: an iteration for each line that comes, its seconds as a line of JSON."""
    dataset = _dataset(task)
    recipe, _ = partial_iteration(task["ipc"])
    changes = {name: task[name] for name in ("real_batch", "matching_steps", "inner_epochs") if name in task}
    recipe = replace(recipe, **changes, iterations=10**6)
    torch.set_num_threads(task["threads"])
    if task["engine"] != PLAIN:
        prepare_process(task["threads"])
    before = peak_memory_bytes(CPU)
    run(task["engine"], dataset, replace(recipe, iterations=1, matching_steps=1), seed=0)
    clock = _Clock()
    try:
        run(task["engine"], dataset, recipe, seed=0, on_iteration=clock.tick, before=clock.wait)
    except _Enough:
        print(json.dumps({"before": before, "peak": peak_memory_bytes(CPU)}), flush=True)


class _Clock:
    """Waits for a line before each iteration, and tells its seconds after it."""

    def __init__(self) -> None:
        self._wall = self._processor = 0.0

    def wait(self) -> None:
        if not self._wall:
            print("{}", flush=True)
        if not sys.stdin.readline():
            raise _Enough
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def tick(self, iteration: int, loss: float) -> None:
        seconds = {"wall": time.perf_counter() - self._wall, "processor": time.process_time() - self._processor}
        print(json.dumps(seconds), flush=True)
        self.wait()


def run(
    engine: str,
    dataset: ImageDataset,
    recipe: MatchingRecipe,
    *,
    seed: int,
    on_iteration: Callable[[int, float], None] | None = None,
    before: Callable[[], None] | None = None,
) -> torch.Tensor:
    """The images that ``engine`` learns; ``before`` is called once, as late as can be before the first iteration."""
    before = before or (lambda: None)
    if engine != PLAIN:
        before()
        made = recipe.make(dataset, seed=seed, device=CPU, precision=engine, on_iteration=on_iteration)
        return made.images
    torch.manual_seed(seed)
    real = dataset.normalisation.apply(dataset.train.images)
    by_class = [real[positions] for positions in dataset.train.indices_by_class(dataset.num_classes)]
    noise = torch.randn(recipe.ipc * dataset.num_classes, *real.shape[1:])
    drawn = torch.cat([members[torch.randperm(len(members))[: recipe.ipc]] for members in by_class])
    images = (drawn if recipe.initial == "real" else noise).requires_grad_()
    optimizer = torch.optim.SGD([images], lr=recipe.image_learning_rate, momentum=recipe.image_momentum)
    before()
    for iteration in range(recipe.iterations):
        network = plain_convnet(dataset.channels, dataset.num_classes, dataset.image_size[0])
        loss = outer_iteration(network, by_class, images, optimizer, recipe)
        if on_iteration is not None:
            on_iteration(iteration + 1, loss)
    return images.detach()


def accuracy(arguments: argparse.Namespace, ipc: int) -> dict[str, Any]:
    """Test accuracies of default ConvNets, in float32, trained on sets that the engines made in equal iterations."""
    if ipc not in ACCURACY:
        raise SystemExit(f"Accuracy is compared at {' or '.join(map(str, ACCURACY))} images a class, not at {ipc}.")
    prepare_process(arguments.threads)
    dataset, made_by = load_dataset("digits"), ACCURACY[ipc]
    held = Images(dataset.normalisation.apply(dataset.test.images), dataset.test.labels)
    labels = torch.arange(dataset.num_classes).repeat_interleave(ipc)
    recipe = TrainingRecipe(epochs=ACCURACY_EPOCHS)
    scores: dict[str, list[float]] = {engine: [] for engine in arguments.engines}
    for seed in range(arguments.accuracy):
        for engine in arguments.engines:
            images = Images(run(engine, dataset, made_by, seed=seed), labels)
            for number in range(arguments.networks):
                torch.manual_seed(1000 * seed + number)
                network = ConvNet(dataset.channels, dataset.num_classes, dataset.image_size)
                last = train(network, images, recipe, held, seed=number, precision="float32")[-1]
                scores[engine].append(last.accuracy)
            found = " ".join(f"{score:.3f}" for score in scores[engine][-arguments.networks :])
            print(f"{ipc} images a class, set {seed}, {engine}: {found}", file=sys.stderr, flush=True)
    return {
        "dataset": "digits",
        "ipc": ipc,
        "iterations": made_by.iterations,
        "matching_steps": made_by.matching_steps,
        "inner_epochs": made_by.inner_epochs,
        "real_batch": made_by.real_batch,
        "sets": arguments.accuracy,
        "networks": arguments.networks,
        "epochs": ACCURACY_EPOCHS,
        "test_accuracy": {engine: spread(values) for engine, values in scores.items()},
        **_conditions(arguments, [os.getloadavg()[0]]),
    }


def spread(values: list[float]) -> dict[str, Any]:
    """Median, mean and deviation, and the values themselves."""
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "values": values,
    }


def show(found: dict[str, Any]) -> None:
    """The results as tables."""
    for row in found.get("speed", []):
        table = plain_table("engine", "wall s", "processor s", "plain takes, times", "peak MiB", right=("wall s",))
        for engine, of in row["engines"].items():
            ratio = row["plain_takes_times_as_long"].get(engine)
            table.add_row(
                engine,
                f"{of['wall_seconds']['median']:.2f}",
                f"{of['processor_seconds']['median']:.2f}",
                f"{ratio['processor']['median']:.2f} (wall {ratio['wall']['median']:.2f})" if ratio else "1",
                f"{of['peak_memory_bytes'] / 2**20:.0f}",
            )
        print(f"\n{row['ipc']} images a class, {row['part_of_an_iteration']:.0%} of an outer iteration")
        stdout().print(table)
    for row in found.get("growth", {}).get("rows", []):
        of = f"{row['matching_steps']} matching steps, {row['inner_epochs']} epochs between"
        print(f"{row['varied']} {row[row['varied']]}, {of}: {row['processor_seconds']:.3f} s")
    for row in found.get("accuracy", []):
        print(f"\n{row['ipc']} images a class, {row['iterations']} iterations: test accuracy")
        for engine, of in row["test_accuracy"].items():
            print(f"{engine}: {of['mean']:.3f} ± {of['deviation'] or 0:.3f}")


def _dataset(task: dict[str, Any]) -> ImageDataset:
    if task.get("dataset"):
        return load_dataset(task["dataset"], data_dir=Path(task["data_dir"]) if task["data_dir"] else None)
    classes, size = task["classes"], task["size"]
    generator = torch.Generator().manual_seed(0)

    def part(number: int) -> Split:
        images = torch.randint(256, (classes * number, 3, size, size), dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(classes).repeat_interleave(number))

    names = tuple(f"class {label}" for label in range(classes))
    return assemble("random", Source({"train": part(300), "validation": part(1), "test": part(1)}, names))


def _task(arguments: argparse.Namespace) -> dict[str, Any]:
    data_dir = str(arguments.data_dir) if arguments.data_dir else None
    return {"dataset": arguments.dataset, "data_dir": data_dir, "classes": arguments.classes, "size": 32}


def _conditions(arguments: argparse.Namespace, load: list[float]) -> dict[str, Any]:
    return {
        "threads": arguments.threads,
        "usable_cores": usable_cores(),
        "load_average": load,
        "commit": commit(),
        "versions": library_versions(),
        "machine": machine_facts("cpu"),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10], help="images per class (default: 1 10)")
    parser.add_argument("--rounds", type=int, default=3, help="iterations of each engine, in turn (default: 3)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each engine (default: all cores)")
    parser.add_argument("--dataset", help="as of nasproxy search (default: random pixels)")
    parser.add_argument("--classes", type=int, default=10, help="of random pixels (default: 10)")
    parser.add_argument("--data-dir", type=Path, help="as of nasproxy search")
    parser.add_argument("--growth", action="store_true", help="measure how seconds grow instead")
    parser.add_argument("--accuracy", type=int, default=0, metavar="N", help="compare N sets' accuracy instead")
    parser.add_argument("--networks", type=int, default=3, help="on each set of --accuracy (default: 3)")
    parser.add_argument("--out", type=Path, default=RESULTS / "condensation_speed.json", help="the JSON file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
