"""One way of ranking candidates, in a process of its own: what ``search_throughput.py`` measures. Not for use by hand.

    python benchmarks/search_contenders.py JOB.json ANSWER.json

``loop``: one network after another, DataLoaders over TensorDatasets, float32, PyTorch's default settings. The networks
are built of torch's own layers, as the paper's authors write them; for ``loop-own-networks`` they are nasproxy's.
``plain-tune``: Ray Tune as its manual shows it, one function trainable a candidate, each doing what the loop does on
one thread. ``inline`` and ``tune``: nasproxy's engine. ``idle``: ``tune`` with workers that sleep in place of training.

The loops and nasproxy's workers have a training that is not timed before those that are; plain Tune has a new process
for each trial, so there is nothing to warm. The time until Ray and nasproxy's workers stand ready is told apart.

Processor seconds are those of all trainings, with Ray those of the driver besides: other work on the machine slows a
training, but hardly adds to its processor time.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.files import write_json
from nasproxy.networks.classifier import Readout
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.norms import GroupNorm, InstanceNorm, LayerNorm
from nasproxy.progress import Silent
from nasproxy.proxies.make import load_matching_proxy
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.campaign import Campaign
from nasproxy.search.costs import Costs
from nasproxy.search.inline import run_inline
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study, open_storage
from nasproxy.search.task import PROXY, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import Config, SearchSpace
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Score

SPACE = "convnet720"


@dataclass(frozen=True)
class Lane:
    """The working life of one worker process, in seconds of the clock.

    Args:
        ready: when it could begin its first training.
        spans: when it began and ended each.
        processor: processor seconds of all of them.
    """

    ready: float
    spans: list[tuple[float, float]]
    processor: float


@dataclass(frozen=True)
class Job:
    """What to rank, and how.

    Args:
        kind: ``loop``, ``loop-own-networks``, ``plain-tune``, ``inline``, ``tune`` or ``idle``.
        configs: of the candidates.
        dataset: its name.
        proxy: file of the proxy.
        epochs: of each training.
        repeats: trainings of each candidate.
        seed: of the trainings.
        precision: ``float32``, or for nasproxy ``bfloat16``.
        threads: of each of nasproxy's workers.
        workers: processes of Ray.
        sleep: seconds a training takes, for ``idle``.
    """

    kind: str
    configs: list[Config]
    dataset: str
    proxy: str
    epochs: int
    repeats: int = 1
    seed: int = 0
    precision: str = "float32"
    threads: int = 1
    workers: int = 1
    sleep: float = 0.0

    @cached_property
    def candidates(self) -> list[Candidate]:
        """With their ids."""
        return [Candidate.of(config) for config in self.configs]

    @cached_property
    def data(self) -> ImageDataset:
        """The dataset, loaded."""
        return load_dataset(self.dataset)

    def seeds(self) -> Iterator[tuple[Candidate, int]]:
        """Every training of a loop and its seed, which none of nasproxy's trainings has."""
        for candidate in self.candidates:
            for repeat in range(self.repeats):
                yield candidate, candidate.seed(self.seed, repeat, "loop")


