"""The memory of a worker over all 720 ConvNets: does it grow with what it has trained?

    python benchmarks/worker_memory.py --precision bfloat16

One process trains every candidate of ``convnet720`` on a random proxy of the digits, in the search's own order (the
largest first) and as the search's workers do. After every 20 candidates its resident memory is read, and how much of
its heap is allocated: freed memory is kept in the process on purpose (``nasproxy/training/process.py``), so that a leak
would long fit into what the largest candidates have left. The figures are least-squares slopes over the last half.
Writes ``benchmarks/results/worker_memory.json``. For Linux with glibc 2.33 or newer.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import resource
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from nasproxy.cli.screen import open_screen
from nasproxy.datasets.load import load_dataset
from nasproxy.proxies.make import random_proxy
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.candidate import Candidate
from nasproxy.search.cost_model import CostModel
from nasproxy.search.costs import Costs, longest_first
from nasproxy.search.run_directory import write_json
from nasproxy.search.settings import SearchSettings
from nasproxy.search.space_source import SpaceSource
from nasproxy.search.task import PROXY, Task
from nasproxy.training.precision import resolve_precision
from nasproxy.versions import library_versions, machine_facts

RESULTS = Path(__file__).parent / "results"
EVERY = 20  # candidates between two readings


def main() -> None:
    """Trains all candidates and prints what was read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1, help="of each training")
    parser.add_argument("--precision", default="auto", help="as of nasproxy search")
    parser.add_argument("--out", type=Path, default=RESULTS / "worker_memory.json")
    arguments = parser.parse_args()
    precision = resolve_precision(arguments.precision, torch.device("cpu"))
    readings = measure(precision, arguments.epochs)
    slopes = {name: slope(readings[len(readings) // 2 :], name) for name in ("resident_bytes", "allocated_bytes")}
    document = {
        "precision": precision,
        "epochs": arguments.epochs,
        "growth_per_candidate_over_last_half": slopes,
        "readings": readings,
        "versions": library_versions(),
        "machine": machine_facts("cpu"),
    }
    write_json(arguments.out, document)
    for name, growth in slopes.items():
        first, last = readings[0][name] / 2**20, readings[-1][name] / 2**20
        print(f"{name}: {first:.1f} MiB at first, {last:.1f} MiB at last; growth {growth} bytes a candidate")


def slope(readings: list[dict[str, int]], name: str) -> int:
    """Bytes a candidate, by least squares."""
    return round(float(np.polyfit([row["candidates"] for row in readings], [row[name] for row in readings], 1)[0]))


def measure(precision: str, epochs: int) -> list[dict[str, int]]:
    """Trains all candidates for ``epochs`` and reads the memory in bytes after every 20 of them."""
    dataset, source = load_dataset("digits"), SpaceSource.parse("convnet720")
    proxy = random_proxy(dataset, ipc=10, seed=0)
    payload = Payload.of(source, dataset, proxy, device="cpu", precision=precision, threads=1)
    recipe = SearchSettings(epochs=epochs).proxy_recipe()
    space = source.load()
    candidates = [Candidate.of(config) for config in space]
    costs = Costs(
        space, candidates, channels=dataset.channels, image_size=dataset.image_size, num_classes=dataset.num_classes
    )
    tasks = [Task(candidate, PROXY, recipe, epochs, 0, candidate.seed(0, 0, PROXY)) for candidate in candidates]
    predicted = CostModel(costs, proxy_images=len(payload.splits[PROXY][1]), train_images=len(dataset.train)).predict()
    bench = Bench(payload)
    readings: list[dict[str, int]] = []
    with open_screen() as screen:
        screen.stage("Training", len(tasks))
        for number, task in enumerate(longest_first(tasks, predicted), 1):
            outcome = bench.perform(task)
            assert outcome.failure is None, outcome.failure
            screen.advance()
            if number % EVERY == 0:
                gc.collect()
                resident, allocated = resident_bytes(), allocated_bytes()
                readings.append({"candidates": number, "resident_bytes": resident, "allocated_bytes": allocated})
    return readings


def resident_bytes() -> int:
    """Memory of this process that is in use and in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class _MallocInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_: ClassVar = [(name, ctypes.c_size_t) for name in _names.split()]


def allocated_bytes() -> int:
    """What is allocated and not freed, in all of glibc's arenas."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = _MallocInfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


if __name__ == "__main__":
    main()
