"""What the default ConvNet learns from condensed and from random images: Table 1 of the paper, for any dataset.

    python benchmarks/condensed_against_random.py --dataset digits --ipc 1 10
    python benchmarks/condensed_against_random.py --dataset cifar10 --data-dir DIR --ipc 1 --preset paper

For each number of images per class, several sets are made (by gradient matching, and drawn at random), and on each of
them several freshly initialised networks are trained by the paper's recipe. A set, and a network, of the same number
has the same seed in both. Mean and standard deviation of the test accuracy are over all networks of all sets. Results
are written after each set; the same command goes on with a file that is there, and more --ipc or --sets may be asked
of it. Memory is the most that the whole process (on a GPU: the GPU) has held up to the end of a set.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from result_file import RESULTS, commit, dataset_facts, open_document, plain_name

from nasproxy.cli.options import parse_image_size
from nasproxy.cli.output import plain_table, stdout
from nasproxy.cli.screen import open_screen
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.random import check_class_sizes
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import InputError, NasproxyError, WriteError
from nasproxy.networks.convnet import ConvNet
from nasproxy.progress import Progress
from nasproxy.proxies.make import make_proxy, random_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.search.devices import DEVICES, resolve_device
from nasproxy.search.run_directory import write_json
from nasproxy.search.settings import PRESETS
from nasproxy.training.precision import resolve_precision
from nasproxy.training.process import peak_memory_bytes, prepare_process
from nasproxy.training.recipe import PRECISIONS, TrainingRecipe
from nasproxy.training.train import Images, train
from nasproxy.versions import library_versions, machine_facts, usable_cores

METHODS = ("random", "condensed")
_SEEDS_APART = 1000  # sets of one --seed, and networks of one set, never share a seed below this many


def main() -> int:
    """Measures what is missing, and prints the table; returns the exit code."""
    try:
        arguments = _parser().parse_args()
        _check(arguments)
        document, file = measure(arguments)
    except NasproxyError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on after the last finished set.", file=sys.stderr)
        return 130
    show(document, file)
    return 0


def measure(arguments: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Makes and measures each set that the result file lacks; returns the file's content and its place."""
    device = resolve_device(arguments.device)
    dataset = load_dataset(
        arguments.dataset, data_dir=arguments.data_dir, image_size=parse_image_size(arguments.image_size)
    )
    # A folder's path is nobody's business but its owner's: neither here nor in the proxies.
    dataset = replace(dataset, name=plain_name(dataset.name))
    prepare_process(arguments.threads)
    bench = Bench(dataset, arguments, device, resolve_precision(arguments.precision, device))
    check_class_sizes(dataset, max(arguments.ipc))  # shows itself before hours of work
    file = arguments.out or RESULTS / f"condensed_against_random_{dataset.name}.json"
    document = open_document(file, bench.about(), summarise)
    _save(document, file)  # so does a place that cannot be written
    with open_screen() as screen:
        for note in dataset.notes:
            screen.note(note)
        for ipc in arguments.ipc:
            for number in range(arguments.sets):
                for method in METHODS:
                    if not _find(document, method, ipc, number):
                        document["sets"].append(bench.measure_set(method, ipc, number, screen))
                        _save(document, file)
    return document, file


class Bench:
    """Makes sets of one dataset and trains networks on them."""

    def __init__(
        self, dataset: ImageDataset, arguments: argparse.Namespace, device: torch.device, precision: str
    ) -> None:
        self._dataset, self._arguments, self._device, self._precision = dataset, arguments, device, precision
        self._recipe = TrainingRecipe(epochs=arguments.epochs)
        images = dataset.normalisation.apply(dataset.test.images.to(device))
        self._test = Images(images, dataset.test.labels.to(device))

    def about(self) -> dict[str, Any]:
        """All that every set of one file must share."""
        return {
            "schema": 1,
            "dataset": dataset_facts(self._dataset),
            "settings": {
                **{name: getattr(self._arguments, name) for name in ("preset", "iterations", "networks", "seed")},
                "precision": self._precision,
                "threads": self._arguments.threads,
                "training": asdict(self._recipe),
            },
            "versions": library_versions(),
            "machine": machine_facts(self._device.type),
        }

    def measure_set(self, method: str, ipc: int, number: int, progress: Progress) -> dict[str, Any]:
        """Makes one set and trains all networks on it."""
        seed = self._arguments.seed * _SEEDS_APART + number
        title = f"{ipc} per class, set {number + 1} of {self._arguments.sets}"
        if method == "condensed":
            proxy = self._condense(ipc, seed, title, progress)
        else:
            proxy = random_proxy(self._dataset, ipc, seed=seed)
        began = time.perf_counter()
        accuracies = self._train_networks(proxy, seed, f"Training, {method}, {title}", progress)
        return {
            "method": method,
            "ipc": ipc,
            "set": number,
            "recipe": dict(proxy.recipe),
            "matching_loss": proxy.history[-1] if proxy.history else None,
            "accuracies": accuracies,
            "seconds_making": round(proxy.seconds, 2),
            "seconds_training": round(time.perf_counter() - began, 2),
            "peak_memory_bytes": peak_memory_bytes(self._device),
            "commit": commit(),
        }

    def _condense(self, ipc: int, seed: int, title: str, progress: Progress) -> ProxySet:
        recipe = MatchingRecipe.quick(ipc) if self._arguments.preset == "quick" else MatchingRecipe.paper(ipc)
        if self._arguments.iterations is not None:
            recipe = replace(recipe, iterations=self._arguments.iterations)
        progress.stage(f"Condensing, {title}", recipe.iterations)
        return make_proxy(
            self._dataset,
            recipe,
            seed=seed,
            device=self._device,
            precision=self._precision,
            on_iteration=lambda _, loss: progress.advance(f"matching loss {loss:.2f}"),
        )

    def _train_networks(self, proxy: ProxySet, seed: int, title: str, progress: Progress) -> list[float]:
        progress.stage(title, self._arguments.networks)
        data = Images(proxy.images.to(self._device), proxy.labels.to(self._device))
        accuracies: list[float] = []
        for number in range(self._arguments.networks):
            of_network = seed * _SEEDS_APART + number
            torch.manual_seed(of_network)
            network = ConvNet(self._dataset.channels, self._dataset.num_classes, self._dataset.image_size)
            scores = train(
                network.to(self._device), data, self._recipe, self._test, seed=of_network, precision=self._precision
            )
            accuracies.append(scores[-1].accuracy)
            progress.advance(f"test accuracy {statistics.mean(accuracies):.1%}")
        return accuracies


