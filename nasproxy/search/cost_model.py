"""How long a training takes: guessed from its size, then corrected by the trainings that this search has measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from nasproxy.search.costs import Cost
from nasproxy.search.task import PROXY, WHOLE, Task

_GUESS = np.array([2e6, 1.0, 2e6, 1.0])
"""Before anything is measured: what a step and a training cost whatever the network, in multiply-adds an image (reading
weights and activations, and Python), and of the network's own multiply-adds, an evaluation as much as an epoch."""

_FEWEST = 8  # measurements: the first of each worker takes longer than those that follow
_TRUST = 1e-12  # in the guess, where measurements leave it open


@dataclass(frozen=True)
class Sizes:
    """What a training's time depends on: its network, and how many images it goes through.

    Args:
        costs: of each candidate, by id.
        images: in the proxy, and in the whole training part.
    """

    costs: Mapping[str, Cost]
    images: Mapping[str, int]

    def of(self, task: Task) -> tuple[float, float, float, float]:
        """Steps, multiply-adds of all epochs, 1, multiply-adds of all evaluations; an epoch on the proxy counts 1."""
        multiply_adds = float(self.costs[task.candidate.id].multiply_adds)
        images = task.recipe.images or self.images[task.data]
        evaluations = len({*task.evaluate_at, task.epochs}) + (task.data == WHOLE)
        return (
            float(task.epochs * -(-images // task.recipe.batch_size)),
            task.epochs * images / self.images[PROXY] * multiply_adds,
            1.0,
            evaluations * multiply_adds,
        )


@dataclass(frozen=True)
class Prediction:
    """How long each training takes, as far as was known when it was made.

    Args:
        sizes: of trainings.
        weights: of each of their sizes, none below 0.
        in_seconds: whether predictions are seconds; else only the proportions between trainings mean something.
    """

    sizes: Sizes
    weights: tuple[float, ...]
    in_seconds: bool

    def __call__(self, task: Task) -> float:
        """The time that ``task`` takes."""
        return sum(weight * size for weight, size in zip(self.weights, self.sizes.of(task), strict=True))


class CostModel:
    """Learns from measured trainings how long others take.

    Non-negative least squares of relative errors, so that a training that took long for reasons of its own counts no
    more than others. What measurements leave open, as after trainings of one length only, stays near the guess. Only
    sums are kept: neither learning nor predicting takes longer as measurements become many.

    Args:
        costs: of each candidate, by id.
        proxy_images: number of images in the proxy.
        train_images: number of images in the whole training part.
    """

    def __init__(self, costs: Mapping[str, Cost], *, proxy_images: int, train_images: int) -> None:
        self._sizes = Sizes(costs, {PROXY: proxy_images, WHOLE: train_images})
        self._gram, self._moment = np.zeros((4, 4)), np.zeros(4)
        self.learnt = 0
        """Number of measurements."""

    def learn(self, task: Task, seconds: float) -> None:
        """Takes in what a training on the proxy took; one on the whole data says nothing about the proxy's steps."""
        if task.data == PROXY and seconds > 0:
            row = np.array(self._sizes.of(task)) / seconds
            self._gram += np.outer(row, row)
            self._moment += row
            self.learnt += 1

    def predict(self) -> Prediction:
        """What is known by now."""
        if self.learnt < _FEWEST:
            return Prediction(self._sizes, tuple(_GUESS.tolist()), in_seconds=False)
        guess = _GUESS * (_GUESS @ self._moment) / (_GUESS @ self._gram @ _GUESS)
        # The normal equations, in multiples of the guess.
        gram = self._gram * np.outer(guess, guess) / self.learnt + _TRUST * np.eye(4)
        root = np.linalg.cholesky(gram)
        target = np.linalg.solve(root, self._moment * guess / self.learnt + _TRUST)
        found, _ = nnls(root.T, target)
        return Prediction(self._sizes, tuple((found * guess).tolist()), in_seconds=True)
