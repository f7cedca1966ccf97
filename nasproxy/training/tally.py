"""How a network does on the images it is being trained on, from epoch to epoch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Tally:
    """Adds up what the steps of a training come to, each before the step; passed to ``training`` as ``on_batch``.

    Args:
        labels: of all training images, on the device of the training.
    """

    def __init__(self, labels: Int64[Tensor, " n"]) -> None:
        self._labels = labels
        self._loss = torch.zeros((), device=labels.device)
        self._right = torch.zeros((), device=labels.device)
        self._seen = 0

    def __call__(
        self, positions: Int64[Tensor, " batch"], logits: Float[Tensor, "batch classes"], loss: Float[Tensor, ""]
    ) -> None:
        """Adds a step."""
        labels = self._labels[positions]
        self._loss += loss.detach() * len(labels)
        self._right += (logits.detach().argmax(1) == labels).sum()
        self._seen += len(labels)

    def take(self) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy since the last time; begins anew."""
        loss, right = torch.stack([self._loss, self._right]).tolist()  # only here does the host wait for the device
        found = loss / self._seen, right / self._seen
        self._loss.zero_()
        self._right.zero_()
        self._seen = 0
        return found