def summarise(sets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each method and number of images per class; the sample standard deviation is null for one network."""
    rows = []
    for ipc, method in sorted({(s["ipc"], s["method"]) for s in sets}, key=lambda key: (key[0], METHODS.index(key[1]))):
        mine = [s for s in sets if (s["ipc"], s["method"]) == (ipc, method)]
        accuracies = [accuracy for s in mine for accuracy in s["accuracies"]]
        rows.append(
            {
                "ipc": ipc,
                "method": method,
                "sets": len(mine),
                "networks": len(accuracies),
                "mean": statistics.mean(accuracies),
                "std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                "seconds_making_a_set": statistics.mean(s["seconds_making"] for s in mine),
                "seconds_training_a_network": sum(s["seconds_training"] for s in mine) / len(accuracies),
                "peak_memory_bytes": max(s["peak_memory_bytes"] for s in mine),
            }
        )
    return rows


def show(document: dict[str, Any], file: Path) -> None:
    """Prints the table."""
    numbers = ("images/class", "test accuracy", "sets", "networks", "s/set", "s/network", "peak GiB")
    table = plain_table("images", *numbers, right=numbers)
    for row in document["rows"]:
        spread = f" ± {100 * row['std']:.1f}" if row["std"] is not None else ""
        table.add_row(
            row["method"],
            str(row["ipc"]),
            f"{100 * row['mean']:.1f}{spread} %",
            str(row["sets"]),
            str(row["networks"]),
            f"{row['seconds_making_a_set']:.1f}",
            f"{row['seconds_training_a_network']:.2f}",
            f"{row['peak_memory_bytes'] / 2**30:.2f}",
        )
    stdout().print(table)
    stdout().print(f"Written to {file}", markup=False)


def _save(document: dict[str, Any], file: Path) -> None:
    document["rows"] = summarise(document["sets"])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{file.parent} could not be made: {error.strerror}.", "Choose another --out.") from error
    write_json(file, document)


def _find(document: dict[str, Any], method: str, ipc: int, number: int) -> bool:
    return any((s["method"], s["ipc"], s["set"]) == (method, ipc, number) for s in document["sets"])


def _check(arguments: argparse.Namespace) -> None:
    for name in ("sets", "networks", "iterations", "epochs", "threads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be 1 or more, got {value}.")
    if min(arguments.ipc) < 1:
        raise InputError(f"--ipc must be 1 or more, got {min(arguments.ipc)}.")
    if arguments.seed < 0:
        raise InputError(f"--seed must be 0 or more, got {arguments.seed}.")
    if max(arguments.sets, arguments.networks) > _SEEDS_APART:
        raise InputError(f"--sets and --networks can be {_SEEDS_APART} at most.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="digits", help="a name, or a folder of images or Parquet files (default: %(default)s)")
    add("--data-dir", type=Path, help="where torchvision's datasets are, or go")
    add("--image-size", metavar="N", help="resize images to N or HEIGHTxWIDTH pixels")
    add("--ipc", type=int, nargs="+", default=[1, 10], metavar="N", help="images per class (default: 1 10)")
    add("--sets", type=int, default=5, help="sets of each kind (default: %(default)s)")
    add("--networks", type=int, default=20, help="networks trained on each set (default: %(default)s)")
    add("--preset", choices=PRESETS, default="quick", help="of the condensation (default: %(default)s)")
    add("--iterations", type=int, metavar="K", help="outer iterations (default: the preset's)")
    add("--epochs", type=int, default=300, help="of a network's training (default: %(default)s)")
    add("--seed", type=int, default=0, help="of sets and networks (default: %(default)s)")
    add("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    add("--precision", choices=PRECISIONS, default="auto", help="default: %(default)s")
    add("--threads", type=int, default=usable_cores(), help="of PyTorch (default: the cores)")
    add("--out", type=Path, metavar="FILE.json", help="default: results/condensed_against_random_<dataset>.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
