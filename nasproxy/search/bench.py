"""The worker's side of a search: holds the data on its device and performs one training after another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from nasproxy.datasets.image_dataset import ImageDataset, Normalisation, Split
from nasproxy.datasets.pixel_memory import PixelFile, as_tensor
from nasproxy.errors import ClusterError
from nasproxy.networks.materialise import materialise
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.search.devices import breaks_device, check_usable, default_workers
from nasproxy.search.task import PROXY, WHOLE, Key, Outcome, Task
from nasproxy.spaces.source import SpaceSource, error_text, user_location
from nasproxy.spaces.space import SearchSpace
from nasproxy.training.latency import milliseconds_of
from nasproxy.training.memory import lacks_memory, release_memory
from nasproxy.training.on_demand import ImagesOnDemand, normalised_on
from nasproxy.training.process import prepare_process
from nasproxy.training.tally import Tally
from nasproxy.training.train import Images, Score, evaluate, training

_STATISTICS = "statistics"  # beside the splits: the images under whose batch-norm statistics a proxy's trainings score
_STATISTICS_IMAGES = 1000


@dataclass
class _Course:
    """A training under way."""

    model: nn.Module
    rest: Iterator[Score]
    scores: list[Score]
    seconds: float
    tally: Tally | None = None
    train_curve: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Payload:
    """Everything a worker needs, sent once: arrays, so that the processes of one node share their memory.

    Images that memory should not hold are sent as the file they are mapped from, which every node must find.
    """

    space: SpaceSource
    splits: dict[str, tuple[np.ndarray | PixelFile, np.ndarray]]
    normalisation: Normalisation
    num_classes: int
    device: str
    precision: str
    threads: int
    score: CandidateScore | None = None
    soft_labels: np.ndarray | None = None  # of the proxy

    @classmethod
    def of(
        cls,
        space: SpaceSource,
        dataset: ImageDataset,
        proxy: ProxySet | Split | None,
        *,
        device: str,
        precision: str,
        threads: int,
        real_statistics: bool = False,
        score: CandidateScore | None = None,
    ) -> Payload:
        """Gathers what training candidates of ``space`` on ``proxy`` and on ``dataset`` takes.

        Args:
            space: where workers find the search space.
            dataset: what is trained on in the end.
            proxy: what candidates are ranked on; None where none is.
            device: the workers'.
            precision: of trainings.
            threads: of each worker.
            real_statistics: whether what is trained on a proxy set is scored under batch-norm statistics of real
                training images. Trainings on real images have these anyway.
            score: what is worked out on the proxy's images instead of training on them.
        """
        parts: dict[str, Split | ProxySet] = {WHOLE: dataset.train, "validation": dataset.validation}
        parts["test"] = dataset.test
        if proxy is not None and proxy is not dataset.train:
            parts[PROXY] = proxy
        if real_statistics and isinstance(proxy, ProxySet):
            parts[_STATISTICS] = statistics_images(dataset.train)
        splits = {name: (_images_of(part), part.labels.numpy()) for name, part in parts.items()}
        if proxy is dataset.train:
            splits[PROXY] = splits[WHOLE]
        soft = proxy.soft_labels if isinstance(proxy, ProxySet) else None
        return cls(
            space,
            splits,
            dataset.normalisation,
            dataset.num_classes,
            device,
            precision,
            threads,
            score,
            None if soft is None else soft.numpy(),
        )


class Bench:
    """Performs tasks. Data move to the device when a task first needs them, and stay.

    Raises:
        ClusterError: this process cannot compute on the device.
    """

    def __init__(self, payload: Payload) -> None:
        prepare_process(payload.threads)
        self._payload = payload
        self._space: SearchSpace = payload.space.load()
        self._device = torch.device(payload.device)
        check_usable(self._device)
        self.broken: str | None = None
        """Why nothing can be trained in this process any more; None where it can."""
        self._data: dict[str, Images] = {}
        self._waiting: dict[Key, _Course] = {}

    def perform(self, task: Task) -> Outcome:
        """Trains one candidate, one that is watched to its next score. What goes wrong is an outcome, no exception.

        A watched training goes on where it was if it is what is asked for next, and is forgotten otherwise.

        Raises:
            ClusterError: the candidate is not to blame, but what this process finds on its machine.
        """
        began = time.perf_counter()
        try:
            return self._train(task, began)
        except ClusterError:
            raise
        except Exception as error:
            reason = error_text(error, user_location(error, self._payload.space))
            short = lacks_memory(error)
            if breaks_device(error):
                self.broken = reason
        # Only now: the exception held on to the tensors of the training.
        if short:
            release_memory(self._device)
        return Outcome(task, (), time.perf_counter() - began, failure=reason, out_of_memory=short)

    def rest(self) -> None:
        """Gives back the memory that trainings have left: another's training may need it."""
        self._waiting.clear()
        release_memory(self._device)

    def build(self, task: Task) -> nn.Module:
        """The freshly initialised network of a task, on the device."""
        torch.manual_seed(task.seed)
        images = self._images("validation").images[:2]
        model = self._space.build(
            dict(task.candidate.config),
            in_channels=int(images.shape[1]),
            num_classes=self._payload.num_classes,
            image_size=(int(images.shape[2]), int(images.shape[3])),
        )
        return materialise(model.to(self._device), images, self._payload.num_classes)

    def _train(self, task: Task, began: float) -> Outcome:
        if self._payload.score is not None and task.data == PROXY:
            return self._score(self._payload.score, self.build(task), task, began)
        course = self._waiting.pop(task.key, None)
        self._waiting.clear()
        course = course or self._begin(task)
        for score in course.rest:
            course.scores.append(score)
            if course.tally is not None:
                course.train_curve.append(course.tally.take())
            if task.watched and score.epoch < task.epochs and not score.diverged:
                self._waiting[task.key] = course
                break
        course.seconds += time.perf_counter() - began
        scores = tuple(course.scores)
        if task.data == PROXY:
            unfinished = task.key in self._waiting
            timed = task.timed and not unfinished
            latency = milliseconds_of(course.model, self._images("validation").images[:1]) if timed else None
            return Outcome(task, scores, course.seconds, unfinished=unfinished, latency_ms=latency)
        test = evaluate(course.model, self._images("test"), epoch=task.epochs, precision=self._payload.precision)
        weights: dict[str, Tensor] = {name: value.detach().cpu() for name, value in course.model.state_dict().items()}
        seconds = time.perf_counter() - began
        curve = tuple(course.train_curve)
        return Outcome(task, scores, seconds, test.accuracy, weights=weights, train_curve=curve)

    def _begin(self, task: Task) -> _Course:
        model, data = self.build(task), self._images(task.data)
        real = task.data == PROXY and _STATISTICS in self._payload.splits
        tally = Tally(data.labels) if task.curves else None
        scores = training(
            model,
            data,
            task.recipe,
            self._images("validation"),
            seed=task.seed,
            precision=self._payload.precision,
            epochs=task.epochs,
            evaluate_at=task.evaluate_at,
            statistics=self._images(_STATISTICS) if real else None,
            on_batch=tally,
        )
        return _Course(model, scores, [], 0.0, tally)

    def _score(self, score: CandidateScore, model: nn.Module, task: Task, began: float) -> Outcome:
        """What is worked out without training takes the place of an accuracy; nothing breaks its ties."""
        data = self._images(PROXY)
        value = _real(score, score.score(model, data.images[:], data.labels))
        return Outcome(task, (Score(task.epochs, value, 0.0),), time.perf_counter() - began)

    def _images(self, name: str) -> Images:
        if name == PROXY and self._payload.splits[PROXY] is self._payload.splits[WHOLE]:
            name = WHOLE  # one copy on the device is enough
        if name not in self._data:
            images, labels = self._payload.splits[name]
            soft = self._payload.soft_labels if name == PROXY else None
            self._data[name] = Images(
                self._on_device(images),
                torch.from_numpy(labels.copy()).to(self._device),
                None if soft is None else torch.from_numpy(soft.copy()).to(self._device),
            )
        return self._data[name]

    def _on_device(self, images: np.ndarray | PixelFile) -> Tensor | ImagesOnDemand:
        array = _opened(images)
        if array.dtype != np.uint8:
            return torch.from_numpy(array.copy()).to(self._device)
        sharers = default_workers(torch.device("cpu"), self._payload.threads, 0.0)
        return normalised_on(self._device, as_tensor(array), self._payload.normalisation, sharers=sharers)


