"""What a search costs beside training, as the number of candidates grows: seconds and memory a candidate.

    python benchmarks/growth.py
    python benchmarks/growth.py --sizes 100 10000 --strategies halving tpe --workers 16

Runs the search's own code (choosing, planning, handing out, recording in a journal, ranking, table, summary, report,
and opening the run again) with a trainer that returns a made-up score at once. One candidate in a hundred fails, each
for a reason of its own. Every size runs in fresh processes, one for the search, one that resumes it, one that writes
the report. Parameters and multiply-adds are counted for a sample of networks, of one layer and of convnet720, and the
time is extrapolated. Reads /proc, so it needs Linux.

A sampler proposes a tenth of a space; "choose" is of the whole space, all else of what was proposed. A search that has
taken ``--most`` seconds of the processor is left there. That is the last size of its strategy, as is one after which
the next would take longer even if a candidate took no longer than before.

Seconds are of the wall clock and, beside them, of the processor: those hold on a busy machine too, but leave out
waiting for the disk.

Memory is that of the process: what stays after a phase, and the most during it, both beyond what it began with; what
one phase gives back the next may use, so it is a lower bound. Writes ``benchmarks/results/growth.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from result_file import RESULTS, provenance
from torch import nn

from nasproxy.analysis.report import write_report
from nasproxy.files import write_json
from nasproxy.progress import Silent
from nasproxy.search.campaign import Campaign
from nasproxy.search.cost_model import CostModel
from nasproxy.search.costs import Cost, longest_first, measure_cost, next_bundle
from nasproxy.search.proposals import SAMPLERS, Proposals
from nasproxy.search.results import results_table, summarise
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study, open_storage
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.sampling import choose_candidates
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import Config, SearchSpace
from nasproxy.training.train import Score

IMAGE_SIZE = (8, 8)
SAMPLED = 60
CLUSTERS = (2, 1000)
"""Numbers of workers that the queue is dealt out to."""
STRATEGIES = ("grid", "halving", "asha", "hyperband", *SAMPLERS)
"""All candidates in full, by a scheduler, or by a sampler."""
SPACE_OF_SAMPLER = 10
"""Candidates in the space for each that is proposed."""


class Made(SearchSpace):
    """Five choices with a power of ten of combinations; the networks are one layer each."""

    name = "made"

    def __init__(self, size: int) -> None:
        zeros = len(str(size)) - 1
        if size != 10**zeros:
            raise SystemExit(f"--sizes takes powers of ten, got {size}.")
        counts = [10 ** (zeros // 5 + (number < zeros % 5)) for number in range(5)]
        self.choices = {f"choice_{number}": range(count) for number, count in enumerate(counts)}

    def build(self, config: Config, *, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """One linear layer."""
        height, width = image_size
        return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * height * width, num_classes))


@dataclass(frozen=True)
class Asked:
    """What a child measures, and the run directory that the children of one size share."""

    size: int
    strategy: str
    workers: int
    most: float
    directory: Path

    @property
    def samples(self) -> bool:
        """Whether a sampler proposes candidates one after another."""
        return self.strategy in SAMPLERS

    def space(self) -> Made:
        """What is searched."""
        return Made(self.size * SPACE_OF_SAMPLER if self.samples else self.size)

    def settings(self) -> SearchSettings:
        """Those of the quick preset."""
        if self.samples:
            return SearchSettings(sampler=self.strategy, trials=self.size).resolved()
        return SearchSettings(scheduler="none" if self.strategy == "grid" else self.strategy).resolved()

    def words(self) -> list[str]:
        """What ``main`` is told to be asked this."""
        numbers = ["--sizes", str(self.size), "--workers", str(self.workers), "--most", str(self.most)]
        return [*numbers, "--strategies", self.strategy]


class Phases:
    """Times phases of one process, and reads how its memory grew."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures the body."""
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
        before, began, worked = _memory("VmRSS"), time.perf_counter(), time.process_time()
        yield
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        peak = _memory("VmHWM") - before
        gc.collect()
        kept = _memory("VmRSS") - before
        self.found[name] = {"seconds": seconds, "cpu_seconds": worked, "bytes": kept, "peak_bytes": max(0, peak)}


