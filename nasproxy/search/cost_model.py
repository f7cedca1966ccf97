"""How long a training takes: guessed from its size, then corrected by the trainings that this search has measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        data: ``proxy`` or ``whole``: which trainings it learns from. One on the whole data says nothing about the
            proxy's steps.
    """

    def __init__(self, costs: Mapping[str, Cost], *, proxy_images: int, train_images: int, data: str = PROXY) -> None:
        self._sizes = Sizes(costs, {PROXY: proxy_images, WHOLE: train_images})
        self._data = data
        self._gram, self._moment = np.zeros((4, 4)), np.zeros(4)
        self.learnt = 0
        """Number of measurements."""

    def learn(self, task: Task, seconds: float) -> None:
        """Takes in what a training took, if it is of the kind learnt from."""
        if task.data == self._data and seconds > 0:
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


class Ahead:
    """How much of a stage is done: what its trainings have taken, beside what those left are predicted to take.

    The longest go first, and what is small next to a long training is most of a short one: a share of the work that was
    predicted at the beginning would promise too early an end. The prediction follows the measurements as they come.

    Args:
        tasks: of the stage, not done yet.
        predicted: their times as they were known at the beginning.
        model: that learns from them. Where it is not the one that predicted, as for trainings on the whole data, the
            first prediction says what they take of each other only, until this model knows their seconds.
    """

    def __init__(self, tasks: Iterable[Task], predicted: Prediction, model: CostModel) -> None:
        self._predicted, self._model = predicted, model
        self._in_seconds = False
        self._left = np.sum([predicted.sizes.of(task) for task in tasks], axis=0)
        self.work = self._predicted_left()
        """All of it, as it was predicted at the beginning."""
        self._spent = self._share = 0.0
        self._refreshed = 0

    def advance(self, task: Task, seconds: float) -> float:
        """How far a bar of the predicted length moves with a training that is done; backwards where hope was too high.

        At every moment, what the bar has left is to what it has come as the time that is left to the time spent.
        """
        self._left = self._left - self._predicted.sizes.of(task)
        self._spent += seconds
        if self._model.learnt > 1.1 * self._refreshed:  # ever more rarely
            self._refreshed = self._model.learnt
            found = self._model.predict()
            if found.in_seconds:
                self._predicted, self._in_seconds = found, True
        left = max(0.0, self._predicted_left())
        if self._in_seconds and self._spent > 0:
            share = self._spent / (self._spent + left)
        else:
            share = 1 - left / self.work if self.work else 1.0
        moved, self._share = share - self._share, share
        return self.work * moved

    def _predicted_left(self) -> float:
        return float(np.dot(self._predicted.weights, self._left))
