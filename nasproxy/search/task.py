"""What goes to a worker and what comes back: one training of one candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from nasproxy.spaces.candidate import Candidate
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Score

PROXY, WHOLE = "proxy", "whole"
"""The two data a candidate can be trained on: the proxy set, or the whole training part."""

Key = tuple[str, str, int, int]
"""(candidate id, data, epochs, repeat): what a measurement is filed under."""


@dataclass(frozen=True)
class Task:
    """One training.

    Args:
        candidate: which network.
        data: ``proxy`` or ``whole``.
        recipe: how it is trained.
        epochs: after how many epochs to stop; the learning rate follows the recipe all the same.
        repeat: number of the repetition, from 0.
        seed: of this training: initial weights, order, augmentation.
        evaluate_at: epochs to score after, besides the last.
        watched: whether it is decided at each of these if the training goes on.
        timed: whether to measure the trained network's latency.
        curves: whether to keep how it does on the training images up to each score.
    """

    candidate: Candidate
    data: str
    recipe: TrainingRecipe
    epochs: int
    repeat: int
    seed: int
    evaluate_at: tuple[int, ...] = ()
    watched: bool = False
    timed: bool = False
    curves: bool = False

    @property
    def key(self) -> Key:
        """What a result is filed under."""
        return self.candidate.id, self.data, self.epochs, self.repeat


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Args:
        task: what was asked.
        scores: on the validation part, in the order of epochs; empty if the training failed.
        seconds: wall time, without that of measuring the latency.
        test_accuracy: on the test part, where the whole data were trained on.
        failure: why there is no score; None if there is one.
        out_of_memory: whether the failure was for lack of memory, so that it may succeed where nothing else runs.
        unfinished: whether the training waits to be told that it goes on.
        weights: the trained parameters and buffers, where the whole data were trained on.
        latency_ms: milliseconds of a forward pass of one image, where that was asked.
        train_curve: mean cross-entropy in nats and accuracy on the training images up to each score, where that was
            asked.
    """

    task: Task
    scores: tuple[Score, ...]
    seconds: float
    test_accuracy: float | None = None
    failure: str | None = None
    out_of_memory: bool = False
    unfinished: bool = False
    weights: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    latency_ms: float | None = None
    train_curve: tuple[tuple[float, float], ...] = ()
