"""A training between two epochs, in one file: whatever kills the process, the last whole epoch is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasproxy.analysis.json_shape import NUMBER, parse_object
from nasproxy.errors import RunError
from nasproxy.tensor_file import read_tensors, write_tensors

_KEY = "nasproxy"  # of the one metadata entry, a JSON document
_HISTORY: dict[str, Any] = {
    "history": [
        {
            "epoch": (int,),
            "learning_rate": (int, float),
            "train_loss": NUMBER,
            "train_accuracy": NUMBER,
            "validation_loss": NUMBER,
            "validation_accuracy": (int, float),
            "seconds": (int, float),
        }
    ]
}


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; the figures of training are those before each of its steps.

    Args:
        epoch: its number; 0 is what the training began with.
        learning_rate: in it.
        train_loss: mean cross-entropy in nats; None for epoch 0.
        train_accuracy: fraction; None for epoch 0.
        validation_loss: mean cross-entropy in nats; None if the network diverged.
        validation_accuracy: fraction.
        seconds: wall time.
    """

    epoch: int
    learning_rate: float
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether it left the finite numbers."""
        return self.validation_loss is None


@dataclass
class Checkpoint:
    """The state of a training between two epochs.

    Args:
        history: the epochs so far.
        model: parameters and buffers.
        momentum: of SGD, by the parameter's number; a parameter without a gradient has none.
        best: parameters and buffers of the best epoch.
    """

    history: list[Epoch] = field(default_factory=list)
    model: Mapping[str, Tensor] = field(default_factory=dict)
    momentum: Mapping[str, Tensor] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def best_epoch(self) -> Epoch | None:
        """By validation accuracy, then loss, then the earlier; None where every epoch diverged."""
        finite = [epoch for epoch in self.history if not epoch.diverged]
        return max(finite, key=lambda e: (e.validation_accuracy, -(e.validation_loss or 0.0), -e.epoch), default=None)

    def take(self, epoch: Epoch, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Adds an epoch, and copies the state after it."""
        self.history.append(epoch)
        self.model = _copied(model.state_dict())
        states = enumerate(optimizer.state.get(p, {}) for group in optimizer.param_groups for p in group["params"])
        self.momentum = _copied({str(n): state.get("momentum_buffer") for n, state in states})
        if self.best_epoch is epoch:
            self.best = self.model

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Puts the state back."""
        model.load_state_dict(dict(self.model))
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, momentum in self.momentum.items():
            parameter = parameters[int(number)]
            # The layout in memory of the parameter decides in which order a device sums.
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum).detach()

    def write(self, file: Path) -> None:
        """Writes it beside its place and renames it.

        Raises:
            WriteError: the disk is full, or the folder not writable.
        """
        parts = {"model": self.model, "momentum": self.momentum, "best": self.best}
        tensors = {f"{part}:{name}": value.clone() for part, held in parts.items() for name, value in held.items()}
        write_tensors(file, tensors, _KEY, [asdict(epoch) for epoch in self.history])


def read_checkpoint(file: Path, model: nn.Module | None = None) -> Checkpoint:
    """Reads what :meth:`Checkpoint.write` wrote; a new training where there is no file.

    Args:
        file: the checkpoint's.
        model: the network that it must be of; None takes any.

    Raises:
        RunError: it is truncated, foreign or of another network.
    """
    if not file.exists():
        return Checkpoint()
    try:
        history, tensors = read_tensors(file, _KEY, parse=_history)
        found = Checkpoint(history, **_parts(tensors))
        if model is not None:
            _check_fits(found, model)
    except ValueError as error:
        raise RunError(f"{file} cannot be read: {error}.", "Start again in another --out.") from error
    return found


def _history(text: str) -> list[Epoch]:
    found = parse_object(f'{{"schema": 1, "history": {text}}}', _HISTORY)["history"]
    if not found or [epoch["epoch"] for epoch in found] != list(range(len(found))):
        raise ValueError("its epochs are not counted from 0")
    if any(epoch.keys() != _HISTORY["history"][0].keys() for epoch in found):
        raise ValueError("the figures of its epochs are others than this version of nasproxy writes")
    return [Epoch(**epoch) for epoch in found]


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "momentum": {}, "best": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(":")
        if part not in parts:
            raise ValueError(f"{key!r} is no part of a training")
        parts[part][name] = value
    return parts


def _check_fits(found: Checkpoint, model: nn.Module) -> None:
    whole = _shapes(model.state_dict())
    momenta = {str(number): parameter.shape for number, parameter in enumerate(model.parameters())}
    fits = _shapes(found.model) == whole and _shapes(found.best) == (whole if found.best_epoch else {})
    if not fits or not _shapes(found.momentum).items() <= momenta.items():
        raise ValueError("it is of another network")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def finite(value: float) -> float | None:
    """A figure, or None for one that JSON has no word for."""
    return value if math.isfinite(value) else None


def _copied(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
        if value is not None
    }
