"""The course of a search: which trainings come next, given those that are done. Executors ask it, never the reverse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState

from nasproxy.progress import Progress
from nasproxy.search.candidate import Candidate
from nasproxy.search.costs import Cost, longest_first, next_bundle, predicted_cost
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Key, Study, mean_score
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Score


@dataclass(frozen=True)
class Stage:
    """A set of trainings that can be done in any order: a rung of the search, or the finalists.

    Args:
        name: what the user reads.
        tasks: all of its trainings, those done by an earlier run included.
    """

    name: str
    tasks: tuple[Task, ...]


class Campaign:
    """Hands out trainings rung by rung, then the finalists', and files what comes back.

    All of a rung's candidates are measured before any is cut, so the course depends on scores alone: not on the number
    of workers, their speed, or whether the run was interrupted. What the study already holds is not handed out.

    Args:
        settings: of the search, resolved.
        candidates: all that take part.
        costs: of each candidate, by id.
        study: where results go.
        train_images: number of images in the whole training part.
        keep_weights: called with each training on the whole data before it is recorded.
        has_weights: whether that was done for a task, by this run or one before.
        progress: what the user sees.
    """

    def __init__(
        self,
        settings: SearchSettings,
        candidates: Sequence[Candidate],
        costs: Mapping[str, Cost],
        study: Study,
        *,
        train_images: int,
        keep_weights: Callable[[Outcome], None],
        has_weights: Callable[[Task], bool],
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._costs = costs
        self._study = study
        self._whole_recipe = settings.finalist_recipe(train_images)
        self._keep_weights = keep_weights
        self._has_weights = has_weights
        self._progress = progress
        self._queue: list[Task] = []
        self._outstanding: dict[Key, Task] = {}
        self._lost: set[Key] = set()
        self._alone: list[Task] = []
        self._best = 0.0
        buildable = [candidate for candidate in candidates if costs[candidate.id].failure is None]
        for candidate in candidates:
            if (reason := costs[candidate.id].failure) is not None:
                study.settle(candidate, TrialState.FAIL, 0, None, reason)
        self.rungs = settings.rungs(len(buildable))
        self.ranking: list[Candidate] = []
        self.finalists: list[Candidate] = []
        self.stage_seconds: dict[str, float] = {}
        self.finished = False
        self._stages = self._run(buildable)
        self._advance()

    def next_bundle(self, workers: int) -> list[Task]:
        """The next portion of trainings for one of ``workers``; empty while others must finish, and at the end."""
        if not self._queue and self._alone:
            bundle = [self._alone.pop(0)]
        else:
            bundle = next_bundle(self._queue, self._costs, workers)
        self._outstanding.update((task.key, task) for task in bundle)
        return bundle

    def record(self, outcome: Outcome) -> None:
        """Stores one result. The last one of a stage opens the next stage."""
        task = outcome.task
        if self._outstanding.pop(task.key, None) is None:
            return
        if task.data == WHOLE and outcome.failure is None:
            self._keep_weights(outcome)
        self._study.record(outcome)
        self._progress.advance(self._headline(outcome), predicted_cost(task, self._costs))
        if not self._queue and not self._alone and not self._outstanding:
            self._advance()

    def give_up(self, tasks: Sequence[Task], reason: str) -> None:
        """Takes back trainings whose worker died; each is tried once more by itself, then fails."""
        for task in tasks:
            if task.key not in self._outstanding:
                continue
            if task.key in self._lost:
                self.record(Outcome(task, (), 0.0, failure=reason))
            else:
                self._lost.add(task.key)
                del self._outstanding[task.key]
                self._alone.append(task)

    def _advance(self) -> None:
        """Opens the next stage that has something left to do."""
        for stage in self._stages:
            pending = [task for task in stage.tasks if not self._is_done(task)]
            if pending:
                self._queue = longest_first(pending, self._costs)
                work = sum(predicted_cost(task, self._costs) for task in pending)
                self._best = 0.0
                self._progress.stage(stage.name, len(stage.tasks), done=len(stage.tasks) - len(pending), work=work)
                return
        self.finished = True

    def _is_done(self, task: Task) -> bool:
        """Whether the result is there, and of a finalist the weights too: the winner is handed over with them."""
        found = self._study.measurements.get(task.key)
        return found is not None and (task.data == PROXY or found.failure is not None or self._has_weights(task))

    def _run(self, alive: list[Candidate]) -> Iterator[Stage]:
        recipe = self._settings.proxy_recipe()
        eliminated: list[Candidate] = []
        for number, rung in enumerate(self.rungs):
            final = number + 1 == len(self.rungs)
            alive = alive[: rung.candidates]
            began = time.perf_counter()
            name = f"Ranking, {rung.epochs} epochs"
            yield Stage(
                name, self._tasks(alive, PROXY, recipe, rung.epochs, self._settings.evaluate_at if final else ())
            )
            self.stage_seconds["search"] = self.stage_seconds.get("search", 0.0) + time.perf_counter() - began
            alive = self._ranked(alive, rung.epochs)
            keep = len(alive) if final else self.rungs[number + 1].candidates
            self._settle(alive[:keep], TrialState.COMPLETE if final else TrialState.RUNNING, rung.epochs)
            self._settle(alive[keep:], TrialState.PRUNED, rung.epochs)
            eliminated = alive[keep:] + eliminated
            alive = alive[:keep]
        self.ranking = alive + eliminated
        self.finalists = alive[: self._settings.top_k]
        began = time.perf_counter()
        yield Stage(
            "Finalists, whole data", self._tasks(self.finalists, WHOLE, self._whole_recipe, self._whole_recipe.epochs)
        )
        self.stage_seconds["finalists"] = time.perf_counter() - began

    def _tasks(
        self,
        candidates: Sequence[Candidate],
        data: str,
        recipe: TrainingRecipe,
        epochs: int,
        evaluate_at: tuple[int, ...] = (),
    ) -> tuple[Task, ...]:
        return tuple(
            Task(
                candidate, data, recipe, epochs, repeat, candidate.seed(self._settings.seed, repeat, data), evaluate_at
            )
            for candidate in candidates
            for repeat in range(self._settings.repeats or 1)
        )

    def score(self, candidate: Candidate, data: str, epochs: int) -> Score | None:
        """The mean score of a candidate after ``epochs`` on ``data``; None where a repeat failed or is missing."""
        keys = [(candidate.id, data, epochs, repeat) for repeat in range(self._settings.repeats or 1)]
        found = [self._study.measurements.get(key) for key in keys]
        whole = [measurement for measurement in found if measurement is not None and measurement.failure is None]
        return mean_score(whole) if len(whole) == len(keys) else None

    def _ranked(self, candidates: Sequence[Candidate], epochs: int) -> list[Candidate]:
        """Best first: accuracy, then lower cross-entropy, then id. Those that failed are closed and left out."""
        scored = []
        for candidate in candidates:
            score = self.score(candidate, PROXY, epochs)
            if score is None:
                self._study.settle(candidate, TrialState.FAIL, epochs, None, self._reason(candidate))
            else:
                scored.append((-score.accuracy, score.cross_entropy, candidate.id, candidate))
        return [candidate for *_, candidate in sorted(scored, key=lambda row: row[:3])]

    def _settle(self, candidates: Sequence[Candidate], state: TrialState, epochs: int) -> None:
        for candidate in candidates:
            self._study.settle(candidate, state, epochs, self.score(candidate, PROXY, epochs))

    def _reason(self, candidate: Candidate) -> str:
        found = (m for key, m in self._study.measurements.items() if key[0] == candidate.id and m.failure is not None)
        return next((measurement.failure for measurement in found if measurement.failure), "no result")

    def _headline(self, outcome: Outcome) -> str:
        if outcome.scores:
            self._best = max(self._best, outcome.scores[-1].accuracy)
        return f"best {self._best:.1%}"
