"""What goes beside a condensation: where it goes on from, what is kept of it, when it must stop, how it is watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings are read before torch is loaded
    from torch import Tensor

    from nasproxy.condensation.checkpoints import Checkpoints, State


@dataclass(frozen=True)
class Course:
    """Nothing in it changes the images of an iteration.

    Args:
        checkpoints: where the state is kept; None keeps none.
        start: the state to go on from; None begins.
        is_spent: asked after each iteration whether the time is up.
        evaluate_every: iterations between two measurements of the test accuracy; 0 measures none. The last images are
            measured in any case.
        on_evaluation: called with the iteration (from 1) and the test accuracy, a fraction.
        soft_labels: gives the class probabilities of images, which the network that is measured aims at; None aims at
            their classes.
        on_part: called within an iteration with the part of it that is done, below 1, by a method that can say; it must
            be quick, and is not to wait for the device.
    """

    checkpoints: Checkpoints | None = None
    start: State | None = None
    is_spent: Callable[[], bool] = lambda: False
    evaluate_every: int = 0
    on_evaluation: Callable[[int, float], None] | None = None
    soft_labels: Callable[[Tensor], Tensor] | None = None
    on_part: Callable[[float], None] | None = None