def _memory(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


class Stages(Silent):
    """Notices that a stage began."""

    def __init__(self) -> None:
        self.begun = False

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        """Remembers it."""
        self.begun = True


def main() -> None:
    """Measures every size with every strategy, prints a table and stores it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**2, 10**3, 10**4, 10**5], help="powers of ten")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=STRATEGIES)
    parser.add_argument("--workers", type=int, default=64, help="that the campaign believes in")
    parser.add_argument("--most", type=float, default=300, help="processor seconds of a search")
    parser.add_argument("--out", type=Path, default=RESULTS / "growth.json")
    parser.add_argument("--child", nargs=2, metavar=("PART", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        part, directory = arguments.child
        asked = Asked(arguments.sizes[0], arguments.strategies[0], arguments.workers, arguments.most, Path(directory))
        print(json.dumps(PARTS[part](asked)))
        return
    rows = [
        row
        for strategy in arguments.strategies
        for row in measure(sorted(arguments.sizes), strategy, arguments.workers, arguments.most)
    ]
    print(table(rows).to_string())
    load = [round(value, 2) for value in os.getloadavg()]
    about = {**provenance(), "load_average": load}
    write_json(arguments.out, {"workers": arguments.workers, "most_seconds": arguments.most, "rows": rows, **about})


def measure(sizes: Sequence[int], strategy: str, workers: int, most: float) -> Iterator[dict[str, Any]]:
    """A row for each size that a strategy comes to."""
    each = 0.0
    for size in sizes:
        if each * size > most:
            return
        with tempfile.TemporaryDirectory() as directory:
            row = measure_size(Asked(size, strategy, workers, most, Path(directory)))
        yield row
        if "left_after" in row:
            return
        each = row["phases"]["search"]["cpu_seconds"] / size


def measure_size(asked: Asked) -> dict[str, Any]:
    """All parts of one size, each in a process of its own."""
    row: dict[str, Any] = {"candidates": asked.size, "strategy": asked.strategy, "phases": {}}
    for part in PARTS:
        command = [sys.executable, __file__, *asked.words(), "--child", part, str(asked.directory)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        found = json.loads(done.stdout)
        row["phases"].update(found.pop("phases"))
        row.update(found)
        if "left_after" in row:
            break
    return row


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Microseconds, bytes kept and peak bytes a candidate, a line for each phase."""
    units = {
        "seconds": ("us", 1e6),
        "cpu_seconds": ("cpu us", 1e6),
        "bytes": ("bytes", 1),
        "peak_bytes": ("peak bytes", 1),
    }
    columns = {
        (row["strategy"], f"{row['candidates']:,}", label): {
            phase: round(found[name] * scale / row.get("left_after", row["candidates"]), 1)
            for phase, found in row["phases"].items()
            if name in found
        }
        for row in rows
        for name, (label, scale) in units.items()
    }
    return pd.DataFrame(columns).reindex(max((list(row["phases"]) for row in rows), key=len))


def search(asked: Asked) -> dict[str, Any]:
    """A whole search, from the space to the table; or as much of it as ``asked.most`` seconds allow."""
    phases, space, directory = Phases(), asked.space(), asked.directory
    with phases.phase("choose"):
        candidates, _ = choose_candidates(space, IMAGE_SIZE, limit=None, seed=0)
    phases.found["count one layer (sampled)"] = counting(space, candidates, IMAGE_SIZE, of=asked.size)
    convnets = SpaceSource.parse("convnet720").load()
    sample, _ = choose_candidates(convnets, (32, 32), limit=SAMPLED + 1, seed=0)
    phases.found["count convnet720 (sampled)"] = counting(convnets, sample, (32, 32), of=asked.size)
    costs = {candidate.id: Cost(1, 10**6 + int(candidate.id[:6], 16)) for candidate in candidates}
    pickled = deal(candidates[: asked.size], costs, phases)
    stages = Stages()
    with phases.phase("plan"):
        campaign, study = open_campaign(space, candidates, costs, asked, stages)
    with phases.phase("search"):
        parts, done = drive(campaign, stages, asked.workers, asked.most)
    phases.found.update({f"of it: {name}": spent for name, spent in parts.items()})
    if not campaign.finished:
        of_search = {
            name: spent for name, spent in phases.found.items() if name == "search" or name.startswith("of it")
        }
        return {"phases": of_search, "left_after": done}
    with phases.phase("table"):
        found = results_table(campaign.candidates, costs, study, campaign.ranking)
        found.to_csv(directory / "results.csv", index=False)
    with phases.phase("summary"):
        summary = summarise(campaign, found, study)
    write_json(directory / "summary.json", {"schema": 1, **summary, "seconds": campaign.stage_seconds})
    write_json(directory / "run.json", run_facts(space))
    journal = (directory / "study.log").read_bytes()
    return {
        "phases": phases.found,
        "rungs": [[rung.epochs, rung.candidates] for rung in campaign.rungs],
        "journal_bytes": len(journal),
        "journal_lines": journal.count(b"\n"),
        "pickled_task_bytes": pickled,
        "results": hashlib.sha256(found.to_json().encode() + json.dumps(summary).encode()).hexdigest()[:16],
    }


def reopen(asked: Asked) -> dict[str, Any]:
    """Resuming a search that is finished: everything is read, nothing is left to do."""
    phases, space = Phases(), asked.space()
    candidates, _ = choose_candidates(space, IMAGE_SIZE, limit=None, seed=0)
    costs = {candidate.id: Cost(1, 10**6 + int(candidate.id[:6], 16)) for candidate in candidates}
    with phases.phase("reopen: journal"):
        storage = open_storage(asked.directory, None)
    with phases.phase("reopen: study"):
        study = Study(storage, "nasproxy", space.choices)
    with phases.phase("reopen: plan"):
        campaign = make_campaign(candidates, costs, asked, study, Stages())
    assert campaign.finished, "the resumed search found something left to do"
    assert campaign.next_bundle(asked.workers) == []
    return {"phases": phases.found}


def report(asked: Asked) -> dict[str, Any]:
    """The report of the finished run."""
    phases = Phases()
    with phases.phase("report"):
        page = write_report(asked.directory)
    return {"phases": phases.found, "report_bytes": page.stat().st_size}


PARTS = {"search": search, "reopen": reopen, "report": report}
"""What a size consists of, in order."""


def counting(
    space: SearchSpace, candidates: Sequence[Candidate], image_size: tuple[int, int], of: int | None = None
) -> dict[str, float]:
    """Time that counting ``of`` networks, or all, would take, from a sample; the first warms torch up."""
    sample = candidates[:: max(1, len(candidates) // SAMPLED)][: SAMPLED + 1]
    measure_one = partial(measure_cost, space, channels=3, image_size=image_size, num_classes=10)
    measure_one(sample[0])
    began, worked = time.perf_counter(), time.process_time()
    for candidate in sample[1:]:
        assert measure_one(candidate).failure is None
    scale = (of or len(candidates)) / (len(sample) - 1)
    return {
        "seconds": scale * (time.perf_counter() - began),
        "cpu_seconds": scale * (time.process_time() - worked),
    }


def deal(candidates: Sequence[Candidate], costs: Mapping[str, Cost], phases: Phases) -> int:
    """Orders a rung and deals it out to clusters of several sizes; returns the bytes of a pickled training."""
    recipe = SearchSettings().proxy_recipe()
    tasks = [Task(candidate, PROXY, recipe, recipe.epochs, 0, candidate.seed(0, 0, PROXY)) for candidate in candidates]
    predicted = CostModel(costs, proxy_images=100, train_images=1000).predict()
    with phases.phase("order"):
        ordered = longest_first(tasks, predicted)
    for workers in CLUSTERS:
        with phases.phase(f"deal out to {workers}"):
            queue = longest_first(tasks, predicted)
            while next_bundle(queue, predicted, workers):
                pass
    return len(pickle.dumps(list(ordered)[:100])) // min(100, len(ordered))


def open_campaign(
    space: SearchSpace,
    candidates: Sequence[Candidate],
    costs: Mapping[str, Cost],
    asked: Asked,
    stages: Stages,
) -> tuple[Campaign, Study]:
    """A new search with its study."""
    study = Study(open_storage(asked.directory, None), "nasproxy", space.choices)
    return make_campaign(candidates, costs, asked, study, stages), study


def make_campaign(
    candidates: Sequence[Candidate], costs: Mapping[str, Cost], asked: Asked, study: Study, stages: Stages
) -> Campaign:
    """A search that keeps no weights."""
    settings, choices = asked.settings(), asked.space().choices
    return Campaign(
        settings,
        candidates,
        costs,
        study,
        proposals=Proposals(asked.strategy, candidates, choices, settings.objectives, settings.seed)
        if asked.samples
        else None,
        train_images=1000,
        keep_weights=lambda _: None,
        has_weights=lambda _: True,
        progress=stages,
    )


def drive(campaign: Campaign, stages: Stages, workers: int, most: float) -> tuple[dict[str, dict[str, float]], int]:
    """Trains everything, or leaves it after ``most`` seconds of the processor.

    Returns:
        The time of handing out, of recording, of judging (with recording those that end there), of proposing the next
        candidates, and of what follows the last result of a rung; and the number of trainings that were recorded.
    """
    spent: dict[str, dict[str, float]] = defaultdict(lambda: {"seconds": 0.0, "cpu_seconds": 0.0})
    end, done = time.process_time() + most, 0
    while not campaign.finished:
        began, worked = time.perf_counter(), time.process_time()
        bundle = campaign.next_bundle(workers)
        add(spent["hand out"], began, worked)
        for task in bundle:
            if time.process_time() > end:
                return dict(spent), done
            for outcome in train(task):
                stages.begun, taking_part = False, len(campaign.candidates)
                began, worked = time.perf_counter(), time.process_time()
                goes_on = campaign.record(outcome)
                name = "record"
                if outcome.unfinished:
                    name = "judge"
                elif len(campaign.candidates) > taking_part:
                    name = "propose"
                elif stages.begun or campaign.finished:
                    name = "rank and settle"
                add(spent[name], began, worked)
                if not goes_on:
                    break
            done += 1
    return dict(spent), done


def add(spent: dict[str, float], began: float, worked: float) -> None:
    """Adds the time since two readings of the clocks."""
    spent["seconds"] += time.perf_counter() - began
    spent["cpu_seconds"] += time.process_time() - worked


def train(task: Task) -> Iterator[Outcome]:
    """Scores made of the candidate's id and the epochs; one candidate in a hundred fails.

    A training that is watched yields as often as it has a score.
    """
    number = int(task.candidate.id, 16)
    if number % 100 == 0:
        yield Outcome(task, (), 0.5, failure=f"RuntimeError: tried to allocate {number} bytes")
        return
    levels = (*task.evaluate_at, task.epochs) if task.watched else (task.epochs,)
    scores = [Score(epochs, number * epochs % 1009 / 1009, 1 + number % 997 / 997) for epochs in levels]
    for count, score in enumerate(scores, 1):
        accuracy = score.accuracy if task.data == WHOLE else None
        yield Outcome(task, tuple(scores[:count]), 0.5, accuracy, unfinished=count < len(scores))


def run_facts(space: SearchSpace) -> dict[str, Any]:
    """As much of ``run.json`` as the report reads."""
    choices = {name: list(values) for name, values in space.choices.items()}
    return {
        "schema": 1,
        "settings": {"proxy": "random"},
        "dataset": {"name": "none", "class_names": []},
        "space": {"name": space.name, "choices": choices},
        "versions": {},
        "machine": {},
    }


if __name__ == "__main__":
    main()
