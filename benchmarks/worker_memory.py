"""The memory of a worker over all 720 ConvNets: does it grow with what it has trained?

    python benchmarks/worker_memory.py --precision bfloat16

A search on Ray Tune with one worker trains every candidate of ``convnet720`` on a random proxy of the digits. With each
report by which it has trained 20 more, the worker reads its resident memory, and how much of its heap is allocated:
freed memory is kept in the process on purpose (``nasproxy/training/process.py``), so that a leak would long fit into
what the largest candidates, which come first, have left. The figures are least-squares slopes over the last half of the
candidates. Writes ``benchmarks/results/worker_memory.json``. For Linux with glibc 2.33 or newer.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import resource
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from result_file import RESULTS, provenance

from nasproxy.cli.screen import open_screen
from nasproxy.files import write_json
from nasproxy.search import tune
from nasproxy.search.bench import Payload
from nasproxy.search.run import run_search
from nasproxy.search.settings import SearchSettings
from nasproxy.search.task import PROXY
from nasproxy.training.precision import resolve_precision

EVERY = 20  # candidates between two readings


class Watched(tune._Worker):
    """The search's worker, which also reads its memory."""

    file: Path

    def setup(self, config: dict[str, Any], payload: Payload | None = None) -> None:
        """Nothing is trained yet."""
        super().setup(config, payload)
        self._trained = self._read = 0

    def step(self) -> dict[str, Any]:
        """Trains, and reads."""
        answer = super().step()
        self._trained += sum(outcome.task.data == PROXY for outcome in answer["outcomes"])
        if self._trained >= self._read + EVERY:
            self._read = self._trained
            gc.collect()
            reading = {
                "candidates": self._trained,
                "resident_bytes": resident_bytes(),
                "allocated_bytes": allocated_bytes(),
            }
            with self.file.open("a") as file:
                file.write(f"{json.dumps(reading)}\n")
        return answer


def main() -> None:
    """Trains all candidates and prints what was read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1, help="of each training")
    parser.add_argument("--limit", type=int, help="as of nasproxy search")
    parser.add_argument("--precision", default="auto", help="as of nasproxy search")
    parser.add_argument("--out", type=Path, default=RESULTS / "worker_memory.json")
    arguments = parser.parse_args()
    precision = resolve_precision(arguments.precision, torch.device("cpu"))
    readings = measure(precision, arguments.epochs, arguments.limit)
    last_half = [row for row in readings if row["candidates"] > readings[-1]["candidates"] / 2]
    slopes = {name: slope(last_half, name) for name in ("resident_bytes", "allocated_bytes")}
    document = {
        "precision": precision,
        "epochs": arguments.epochs,
        "growth_per_candidate_over_last_half": slopes,
        "readings": readings,
        **provenance(),
    }
    write_json(arguments.out, document)
    for name, growth in slopes.items():
        first, last = readings[0][name] / 2**20, readings[-1][name] / 2**20
        print(f"{name}: {first:.1f} MiB at first, {last:.1f} MiB at last; growth {growth} bytes a candidate")


def slope(readings: list[dict[str, int]], name: str) -> int:
    """Bytes a candidate, by least squares."""
    return round(float(np.polyfit([row["candidates"] for row in readings], [row[name] for row in readings], 1)[0]))


def measure(precision: str, epochs: int, limit: int | None) -> list[dict[str, int]]:
    """Trains all candidates, or ``limit``, for ``epochs``; the memory in bytes after every 20 of them or a few more."""
    with tempfile.TemporaryDirectory() as folder, open_screen() as screen:
        Watched.file = Path(folder) / "readings"
        tune._Worker = Watched  # type: ignore[misc]
        settings = SearchSettings(
            proxy="random",
            scheduler="none",
            epochs=epochs,
            limit=limit,
            top_k=1,
            finalist_epochs=1,
            workers=1,
            device="cpu",
            precision=precision,
            out=Path(folder) / "run",
        )
        summary = run_search(settings, progress=screen).summary
        assert not summary["failed"], summary
        return [json.loads(line) for line in Watched.file.read_text().splitlines()]


def resident_bytes() -> int:
    """Memory of this process that is in use and in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def allocated_bytes() -> int:
    """What is allocated and not freed, in all of glibc's arenas."""

    # In here, as Ray pickles what the worker calls, and cannot pickle this.
    class MallocInfo(ctypes.Structure):
        """glibc's ``struct mallinfo2``."""

        _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_: ClassVar = [(name, ctypes.c_size_t) for name in _names.split()]

    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = MallocInfo
    found = ask()
    return int(found.uordblks + found.hblkhd)


if __name__ == "__main__":
    main()
