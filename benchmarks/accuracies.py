"""What the tables of accuracies share: sets made, networks trained on them, every accuracy kept as it arrives.

A set and a network of the same number have the same seed in every cell of a table. An accuracy that is in the file is
never measured again: the same command goes on, and more --sets or --networks may be asked of it. What is there was
measured under the same conditions, or the command stops. A set that was half made goes on from its checkpoint, which
lies in the cache until the set is whole.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from result_file import RESULTS, Record, commit, dataset_facts, plain_name

from nasproxy.cli.options import parse_image_size
from nasproxy.cli.screen import open_screen
from nasproxy.condensation.checkpoints import CHECKPOINT_EVERY, Checkpoints, State
from nasproxy.condensation.condenser import Condenser
from nasproxy.condensation.course import Course
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.per_class import check_class_sizes
from nasproxy.errors import CheckpointError, DivergedError, InputError, NasproxyError, RunError
from nasproxy.interruption import heeding_signals
from nasproxy.networks.build import build_network
from nasproxy.networks.names import CONVNET
from nasproxy.progress import Progress
from nasproxy.proxies.make import cached_proxy, make_proxy, open_checkpoints
from nasproxy.proxies.method import ProxyMethod
from nasproxy.search.devices import resolve_device
from nasproxy.search.settings import DEVICES, PRESETS
from nasproxy.training.precision import resolve_precision
from nasproxy.training.process import peak_memory_bytes, prepare_process
from nasproxy.training.recipe import PRECISIONS, TrainingRecipe, whole_batch_size
from nasproxy.training.strategy import training_with
from nasproxy.training.train import Images, train
from nasproxy.versions import library_versions, machine_facts, usable_cores

_SEEDS_APART = 1000  # sets of one --seed, and networks of one set, never share a seed below this many


@dataclass(frozen=True)
class Trained:
    """A network that is trained on sets.

    Args:
        label: its column in the table.
        network: one of :data:`nasproxy.networks.names.NETWORKS`.
        settings: of a ConvNet.
    """

    label: str = CONVNET
    network: str = CONVNET
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A kind of set.

    Args:
        label: with ``ipc``, what tells it from the others.
        ipc: images a class; 0 is the whole training part.
        method: that makes it; None where nothing is made.
        epochs: of a network's training on it.
    """

    label: str
    ipc: int
    method: ProxyMethod | None
    epochs: int


Plan = Sequence[tuple[Made, Sequence[Trained]]]


class BudgetSpentError(Exception):
    """The time is over."""