@dataclass(frozen=True)
class Loop:
    """The training anyone would write, and the data it takes.

    Args:
        space: the candidates' own.
        training: the proxy.
        validation: what accuracies are measured on.
        classes: of the labels.
        recipe: shared with nasproxy.
        plain: whether networks are built of torch's own layers.
    """

    space: SearchSpace
    training: TensorDataset
    validation: TensorDataset
    classes: int
    recipe: TrainingRecipe
    plain: bool

    @classmethod
    def of(cls, job: Job, *, epochs: int | None = None) -> Loop:
        """The loop that ``job`` asks for."""
        dataset, proxy = job.data, load_matching_proxy(Path(job.proxy), job.data)
        validation = TensorDataset(dataset.normalisation.apply(dataset.validation.images), dataset.validation.labels)
        return cls(
            SpaceSource.parse(SPACE).load(),
            TensorDataset(proxy.images, proxy.labels),
            validation,
            dataset.num_classes,
            TrainingRecipe(epochs=epochs or job.epochs),
            job.kind != "loop-own-networks",
        )

    def train(self, config: Config, seed: int) -> float:
        """The validation accuracy of one freshly initialised network after its training."""
        torch.manual_seed(seed)
        model, recipe = self._build(config), self.recipe
        loader = DataLoader(self.training, batch_size=recipe.batch_size, shuffle=True)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [(recipe.epochs + 1) // 2])
        model.train()
        for _ in range(recipe.epochs):
            for images, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels).backward()
                optimizer.step()
            scheduler.step()
        return self._accuracy(model)

    @torch.no_grad()
    def _accuracy(self, model: nn.Module) -> float:
        model.eval()
        right = 0
        for images, labels in DataLoader(self.validation, batch_size=self.recipe.batch_size):
            right += int((model(images).argmax(1) == labels).sum())
        return right / len(self.validation)

    def _build(self, config: Config) -> nn.Module:
        image = self.training[0][0]
        size = (int(image.shape[1]), int(image.shape[2]))
        model = self.space.build(dict(config), in_channels=len(image), num_classes=self.classes, image_size=size)
        return of_plain_layers(model) if self.plain else model


def of_plain_layers(model: nn.Module) -> nn.Sequential:
    """The same network and weights as the paper's authors write it: torch's own layers, in torch's default layout."""
    assert isinstance(model, ConvNet)
    layers = [*model.features, nn.Flatten(), model.classifier]
    return nn.Sequential(*(_plain_layer(layer) for layer in layers)).to(memory_format=torch.contiguous_format)


def _plain_layer(layer: nn.Module) -> nn.Module:
    plain: nn.Module
    match layer:
        case GroupNorm() | InstanceNorm():
            plain = nn.GroupNorm(layer.num_groups, layer.num_channels)
        case LayerNorm():
            plain = nn.LayerNorm(layer.normalized_shape)
        case Readout():
            plain = nn.Linear(layer.in_features, layer.out_features)
        case _:
            return layer
    plain.load_state_dict(layer.state_dict())
    return plain


def run_loop(job: Job) -> dict[str, Any]:
    """Trains one candidate after another in this process."""
    Loop.of(job, epochs=1).train(job.configs[0], seed=0)
    loop = Loop.of(job)
    accuracies, seconds, processor = [], [], []
    began = time.perf_counter()
    for candidate, seed in job.seeds():
        since, computed = time.perf_counter(), time.process_time()
        accuracies.append(loop.train(candidate.config, seed))
        seconds.append(time.perf_counter() - since)
        processor.append(time.process_time() - computed)
    answer = _answer(
        job, time.perf_counter() - began, accuracies, seconds, sum(processor), threads=torch.get_num_threads()
    )
    return {**answer, "candidate_processor_seconds": [round(value, 4) for value in processor]}


