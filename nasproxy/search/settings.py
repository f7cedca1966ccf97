"""What a search is asked to do, and the presets that fill in what is not said."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

from nasproxy.credentials import without_password
from nasproxy.errors import InputError, nearest
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.procedure import Procedure
from nasproxy.proxies.registry import find_method, find_proxy
from nasproxy.search.cluster import check_address
from nasproxy.search.halving import PRUNERS, Rung, halving_rungs
from nasproxy.training.recipe import AUGMENTATIONS, LEARNING_RATE, PRECISIONS, TrainingRecipe, whole_batch_size
from nasproxy.training.strategy import AUTO, NONE

PRESETS = ("quick", "paper")
SCHEDULERS = ("halving", *PRUNERS, "none")
SAMPLERS = ("grid", "random", "tpe", "nsga2")
OBJECTIVES = {
    "accuracy": "proxy_accuracy",
    "parameters": "parameters",
    "multiply-adds": "multiply_adds",
    "latency": "latency_ms",
}
"""What candidates can be ranked by, and the column of ``results.csv`` that holds it."""

EXECUTORS = ("tune", "inline")
DEVICES = ("auto", "cpu", "cuda", "mps")
NORM_STATISTICS = ("proxy", "real")


@dataclass(frozen=True)
class SearchSettings:
    """Everything that decides what a search computes, and where. None is filled in by the preset, or by the machine.

    Args:
        dataset: a name, or a folder of images or Parquet files.
        space: a registered name, ``package.module:attribute``, or ``file.py[:attribute]``.
        proxy: the name of a method (``condensed``, ``random``, ``early-stopping``, …), or a proxy file.
        preset: ``quick`` (minutes on two cores) or ``paper`` (the paper's settings).
        ipc: images per class of the proxy.
        soft_labels: whether candidates aim at the class probabilities that a network trained on the whole training part
            gives to the proxy's images; a file that holds soft labels keeps its own. Accuracies are of classes in any
            case.
        epochs: of the training on the proxy; of ``whole``, ``finalist_epochs`` take their place.
        learning_rate: of its first half, ten times that of the second; ``whole`` has ``finalist_learning_rate``.
        augmentation: of the training on a proxy set: ``none``, ``crop``, ``crop-flip``, ``siamese`` (what dsa and dm
            condense with: all six kinds, but no flip for digits; or those behind a colon, as in
            ``siamese:color-crop``), or ``auto``: ``siamese``, on a set of dsa or dm by the kinds it was made with.
        norm_statistics: under which batch-norm statistics what is trained on a proxy set is scored: ``proxy`` (those of
            that training) or ``real`` (of 1,000 real training images, without their labels). Procedures, which train
            on real images, and candidates without batch normalisation score the same under both.
        repeats: trainings averaged for each score.
        top_k: finalists, trained on the whole training part.
        finalist_epochs: of that training.
        finalist_learning_rate: of that training.
        finalist_batch_size: of that training; None takes an image count's sixteenth, between 16 and 256.
        finalist_augmentation: ``none``, ``crop`` or ``crop-flip``.
        calibrate: ranked candidates drawn at random that are trained on the whole training part too, so that the
            proxy's correlation over all of them can be estimated; None trains none.
        min_correlation: an estimate below is a failure.
        limit: rank a seeded, stratified sample of this many candidates; fewer, where some of them are larger than the
            two limits below.
        max_parameters: leave out larger candidates.
        max_multiply_adds: leave out candidates whose forward pass of one image takes more.
        sampler: ``grid`` (all candidates), or ``random``, ``tpe`` or ``nsga2``, by which Optuna proposes ``trials`` of
            them.
        trials: candidates that a sampler proposes.
        objectives: what candidates are ranked by: ``accuracy`` alone, or with ``parameters``, ``multiply-adds`` or
            ``latency`` beside it, by Pareto fronts and by accuracy within a front. Latency is measured: the fronts may
            differ from run to run, accuracies do not.
        scheduler: ``halving`` (synchronous successive halving over epochs), ``asha`` or ``hyperband`` (each training is
            judged as its scores arrive, so the order of arrival plays a part), or ``none`` (every candidate trains in
            full).
        time_budget: minutes that condensing and ranking may take, counted anew when a run is resumed, the finalists'
            predicted time (up to half) kept back from them; None is no limit.
        executor: ``tune`` (Ray Tune) or ``inline`` (this process).
        workers: of Ray; None fills the cores or the GPUs.
        threads_per_worker: PyTorch threads of each worker.
        gpus_per_worker: share of a GPU each worker takes.
        address: of a running Ray cluster to join, ``host:port`` or ``auto``; None starts a Ray of its own.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``bfloat16`` or ``float32``.
        storage: an Optuna storage address; None is a journal in the run directory.
        seed: of proxies, sample and trainings; the dataset's split does not depend on it.
        out: the run directory.
        data_dir: where torchvision keeps its downloads.
        image_size: (height, width) that images are resized to.
        skip_broken: leave out image files that cannot be read.
        tensorboard: whether finalists are scored after each epoch, and their curves written for TensorBoard.
        evaluate_at: epochs of the proxy training to score after, besides the last.
    """

    dataset: str = "digits"
    space: str = "convnet720"
    proxy: str = "condensed"
    preset: str = "quick"
    ipc: int = 10
    soft_labels: bool = False
    epochs: int = 100
    learning_rate: float = LEARNING_RATE
    augmentation: str = AUTO
    norm_statistics: str = "proxy"
    repeats: int | None = None
    top_k: int = 10
    finalist_epochs: int | None = None
    finalist_learning_rate: float = LEARNING_RATE
    finalist_batch_size: int | None = None
    finalist_augmentation: str = "none"
    calibrate: int | None = None
    min_correlation: float | None = None
    limit: int | None = None
    max_parameters: int | None = None
    max_multiply_adds: int | None = None
    sampler: str = "grid"
    trials: int | None = None
    objectives: tuple[str, ...] = ("accuracy",)
    scheduler: str | None = None
    time_budget: float | None = None
    executor: str = "tune"
    workers: int | None = None
    threads_per_worker: int = 1
    gpus_per_worker: float = 1.0
    address: str | None = None
    device: str = "auto"
    precision: str = "auto"
    storage: str | None = None
    seed: int = 0
    out: Path | None = None
    data_dir: Path | None = None
    image_size: tuple[int, int] | None = None
    skip_broken: bool = False
    tensorboard: bool = False
    evaluate_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        read_fields(self)
        for name, known in _NAMES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise InputError(f"No {name.replace('_', ' ')} is called {value!r}.", nearest(value, known))
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{_option(name)} must be 1 or more, got {value}.")
        if self.time_budget is not None and not 0 < self.time_budget < math.inf:
            raise InputError(f"--time-budget must be a number of minutes above 0, got {self.time_budget}.")
        self._check_placement()
        check_seed(self.seed)
        if any(not 1 <= epoch <= self.epochs for epoch in self.evaluate_at):
            raise InputError(f"Scores can be taken after epochs 1 to {self.epochs}, got {self.evaluate_at}.")
        self.proxy_recipe()
        self.finalist_recipe(1000)
        self._check_calibration()
        self._check_strategy()

    def _check_placement(self) -> None:
        if not 0 < self.gpus_per_worker < math.inf:
            raise InputError(f"--gpus-per-worker must be a number above 0, got {self.gpus_per_worker}.")
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise InputError(f"--gpus-per-worker above 1 must be a whole number, got {self.gpus_per_worker}.")
        if self.address is None:
            return
        check_address(self.address)
        if self.executor != "tune":
            raise InputError(f"--executor {self.executor} joins no cluster.", "Leave out --address, or --executor.")

    def _check_calibration(self) -> None:
        if self.calibrate is not None and self.calibrate < 3:
            raise InputError(
                f"--calibrate must be 3 or more, got {self.calibrate}.", "A correlation needs 3 candidates."
            )
        if self.min_correlation is None:
            return
        if self.calibrate is None:
            raise InputError(
                "--min-correlation judges the estimate that --calibrate makes, and there is none.",
                "Add --calibrate N: the number of random candidates to train on the whole data, 30 or so.",
            )
        if not -1 <= self.min_correlation <= 1:
            raise InputError(f"--min-correlation must be between -1 and 1, got {self.min_correlation}.")

    def _check_strategy(self) -> None:
        for objective in self.objectives:
            if objective not in OBJECTIVES:
                raise InputError(f"No objective is called {objective!r}.", nearest(objective, OBJECTIVES))
        if "accuracy" not in self.objectives or len({*self.objectives}) < len(self.objectives):
            raise InputError(
                f"Objectives are accuracy and others beside it, each once; got {', '.join(self.objectives) or 'none'}.",
                "Example: --objective accuracy --objective parameters.",
            )
        if self.sampler == "grid" and self.trials is not None:
            raise InputError(
                "--trials says how many candidates a sampler proposes, but --sampler grid tries all of them.",
                f"Choose --sampler {', '.join(SAMPLERS[1:])}, or use --limit for a fixed sample.",
            )
        if self.sampler != "grid" and self.scheduler not in (None, "none"):
            raise InputError(
                f"--scheduler {self.scheduler} compares all candidates with each other, but --sampler {self.sampler}"
                " proposes one after another.",
                "Use --scheduler none.",
            )
        if self.scheduler in PRUNERS and (len(self.objectives) > 1 or (self.repeats or 1) > 1):
            raise InputError(
                f"--scheduler {self.scheduler} judges single trainings by their accuracy; it takes no --repeats and"
                " no other --objective.",
                "Use --scheduler halving or none.",
            )

    def resolved(self) -> SearchSettings:
        """The same with what the preset says in place of None."""
        quick = self.preset == "quick"
        return replace(
            self,
            repeats=self.repeats or (1 if quick or self.scheduler in PRUNERS else 5),
            finalist_epochs=self.finalist_epochs or (8 if quick else 100),
            trials=None if self.sampler == "grid" else self.trials or _TRIALS,
            scheduler=self.scheduler or ("halving" if quick and self.sampler == "grid" else "none"),
        )

    def proxy_method(self) -> ProxyMethod | Procedure:
        """How the proxy's images are made, or what is trained on instead.

        Raises:
            InputError: no method has the name; it may be a file's.
        """
        found = find_proxy(self.proxy)
        if issubclass(found, Procedure):
            return found(ipc=self.ipc, epochs=self.epochs, learning_rate=self.learning_rate)
        return find_method(self.proxy).preset(self.preset, self.ipc)

    def proxy_recipe(self) -> TrainingRecipe:
        """How a candidate is trained on a proxy, but that ``auto`` augments by nothing: the dataset decides by what."""
        augmentation = NONE if self.augmentation == AUTO else self.augmentation
        return TrainingRecipe(self.epochs, self.learning_rate, augmentation=augmentation)

    def finalist_recipe(self, images: int) -> TrainingRecipe:
        """How a finalist is trained on a whole training part of ``images`` images."""
        return TrainingRecipe(
            epochs=self.finalist_epochs or 1,
            learning_rate=self.finalist_learning_rate,
            batch_size=self.finalist_batch_size or whole_batch_size(images),
            augmentation=self.finalist_augmentation,
        )

    def rungs(self, candidates: int) -> list[Rung]:
        """After how many epochs how many candidates go on."""
        if self.scheduler == "none":
            return [Rung(self.epochs, candidates)]
        return halving_rungs(candidates, self.epochs, self.top_k)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the run it resumes: all that scores depend on, as JSON values."""
        apart = {"time_budget", "out", "workers", "gpus_per_worker", "executor", "address", "data_dir"}
        # No score depends on these, and a finished run may be calibrated.
        apart |= {"storage", "calibrate", "min_correlation", "tensorboard"}
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in apart}
        # None, as runs begun before these options existed have it.
        kept["soft_labels"] = self.soft_labels or None
        if self.learning_rate == LEARNING_RATE:
            kept["learning_rate"] = None
        if self.norm_statistics == NORM_STATISTICS[0]:
            kept["norm_statistics"] = None
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON values, without the password of a storage."""
        values = {**asdict(self), "storage": self.storage and without_password(self.storage)}
        return {
            name: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }


_TRIALS = 100
_NAMES = {
    "preset": PRESETS,
    "finalist_augmentation": AUGMENTATIONS,
    "norm_statistics": NORM_STATISTICS,
    "executor": EXECUTORS,
    "precision": PRECISIONS,
    "scheduler": SCHEDULERS,
    "sampler": SAMPLERS,
}
_POSITIVE = (
    "ipc",
    "epochs",
    "repeats",
    "top_k",
    "finalist_epochs",
    "finalist_batch_size",
    "limit",
    "max_parameters",
    "max_multiply_adds",
    "trials",
    "workers",
    "threads_per_worker",
)


def check_seed(seed: int) -> None:
    """Makes sure that PyTorch can take a seed.

    Raises:
        InputError: it cannot.
    """
    if seed < 0:
        raise InputError(f"--seed must be 0 or more, got {seed}.")
    if seed >= 2**63:
        raise InputError(f"--seed must be less than 2 to the power of 63, got {seed}.")


def read_fields(settings: Any) -> None:
    """Gives each field its type: a program may say a folder by a text, a tuple by a list, a number by NumPy's.

    Args:
        settings: a frozen dataclass; fields whose annotation is not among those of ``_KINDS``, or that and None, are
            left as they are.

    Raises:
        InputError: a value is of another type.
    """
    for field in fields(settings):
        value, kind = getattr(settings, field.name), str(field.type)
        if value is None and kind.endswith(" | None"):
            continue
        known = _KINDS.get(kind.removesuffix(" | None"))
        if known is None:  # a subclass may have fields of its own
            continue
        expected, read = known
        try:
            object.__setattr__(settings, field.name, read(value))
        except (TypeError, ValueError) as error:
            raise InputError(f"{_option(field.name)} must be {expected}, got {value!r}.") from error


def _whole(value: object) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)  # type: ignore[arg-type]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    return float(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: object) -> str:
    text = os.fspath(value)  # type: ignore[call-overload]
    if not isinstance(text, str):
        raise TypeError
    return text


def _several(value: object) -> list[object]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError
    return list(value)


def _size(value: object) -> tuple[int, int]:
    height, width = map(_whole, _several(value) if isinstance(value, Iterable) else (value, value))
    return height, width


def _settings(value: object) -> SearchSettings:
    if not isinstance(value, SearchSettings):
        raise TypeError
    return value


_KINDS: dict[str, tuple[str, Callable[[object], object]]] = {
    "int": ("a whole number", _whole),
    "float": ("a number", _number),
    "bool": ("True or False", _switch),
    "str": ("a text", _text),
    "Path": ("a path", lambda value: Path(_text(value))),
    "tuple[str, ...]": ("several texts", lambda value: tuple(map(_text, _several(value)))),
    "tuple[int, ...]": ("several whole numbers", lambda value: tuple(map(_whole, _several(value)))),
    "tuple[int, int]": ("a whole number, or two: height and width", _size),
    "SearchSettings": ("a SearchSettings", _settings),
}
"""By the annotation of a field, what its values are, and what makes them of that type or raises."""


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
