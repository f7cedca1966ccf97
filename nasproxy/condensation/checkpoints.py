"""What an interrupted condensation goes on from, in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nasproxy.errors import CheckpointError, InputError, WriteError
from nasproxy.interruption import unbroken
from nasproxy.tensor_file import read_tensors, write_tensors

CHECKPOINT_EVERY = 30.0
"""Seconds between two writes."""
_SCHEMA = 1
_KEY = "nasproxy-checkpoint"  # of the one metadata entry, a JSON document


@dataclass(frozen=True)
class State:
    """A condensation between two outer iterations.

    Args:
        tensors: all that an iteration changes, see :class:`nasproxy.condensation.moving.Moving`.
        losses: of the iterations so far.
        evaluations: iteration (from 1) and test accuracy, where it was measured.
        seconds: that the iterations took.
    """

    tensors: Mapping[str, Tensor]
    losses: tuple[float, ...]
    evaluations: tuple[tuple[int, float], ...]
    seconds: float


class Checkpoints:
    """Keeps the latest state of a condensation: in memory always, in a file now and then.

    Args:
        path: of the file.
        facts: what a condensation must share with the one that it goes on with; JSON values.
        iterations: of the condensation, at the most.
        every: seconds between two writes: as much is lost of a process that is killed.
    """

    def __init__(
        self, path: Path, facts: Mapping[str, Any], *, iterations: int, every: float = CHECKPOINT_EVERY
    ) -> None:
        self.path = path
        self._facts, self._iterations, self._every = json.loads(json.dumps(facts)), iterations, every
        self._latest: State | None = None
        self._written: State | None = None
        self._at = time.monotonic()

    def see(self, state: State) -> None:
        """Takes the state after an iteration; writes it if the last write is long ago.

        Raises:
            WriteError: the file cannot be written.
        """
        self._latest = state
        if time.monotonic() - self._at >= self._every:
            self.keep()

    def keep(self) -> None:
        """Writes the latest state, unless there is none or the file holds it.

        Raises:
            WriteError: the file cannot be written.
        """
        state = self._latest
        if state is None or state is self._written:
            return
        facts = {
            "schema": _SCHEMA,
            "facts": self._facts,
            "losses": state.losses,
            "evaluations": state.evaluations,
            "seconds": state.seconds,
        }
        with unbroken():
            write_tensors(self.path, state.tensors, _KEY, facts)
            self._written, self._at = state, time.monotonic()

    def rescue(self) -> bool:
        """Writes the latest state where something went wrong, of which the user is to read; whether the file has it."""
        with contextlib.suppress(WriteError, KeyboardInterrupt):
            self.keep()
        return self._latest is not None and self._latest is self._written

    def discard(self) -> None:
        """Removes the file if this object wrote or read it, and what writers that were killed left beside it."""
        if self._written is None:
            return
        for path in (self.path, *self.path.parent.glob(f".{glob.escape(self.path.name)}.*")):
            with contextlib.suppress(OSError):
                path.unlink()

    def load(self) -> State | None:
        """What the file holds; None where there is no file.

        Raises:
            CheckpointError: it is damaged, foreign, or of another condensation.
        """
        if not self.path.is_file():
            return None
        try:
            written, tensors = read_tensors(self.path, _KEY)
            # Copies: kernels may add in another order where the file's bytes lie in memory.
            tensors = {name: value.clone() for name, value in tensors.items()}
            there, state = dict(written["facts"]), _state(written, tensors)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise self.unusable(f"{type(error).__name__}: {error}") from error
        self._check(there, state)
        self._latest = self._written = state
        return state

    def unusable(self, reason: str) -> CheckpointError:
        """The error for a file that is not what this class writes."""
        return CheckpointError(
            f"{self.path} is no whole checkpoint of this version of nasproxy ({reason}).",
            "Remove it to start afresh.",
        )

    def _check(self, there: Mapping[str, Any], state: State) -> None:
        names = dict.fromkeys([*self._facts, *there])
        differing = [name for name in names if there.get(name) != self._facts.get(name)]
        if differing:
            raise CheckpointError(
                f"{self.path} is of another condensation: "
                + "; ".join(f"{name} was {there.get(name)!r}, now {self._facts.get(name)!r}" for name in differing)
                + ".",
                "Repeat the options it was started with, or remove it to start afresh.",
            )
        if len(state.losses) > self._iterations:
            raise CheckpointError(
                f"{self.path} has {len(state.losses)} iterations already, but {self._iterations} were asked for.",
                f"Ask for {len(state.losses)} or more, or remove it to start afresh.",
            )


def check_checkpoint_replaceable(path: Path) -> None:
    """Makes sure that writing a checkpoint to ``path`` overwrites nothing but a checkpoint.

    Raises:
        InputError: another file is there.
    """
    if not path.exists():
        return
    try:
        read_tensors(path, _KEY, names=(), parse=str)
    except ValueError as error:
        raise InputError(
            f"{path} would be overwritten by a checkpoint, and is none of nasproxy.",
            "Choose another --out, or move it away.",
        ) from error


def _state(written: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> State:
    if written["schema"] != _SCHEMA:
        raise ValueError(f"schema {written['schema']}, expected {_SCHEMA}")
    state = State(
        tensors,
        tuple(map(float, written["losses"])),
        tuple((int(iteration), float(accuracy)) for iteration, accuracy in written["evaluations"]),
        float(written["seconds"]),
    )
    numbers = (*state.losses, *(accuracy for _, accuracy in state.evaluations), state.seconds)
    if not state.losses or not all(map(math.isfinite, numbers)):
        raise ValueError("no iteration, or one without a finite loss")
    return state