class Bench:
    """Makes sets of one dataset and trains networks on them.

    Args:
        dataset: the sets are of its training part, the accuracies of its test part.
        record: that accuracies are kept in.
        arguments: of the command line.
        device, precision: of all of it.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        record: Record,
        arguments: argparse.Namespace,
        device: torch.device,
        precision: str,
    ) -> None:
        self._dataset, self._record, self._arguments = dataset, record, arguments
        self._device, self._precision = device, precision
        images = dataset.normalisation.apply(dataset.test.images.to(device))
        self._test = Images(images, dataset.test.labels.to(device))
        minutes = arguments.time_budget
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def measure(self, plan: Plan, progress: Progress) -> None:
        """All that the record lacks, one set number after another, so that an early end leaves whole tables.

        Raises:
            BudgetSpentError: there was no time for the rest.
        """
        for number in range(self._arguments.sets):
            for made, trained in plan:
                if made.method is not None or number == 0:  # there is only one whole training part
                    self._measure_set(made, trained, number, progress)

    def _measure_set(self, made: Made, trained: Sequence[Trained], number: int, progress: Progress) -> None:
        entry = self._record.find(made.label, made.ipc, number)
        done = {(n["network"], n["number"]) for n in entry["networks"]} if entry else set()
        asked = [(network, of) for of in range(self._arguments.networks) for network in trained]
        missing = [(network, of) for network, of in asked if (network.label, of) not in done]
        if not missing or (entry and "failure" in entry):
            return
        seed = self._arguments.seed * _SEEDS_APART + number
        title = f"{made.label}, {made.ipc} per class, set {number + 1}" if made.ipc else made.label
        data, facts = self._make(made, seed, title, progress)
        if entry is None:
            entry = {"made_by": made.label, "ipc": made.ipc, "set": number, **facts, "commit": commit()}
            entry["peak_memory_bytes"] = peak_memory_bytes(self._device)
            entry |= {"augmentation": self._recipe(made, data).augmentation, "networks": []}
            self._record.sets.append(entry)
            self._record.save()
        elif entry["recipe"] != json.loads(json.dumps(facts["recipe"])):
            raise RunError(
                f"{self._record.file} has a set of {title} by other settings: {entry['recipe']}, "
                f"now {facts['recipe']}.",
                "Choose another --out.",
            )
        if data is None:
            return
        progress.stage(f"Training on {title}", len(missing))
        for network, of in missing:
            self._check_time()
            entry["networks"].append(self._train(made, network, of, data, seed * _SEEDS_APART + of))
            self._record.save()
            progress.advance(f"test accuracy {entry['networks'][-1]['accuracy']:.1%}")

    def _make(self, made: Made, seed: int, title: str, progress: Progress) -> tuple[Images | None, dict[str, Any]]:
        """The set, and what is to be kept of it; None for one that diverged."""
        if made.method is None:
            part = self._dataset.train
            images = self._dataset.normalisation.apply(part.images.to(self._device))
            return Images(images, part.labels.to(self._device)), {"recipe": {}, "seconds_making": 0.0}
        where: dict[str, Any] = {"seed": seed, "device": self._device, "precision": self._precision}
        cached = cached_proxy(self._dataset, made.method, **where)
        kept = open_checkpoints(
            cached.with_suffix(".checkpoint.safetensors"),
            self._dataset,
            made.method,
            **where,
            every=self._arguments.checkpoint_every,
        )
        start = _start(kept)
        if made.method.steps and not cached.exists():
            progress.stage(f"{made.method.verb}, {title}", made.method.steps, done=len(start.losses) if start else 0)

        def report(_: int, loss: float) -> None:
            self._check_time()
            progress.advance(f"loss {loss:.2f}")

        try:
            proxy = make_proxy(self._dataset, made.method, **where, on_iteration=report, course=Course(kept, start))
        except DivergedError as error:
            return None, {"recipe": asdict(made.method), "seconds_making": 0.0, "failure": error.message}
        if kept is not None:
            kept.discard()
        facts = {
            "recipe": dict(proxy.recipe),
            "loss": proxy.history[-1] if proxy.history else None,
            "seconds_making": round(proxy.seconds, 2),
        }
        return Images(proxy.images.to(self._device), proxy.labels.to(self._device)), facts

    def _train(self, made: Made, network: Trained, number: int, data: Images, seed: int) -> dict[str, Any]:
        began = time.perf_counter()
        torch.manual_seed(seed)
        model = _build(network, self._dataset).to(self._device)
        recipe = self._recipe(made, data)
        scores = train(model, data, recipe, self._test, seed=seed, precision=self._precision)
        seconds = round(time.perf_counter() - began, 2)
        return {"network": network.label, "number": number, "accuracy": scores[-1].accuracy, "seconds": seconds}

    def _recipe(self, made: Made, data: Images | None) -> TrainingRecipe:
        """The paper's, with the augmentation that a set was condensed with."""
        method = made.method
        if method is None:
            return TrainingRecipe(made.epochs, batch_size=whole_batch_size(len(data or ())))
        kinds = method.augmentations(self._dataset) if isinstance(method, Condenser) else ()
        return TrainingRecipe(made.epochs, augmentation=training_with(kinds))

    def _check_time(self) -> None:
        if time.monotonic() > self._end:
            raise BudgetSpentError


def _start(kept: Checkpoints | None) -> State | None:
    """What a half-made set goes on from, if that is of this version; nobody asked for the one in the cache."""
    try:
        return kept.load() if kept is not None else None
    except CheckpointError:
        return None


def run(
    parser: argparse.ArgumentParser,
    plan: Callable[[argparse.Namespace], Plan],
    table: Callable[[argparse.Namespace, Record], str],
    default_name: Callable[[argparse.Namespace], str],
    conditions: Sequence[str] = (),
) -> int:
    """A script from its options to the printed table; returns the exit code.

    Args:
        parser: from :func:`options`, with the script's own options added.
        plan: what the options ask for.
        table: what is printed, in Markdown.
        default_name: of the result file, without the dataset's name.
        conditions: the script's own options that all of a file must share; counts, or None.
    """
    try:
        arguments = parser.parse_args()
        _check(arguments, conditions)
        with heeding_signals():
            record, complete = _measure(arguments, plan, default_name, conditions)
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. Every accuracy measured so far is kept; the same command goes on.", file=sys.stderr)
        return 130
    print(table(arguments, record))
    print(f"\n{_caption(record.document, arguments)}\n\nWritten to {record.file}")
    if not complete:
        print("The time budget is spent; the same command goes on.", file=sys.stderr)
    return 1 if any("failure" in entry for entry in record.sets) else 0


def _measure(
    arguments: argparse.Namespace,
    plan: Callable[[argparse.Namespace], Plan],
    default_name: Callable[[argparse.Namespace], str],
    conditions: Sequence[str],
) -> tuple[Record, bool]:
    device = resolve_device(arguments.device)
    precision = resolve_precision(arguments.precision, device)
    asked = plan(arguments)
    size = parse_image_size(arguments.image_size)
    dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir, image_size=size)
    # A folder's path is nobody's business but its owner's: neither here nor in the proxies.
    dataset = replace(dataset, name=plain_name(dataset.name))
    _check_plan(asked, dataset)
    prepare_process(arguments.threads)
    names = ("preset", "iterations", "epochs", "seed", "threads", *conditions)
    about = {
        "schema": 1,
        "dataset": dataset_facts(dataset),
        "settings": {**{name: getattr(arguments, name) for name in names}, "precision": precision},
        "versions": library_versions(),
        "machine": machine_facts(device.type),
    }
    record = Record(arguments.out or RESULTS / f"{default_name(arguments)}_{dataset.name}.json", about)
    with open_screen() as screen:
        for note in dataset.notes:
            screen.note(note)
        try:
            Bench(dataset, record, arguments, device, precision).measure(asked, screen)
        except BudgetSpentError:
            return record, False
    return record, True


