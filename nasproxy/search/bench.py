"""The worker's side of a search: holds the data on its device and performs one training after another."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nasproxy.datasets.image_dataset import ImageDataset, Normalisation
from nasproxy.networks.materialise import materialise
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.search.space import SearchSpace
from nasproxy.search.space_source import SpaceSource, user_location
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.training.latency import milliseconds_of
from nasproxy.training.memory import lacks_memory, release_memory
from nasproxy.training.process import prepare_process
from nasproxy.training.train import Images, evaluate, train


@dataclass(frozen=True)
class Payload:
    """Everything a worker needs, sent once: arrays, so that the processes of one node share their memory."""

    space: SpaceSource
    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    normalisation: Normalisation
    num_classes: int
    device: str
    precision: str
    threads: int

    @classmethod
    def of(
        cls, space: SpaceSource, dataset: ImageDataset, proxy: ProxySet, *, device: str, precision: str, threads: int
    ) -> Payload:
        """Gathers what training candidates of ``space`` on ``proxy`` and on ``dataset`` takes."""
        parts = {WHOLE: dataset.train, "validation": dataset.validation, "test": dataset.test}
        splits = {name: (part.images.numpy(), part.labels.numpy()) for name, part in parts.items()}
        splits[PROXY] = (proxy.images.numpy(), proxy.labels.numpy())
        return cls(space, splits, dataset.normalisation, dataset.num_classes, device, precision, threads)


class Bench:
    """Performs tasks. Data move to the device when a task first needs them, and stay."""

    def __init__(self, payload: Payload) -> None:
        prepare_process(payload.threads)
        self._payload = payload
        self._space: SearchSpace = payload.space.load()
        self._device = torch.device(payload.device)
        self._data: dict[str, Images] = {}

    def perform(self, task: Task) -> Outcome:
        """Trains one candidate. Whatever goes wrong in it is an outcome, not an exception."""
        began = time.perf_counter()
        try:
            return self._train(task, began)
        except Exception as error:
            where = user_location(error, self._payload.space)
            reason = f"{type(error).__name__}: {error}" + (f" ({where})" if where else "")
            short = lacks_memory(error)
        # Only now: the exception held on to the tensors of the training.
        if short:
            release_memory(self._device)
        return Outcome(task, (), time.perf_counter() - began, failure=reason, out_of_memory=short)

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
        model = self.build(task)
        precision = self._payload.precision
        scores = train(
            model,
            self._images(task.data),
            task.recipe,
            self._images("validation"),
            seed=task.seed,
            precision=precision,
            epochs=task.epochs,
            evaluate_at=task.evaluate_at,
        )
        if task.data == PROXY:
            seconds = time.perf_counter() - began
            latency = milliseconds_of(model, self._images("validation").images[:1]) if task.timed else None
            return Outcome(task, tuple(scores), seconds, latency_ms=latency)
        test = evaluate(model, self._images("test"), epoch=task.epochs, precision=precision)
        weights: dict[str, Tensor] = {name: value.detach().cpu() for name, value in model.state_dict().items()}
        return Outcome(task, tuple(scores), time.perf_counter() - began, test.accuracy, weights=weights)

    def _images(self, name: str) -> Images:
        if name not in self._data:
            images, labels = (torch.from_numpy(array.copy()).to(self._device) for array in self._payload.splits[name])
            if images.dtype == torch.uint8:
                images = self._payload.normalisation.apply(images)
            self._data[name] = Images(images, labels)
        return self._data[name]
