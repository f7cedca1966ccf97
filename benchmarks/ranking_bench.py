"""The work of ``ranking_ablation.py``: makes one set, or trains all candidates on one and scores them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ranking_contenders import AUGMENTED, EARLY, IPC, TAUGHT, methods
from result_file import plain_name

from nasproxy.analysis.bootstrap import mean_of_repeats
from nasproxy.cli.options import parse_image_size
from nasproxy.compare.scores import load_scores
from nasproxy.coresets.whole_training import WholeRecipe
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import DivergedError, InputError, RunError
from nasproxy.proxies.early_stopping import EarlyStopping
from nasproxy.proxies.make import make_proxy
from nasproxy.proxies.soft_labels import Teacher, softness
from nasproxy.search.bench import statistics_images
from nasproxy.search.rebuild import rebuild
from nasproxy.search.task import PROXY
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.source import SpaceSource
from nasproxy.training.on_demand import normalised_on
from nasproxy.training.process import prepare_process
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.strategy import AUTO, parse_strategy, training_with
from nasproxy.training.train import Images, evaluate, settled_statistics, train

CPU = torch.device("cpu")
TEACHER = WholeRecipe.preset("quick")
SEEDS_APART = 1000  # sets of one --seed never share a seed below this many


@dataclass(frozen=True)
class Job:
    """A set to be made, or all candidates to be trained on it in one of the ways of :class:`Contender`."""

    images: str
    number: int
    training: str | None = None


class Bench:
    """Makes sets, and trains candidates on them, in one thread."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        prepare_process(1)
        size = parse_image_size(arguments.image_size)
        dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir, image_size=size)
        # A folder's path is nobody's business but its owner's: neither here nor in the proxies.
        self.dataset = dataset = replace(dataset, name=plain_name(dataset.name))
        self._arguments, self._methods = arguments, methods(arguments.condense_minutes)
        self.candidates, self.truth = _truth(arguments.truth, dataset.fingerprint)
        self._space = SpaceSource.parse(arguments.space).load()
        self._validation = Images(dataset.normalisation.apply(dataset.validation.images), dataset.validation.labels)
        real = statistics_images(dataset.train)
        self._statistics = Images(dataset.normalisation.apply(real.images), real.labels)

    def perform(self, job: Job) -> dict[str, Any]:
        """What is kept of it."""
        return self._make(job) if job.training is None else self._train(job)

    def check(self, entry: dict[str, Any]) -> None:
        """Makes sure that a set was made as it would be now.

        Raises:
            RunError: it was not.
        """
        if entry["making"] is None or entry["making"]["failure"] is not None:
            return
        method, before = self._methods[entry["images"]].for_dataset(self.dataset), entry["making"]["recipe"]
        for name, now in asdict(method).items():
            if before.get(name) != now:
                raise RunError(
                    f"Set {entry['set']} of {entry['images']} was made with other settings: {name} was"
                    f" {before.get(name)}, now {now}.",
                    "Take it out of the file, or choose another --out.",
                )

    def teacher(self, on_epoch: Callable[[int, float], None] | None = None) -> Teacher:
        """The network that gives soft labels: the same for all sets."""
        where: Any = {"device": CPU, "precision": self._arguments.precision, "on_epoch": on_epoch}
        return Teacher.of(self.dataset, TEACHER, seed=self._seed(0), **where)

    def _seed(self, number: int) -> int:
        return int(self._arguments.seed) * SEEDS_APART + number

    def _where(self, job: Job) -> dict[str, Any]:
        return {"seed": self._seed(job.number), "device": CPU, "precision": self._arguments.precision}

    def _make(self, job: Job) -> dict[str, Any]:
        method, began, failure, recipe = self._methods[job.images], time.process_time(), None, {}
        try:
            recipe = dict(make_proxy(self.dataset, method, **self._where(job), use_cache=False).recipe)
        except DivergedError as error:
            failure = error.message
        return {"recipe": recipe, "processor_seconds": time.process_time() - began, "failure": failure}

    def _train(self, job: Job) -> dict[str, Any]:
        data, recipe, facts = self._data(job)
        began = time.process_time()
        scores = {candidate.id: self._score(candidate, data, recipe, job) for candidate in self.candidates}
        return {**facts, "processor_seconds": time.process_time() - began, "scores": scores}

    def _data(self, job: Job) -> tuple[Images, TrainingRecipe, dict[str, Any]]:
        """What candidates are trained on, how, and what is to be kept of it."""
        recipe, seed = TrainingRecipe(epochs=self._arguments.epochs), self._seed(job.number)
        if job.images == EARLY:
            procedure = EarlyStopping(ipc=IPC, epochs=self._arguments.epochs)
            part = procedure.images(self.dataset, seed=seed)
            images = normalised_on(CPU, part.images, self.dataset.normalisation)
            return Images(images, part.labels), procedure.recipe(self.dataset, recipe), {"teacher_seconds": 0.0}
        teacher = self.teacher() if job.training in TAUGHT else None
        proxy = make_proxy(self.dataset, self._methods[job.images], **self._where(job), teacher=teacher)
        if job.training in AUGMENTED:
            recipe = replace(recipe, augmentation=training_with(parse_strategy(AUTO, self.dataset.name)))
        facts = {"teacher_seconds": teacher.training.seconds if teacher else 0.0, "labels": softness(proxy)}
        return Images(proxy.images, proxy.labels, proxy.soft_labels), recipe, facts

    def _score(self, candidate: Candidate, data: Images, recipe: TrainingRecipe, job: Job) -> dict[str, float]:
        """Validation accuracy under either kind of batch-norm statistics: equal without batch normalisation."""
        seed, precision = candidate.seed(self._seed(job.number), 0, PROXY), self._arguments.precision
        shape: Any = {name: getattr(self.dataset, name) for name in ("channels", "image_size", "num_classes")}
        model = rebuild(self._space, candidate, **shape, seed=seed)
        (own,) = train(model, data, recipe, self._validation, seed=seed, precision=precision)
        with settled_statistics(model, self._statistics, precision):
            real = evaluate(model, self._validation, epoch=own.epoch, precision=precision)
        return {"accuracy": own.accuracy, "real_statistics": real.accuracy}


def _truth(folder: Path, fingerprint: str) -> tuple[list[Candidate], list[float]]:
    """The candidates that a comparison has trained on the whole data, and their validation accuracies.

    Raises:
        InputError: it is of other data.
    """
    scores = load_scores(folder)
    if scores.facts.get("fingerprint") != fingerprint:
        raise InputError(
            f"{folder.name} is of {scores.facts['dataset']} with another fingerprint than the dataset's.",
            "Give the --dataset and --image-size that it was measured with.",
        )
    choices = {name: scores.choice(name) for name in scores.facts["choices"]}
    every = [Candidate.of({name: values[row] for name, values in choices.items()}) for row in range(len(scores))]
    whole = mean_of_repeats(scores.repeats("whole"))
    there = np.isfinite(whole)
    return [candidate for candidate, kept in zip(every, there, strict=True) if kept], whole[there].tolist()