def _check_plan(plan: Plan, dataset: ImageDataset) -> None:
    """What cannot be done shows itself before hours of work."""
    check_class_sizes(dataset, max((made.ipc for made, _ in plan if made.ipc), default=1))
    with torch.device("meta"):
        for network in {network.label: network for _, trained in plan for network in trained}.values():
            _build(network, dataset)


def _build(network: Trained, dataset: ImageDataset) -> torch.nn.Module:
    return build_network(network.network, dataset.channels, dataset.num_classes, dataset.image_size, **network.settings)


def _caption(document: Mapping[str, Any], arguments: argparse.Namespace) -> str:
    data, settings, machine = document["dataset"], document["settings"], document["machine"]
    sets, networks, rows = arguments.sets, arguments.networks, document["rows"]
    height, width = data["image_size"]
    notes = [f"Test accuracy in per cent, mean ± standard deviation over {sets} sets × {networks} networks"]
    if any(not row["ipc"] for row in rows):
        notes.append(f"on the whole training part over {networks} networks")
    if any(row["networks"] < networks * (sets if row["ipc"] else 1) for row in rows):
        notes.append("so far over fewer, which the file counts")
    notes.append(f"{data['name']} at {height}×{width}, {data['test']} test images")
    notes.append(f"{settings['preset']} preset, {settings['epochs']} epochs on a set, seed {settings['seed']}")
    if "augmented_epochs" in settings:
        notes.append(f"{settings['augmented_epochs']} epochs with augmentation on one of dsa or dm")
    notes.append(f"{settings['precision']} on {machine['gpu'] or machine['processor']}, {settings['threads']} threads")
    return f"{'; '.join(notes)}; torch {document['versions']['torch']}."


def _check(arguments: argparse.Namespace, conditions: Sequence[str]) -> None:
    for name in ("sets", "networks", "iterations", "epochs", "threads", *conditions):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be 1 or more, got {value}.")
    if arguments.seed < 0:
        raise InputError(f"--seed must be 0 or more, got {arguments.seed}.")
    if max(arguments.sets, arguments.networks) > _SEEDS_APART:
        raise InputError(f"--sets and --networks can be {_SEEDS_APART} at most.")
    if not arguments.checkpoint_every > 0:
        raise InputError(f"--checkpoint-every must be seconds above 0, got {arguments.checkpoint_every}.")
    if arguments.time_budget is not None and not 0 < arguments.time_budget < math.inf:
        raise InputError(f"--time-budget must be minutes above 0, got {arguments.time_budget}.")


def check_ipc(arguments: argparse.Namespace) -> None:
    """Makes sure that each of ``--ipc`` is a number of images.

    Raises:
        InputError: one is not.
    """
    if min(arguments.ipc) < 1:
        raise InputError(f"--ipc must be 1 or more, got {min(arguments.ipc)}.")


def options(description: str | None, *, sets: int, networks: int) -> argparse.ArgumentParser:
    """A parser with the options that all the tables have, and these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="digits", help="a name, or a folder of images or Parquet files (default: %(default)s)")
    add("--data-dir", type=Path, help="where torchvision's datasets are, or go")
    add("--image-size", metavar="N", help="resize images to N or HEIGHTxWIDTH pixels")
    add("--sets", type=int, default=sets, help="of each kind (default: %(default)s)")
    add("--networks", type=int, default=networks, help="of each kind trained on each set (default: %(default)s)")
    add("--preset", choices=PRESETS, default="quick", help="of making the sets (default: %(default)s)")
    add("--iterations", type=int, metavar="K", help="outer iterations of gradient matching (default: the preset's)")
    add("--epochs", type=int, default=300, help="of a network's training on a set (default: %(default)s)")
    add("--seed", type=int, default=0, help="of sets and networks (default: %(default)s)")
    add("--time-budget", type=float, metavar="MINUTES", help="stop then; the same command goes on")
    add(
        "--checkpoint-every",
        type=float,
        default=CHECKPOINT_EVERY,
        metavar="SECONDS",
        help="of a set that is being made, in the cache (default: %(default)s)",
    )
    add("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    add("--precision", choices=PRECISIONS, default="auto", help="default: %(default)s")
    add("--threads", type=int, default=usable_cores(), help="of PyTorch (default: the cores)")
    add("--out", type=Path, metavar="FILE.json", help="default: in results/, by script and dataset")
    return parser