def run_plain_tune(job: Job) -> dict[str, Any]:
    """One trial a candidate, in a new process each, as Tune does unless told otherwise."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AIR_NEW_OUTPUT="0")
    import ray
    from ray import tune

    def trainable(config: dict[str, Any], loop: Loop) -> None:
        torch.set_num_threads(1)
        began, computed = time.perf_counter(), time.process_time()
        accuracy = loop.train(config["candidate"], config["seed"])
        seconds, processor = time.perf_counter() - began, time.process_time() - computed
        tune.report({"accuracy": accuracy, "seconds": seconds, "processor": processor})

    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    began = time.perf_counter()
    ray.init(
        num_cpus=job.workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _node_ip_address="127.0.0.1",
    )
    startup = time.perf_counter() - began
    trials = [{"candidate": candidate.config, "seed": seed} for candidate, seed in job.seeds()]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, loop=Loop.of(job)), {"cpu": 1}),
            param_space=tune.grid_search(trials),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        began, computed = time.perf_counter(), time.process_time()
        grid = tuner.fit()
        took, driver = time.perf_counter() - began, time.process_time() - computed
    ray.shutdown()
    assert not grid.num_errors, grid.errors
    results = [grid[number].metrics or {} for number in range(len(grid))]
    names = ("accuracy", "seconds", "processor")
    accuracies, seconds, processor = ([float(metrics[name]) for metrics in results] for name in names)
    return _answer(job, took, accuracies, seconds, sum(processor) + driver, threads=1, startup=startup)


class WatchedBench(Bench):
    """Notes when each training began and ended, in a file for each process.

    Args:
        payload: as for every bench.
        folder: of the files.
        warm_up: a training performed beforehand, so that none that counts is the first.
    """

    def __init__(self, payload: Payload, folder: str, warm_up: Task | None) -> None:
        super().__init__(payload)
        if warm_up is not None:
            super().perform(warm_up)
        self._notes = Path(folder) / f"lane-{os.getpid()}"
        self._notes.write_text(f"{time.time()!r}\n")

    def perform(self, task: Task) -> Outcome:
        """Trains, and notes it."""
        began, computed = time.time(), time.process_time()
        outcome = self._work(task)
        if task.data == PROXY:
            with self._notes.open("a") as file:
                file.write(f"{began!r} {time.time()!r} {time.process_time() - computed!r}\n")
        return outcome

    def _work(self, task: Task) -> Outcome:
        return super().perform(task)


class SleepingBench(WatchedBench):
    """Takes a given time for each training, and trains nothing.

    Args:
        payload: as for every bench.
        folder: of the notes.
        seconds: of each training.
    """

    def __init__(self, payload: Payload, folder: str, seconds: float) -> None:
        super().__init__(payload, folder, None)
        self._seconds = seconds

    def _work(self, task: Task) -> Outcome:
        if self._seconds:
            time.sleep(self._seconds)
        return Outcome(task, (Score(task.epochs, 0.5, 1.0),), self._seconds)


def run_nasproxy(job: Job) -> dict[str, Any]:
    """The ranking of a search: campaign, study, executor; one finalist's epoch follows and is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        payload, costs = _payload(job), _costs(job)
        began = time.perf_counter()
        for candidate in job.candidates:
            costs[candidate.id]
        measuring = time.perf_counter() - began
        study = Study(open_storage(folder, None), "nasproxy", payload.space.load().choices)
        began_at, computed = time.time(), time.process_time()
        campaign = _campaign(job, costs, study)
        _execute(job, campaign, payload, folder)
        processor = time.process_time() - computed
        ended_at = began_at + campaign.stage_seconds["search"]
        lanes = _read_lanes(folder, ended_at)
    keys = [(c.id, PROXY, job.epochs, repeat) for c in job.candidates for repeat in range(job.repeats)]
    found = [study.measurements[key] for key in keys]
    assert not any(measurement.failure for measurement in found), found
    workers = 1 if job.kind == "inline" else job.workers
    # Ray's workers do not stand ready at the same time: what counts is the time that they had, on average.
    waits = [lane.ready - began_at for lane in lanes] + [ended_at - began_at] * max(0, workers - len(lanes))
    startup = sum(waits) / len(waits)
    return {
        **_answer(
            job,
            ended_at - began_at - startup,
            [measurement.scores[-1].accuracy for measurement in found],
            [measurement.seconds for measurement in found],
            sum(lane.processor for lane in lanes) + (0 if job.kind == "inline" else processor),
            threads=job.threads,
            startup=startup,
        ),
        "measuring_seconds": round(measuring, 3),
        "ready_after": [round(wait, 3) for wait in sorted(waits)],
        **_idleness(lanes, workers),
    }


def _campaign(job: Job, costs: Costs, study: Study) -> Campaign:
    settings = SearchSettings(
        dataset=job.dataset,
        epochs=job.epochs,
        repeats=job.repeats,
        top_k=1,
        finalist_epochs=1,
        scheduler="none",
        seed=job.seed,
    )
    return Campaign(
        settings.resolved(),
        job.candidates,
        costs,
        study,
        train_images=len(job.data.train),
        keep_weights=lambda _: None,
        has_weights=lambda _: True,
        progress=Silent(),
    )


