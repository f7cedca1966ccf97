"""A part of a search: trainings that wait for nothing but the part before, and how much of it the user sees done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nasproxy.progress import Clock, Progress
from nasproxy.search.cost_model import Ahead, CostModel, Prediction
from nasproxy.search.task import Outcome, Task
from nasproxy.spaces.candidate import Candidate


@dataclass(frozen=True)
class Stage:
    """A set of trainings that can be done in any order: a rung of the search, or the finalists.

    Args:
        name: what the user reads.
        tasks: all of its trainings, those done by an earlier run included.
        before: trainings that stages of the same name had, which the user sees as one.
        total: trainings of all of them together.
        in_order: whether they are handed out as they stand, instead of the longest first.
        sure: called with a candidate whenever one of its trainings in this stage ends; returns the trainings of the
            next stage that are sure to come since then, whatever this one still brings. None where nobody can say.
    """

    name: str
    tasks: tuple[Task, ...]
    before: int = 0
    total: int | None = None
    in_order: bool = False
    sure: Callable[[Candidate], Sequence[Task]] | None = None


class StageProgress:
    """Tells the user how much of a stage is done, and how good the best of it is.

    Args:
        progress: what the user sees.
        accuracies: whether scores are accuracies, and shown as such.
    """

    def __init__(self, progress: Progress, *, accuracies: bool) -> None:
        self._progress = progress
        self._accuracies = accuracies
        self._name = ""
        self._best = 0.0
        self._ahead: Ahead | None = None

    def begin(
        self, stage: Stage, pending: Sequence[Task], best: float, *, predicted: Prediction, model: CostModel
    ) -> None:
        """Tells of a stage, unless it goes on with the one before.

        Args:
            stage: that begins.
            pending: its trainings that are not done yet.
            best: accuracy of those that are.
            predicted: times of its trainings as they are known by now.
            model: that learns how long they take.
        """
        name, self._name = self._name, stage.name
        # What is still to be proposed costs nobody knows how much.
        self._ahead = Ahead(pending, predicted, model) if stage.total is None else None
        if name == stage.name and len(pending) == len(stage.tasks):
            return
        self._best = best
        done = stage.before + len(stage.tasks) - len(pending)
        work = None if self._ahead is None else self._ahead.work
        self._progress.stage(stage.name, len(stage.tasks) if stage.total is None else stage.total, done=done, work=work)

    def work_begins(self) -> None:
        """The first training is handed out."""
        if isinstance(self._progress, Clock):
            self._progress.work_begins()

    def advance(self, outcome: Outcome) -> None:
        """One of its trainings is done."""
        if outcome.scores:
            self._best = max(self._best, outcome.scores[-1].accuracy)
        moved = 1.0 if self._ahead is None else self._ahead.advance(outcome.task, outcome.seconds)
        self._progress.advance(f"best {self._best:.1%}" if self._accuracies else "", moved)