def statistics_images(train: Split) -> Split:
    """A random thousand of the training part, or all, their order random too: the same ones in every run."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return train.take(order[:_STATISTICS_IMAGES])


def _images_of(part: Split | ProxySet) -> np.ndarray | PixelFile:
    file = part.file if isinstance(part, Split) else None
    images: np.ndarray = part.images.numpy()
    return images if file is None else file


def _real(score: CandidateScore, found: object) -> float:
    """What a score came to, which may be NumPy's or PyTorch's, as Python's number.

    Raises:
        TypeError: it is no real number.
    """
    number = found.item() if isinstance(found, (Tensor, np.ndarray, np.generic)) and found.ndim == 0 else found
    if isinstance(number, Real) and not isinstance(number, bool):
        return float(number)
    of = f" of shape {tuple(found.shape)}" if isinstance(found, (Tensor, np.ndarray)) and found.ndim else ""
    raise TypeError(f"{type(score).__name__}.score must return a number, but returned a {type(found).__name__}{of}.")


def _opened(images: np.ndarray | PixelFile) -> np.ndarray:
    """The pixels.

    Raises:
        ClusterError: they lie in a file that this node does not find.
    """
    if isinstance(images, np.ndarray):
        return images
    try:
        return images.open()
    except OSError as error:
        raise ClusterError(
            f"The images do not fit in memory, and {images.path}, which holds them, cannot be read here: "
            f"{error.strerror or error}.",
            "Set NASPROXY_CACHE to a folder that all nodes share.",
        ) from error
