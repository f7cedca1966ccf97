"""The images that a method makes, before anything is known of where they are kept."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Condensed:
    """What a method makes of a dataset.

    Args:
        images: synthetic or real images in the normalised space, on the CPU, classes in order.
        labels: their classes.
        losses: one number for each step that was reported; for gradient matching, the mean matching loss of each outer
            iteration, a class and a matching step.
        seconds: wall time.
        evaluations: step (from 1) and test accuracy, a fraction, where it was measured on the way.
        finished: False where the method was stopped before its end.
    """

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    losses: tuple[float, ...]
    seconds: float
    evaluations: tuple[tuple[int, float], ...] = ()
    finished: bool = True
