"""What a long computation tells whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Receives the course of a computation; the command line draws it, a program may ignore it."""

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        """A stage begins, and ends the one before.

        Args:
            name: what is done.
            total: number of steps.
            done: of these, finished by an earlier run.
            work: size of the steps that remain, in any unit; by default each counts one.
        """

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        """One step of size ``work`` is done; ``headline`` is the best so far, or the latest loss."""

    def note(self, text: str) -> None:
        """Something the user should know."""


@runtime_checkable
class Clock(Protocol):
    """What else a progress may have that tells how much time is left."""

    def work_begins(self) -> None:
        """Until now the stage has waited for workers to start, which says nothing of how long its work takes."""


@runtime_checkable
class Fine(Protocol):
    """What else a progress may have that also moves within a step."""

    def within_step(self, work: float) -> None:
        """So much of the work of the step that runs is done, in the unit of :meth:`Progress.advance`."""


def within_step_of(progress: Progress) -> Callable[[float], None] | None:
    """What moves ``progress`` within a step; None where it moves between steps only."""
    return progress.within_step if isinstance(progress, Fine) else None


class Silent:
    """Tells nobody anything."""

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        """Ignored."""

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""