def _execute(job: Job, campaign: Campaign, payload: Payload, folder: Path) -> None:
    recipe = TrainingRecipe(epochs=1)
    warm_up = Task(job.candidates[0], PROXY, recipe, epochs=1, repeat=0, seed=0)
    watched = partial(WatchedBench, folder=str(folder), warm_up=warm_up)
    if job.kind == "inline":
        with patch("nasproxy.search.inline.Bench", watched):
            run_inline(campaign, payload)
        return
    from nasproxy.search import tune

    make = partial(SleepingBench, folder=str(folder), seconds=job.sleep) if job.kind == "idle" else watched

    class Worker(tune._Worker):
        # Ray copies this class to its processes, where the engine's module is imported anew: nothing patched is there.
        def setup(self, config: dict[str, Any], payload: Payload | None = None) -> None:
            super().setup(config, payload)
            assert payload is not None
            self._bench = make(payload)

    with patch("nasproxy.search.tune._Worker", Worker):
        tune.run_on_tune(campaign, payload, workers=job.workers, gpus_per_worker=0.0)


def _payload(job: Job) -> Payload:
    return Payload.of(
        SpaceSource.parse(SPACE),
        job.data,
        load_matching_proxy(Path(job.proxy), job.data),
        device="cpu",
        precision=job.precision,
        threads=job.threads,
    )


def _costs(job: Job) -> Costs:
    data = job.data
    space = SpaceSource.parse(SPACE).load()
    return Costs(
        space, job.candidates, channels=data.channels, image_size=data.image_size, num_classes=data.num_classes
    )


def _read_lanes(folder: Path, ended_at: float) -> list[Lane]:
    """Of each worker process that stood ready before the search ended."""
    lanes = []
    for path in folder.glob("lane-*"):
        ready, *lines = path.read_text().splitlines()
        rows = [[float(value) for value in line.split()] for line in lines]
        spans = [(began, ended) for began, ended, _ in rows]
        lanes.append(Lane(float(ready), spans, sum(processor for *_, processor in rows)))
    return [lane for lane in lanes if lane.ready < ended_at]


def _idleness(lanes: Sequence[Lane], workers: int) -> Mapping[str, Any]:
    """Shares of the time between the first training's beginning and the last one's end, and what was in it."""
    every = [span for lane in lanes for span in lane.spans]
    began, ended = min(span[0] for span in every), max(span[1] for span in every)
    busy = sum(end - start for start, end in every)
    # Should a process be replaced by another, the last ends of all still tell when a worker ran out of work.
    last_ends = sorted((lane.spans[-1][1] for lane in lanes if lane.spans), reverse=True)
    first_idle = last_ends[workers - 1] if len(last_ends) >= workers else began
    return {
        "processes": len(lanes),
        "busy_seconds": round(busy, 3),
        "idle_at_end": round((ended - first_idle) / (ended - began), 4),
        "idle": round(1 - busy / sum(ended - lane.ready for lane in lanes), 4),
    }


def _answer(
    job: Job,
    took: float,
    accuracies: Sequence[float],
    seconds: Sequence[float],
    processor: float,
    *,
    threads: int,
    startup: float = 0.0,
) -> dict[str, Any]:
    rows = [accuracies[start : start + job.repeats] for start in range(0, len(accuracies), job.repeats)]
    return {
        "seconds": round(took, 3),
        "processor_seconds": round(processor, 3),
        "startup_seconds": round(startup, 3),
        "threads": threads,
        "accuracies": [[round(accuracy, 6) for accuracy in row] for row in rows],
        "candidate_seconds": [round(value, 4) for value in seconds],
    }


def main() -> None:
    """Does the job in the first file, writes what came of it to the second."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    runners = {"loop": run_loop, "loop-own-networks": run_loop, "plain-tune": run_plain_tune}
    write_json(Path(sys.argv[2]), runners.get(job.kind, run_nasproxy)(job))


if __name__ == "__main__":
    main()
