"""The course of a search: which trainings come next, given those that are done. Executors ask it, never the reverse."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import TrialState

from nasproxy.analysis.pareto import front_numbers
from nasproxy.analysis.text import counted
from nasproxy.interruption import unbroken
from nasproxy.progress import Progress
from nasproxy.search.budget import Budget
from nasproxy.search.calibration import drawn
from nasproxy.search.candidate import Candidate
from nasproxy.search.cost_model import Ahead, CostModel
from nasproxy.search.costs import Cost, Queue, longest_first, next_bundle
from nasproxy.search.halving import PRUNERS, Rung
from nasproxy.search.proposals import Proposals
from nasproxy.search.pruning import Pruning
from nasproxy.search.settings import SearchSettings
from nasproxy.search.stopwatch import Stopwatch
from nasproxy.search.study import Key, Study, mean_score
from nasproxy.search.task import PROXY, WHOLE, Outcome, Task
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Score

_TOGETHER = 1000  # candidates settled under one lock: less than a second's work, and Optuna waits 30 s for a lock


@dataclass(frozen=True)
class Stage:
    """A set of trainings that can be done in any order: a rung of the search, or the finalists.

    Args:
        name: what the user reads.
        tasks: all of its trainings, those done by an earlier run included.
        before: trainings that stages of the same name had, which the user sees as one.
        total: trainings of all of them together.
        in_order: whether they are handed out as they stand, instead of the longest first.
    """

    name: str
    tasks: tuple[Task, ...]
    before: int = 0
    total: int | None = None
    in_order: bool = False


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
        proxy_images: number of images in the proxy.
        proposals: the sampler that chooses among the candidates; None ranks all of them.
        finalists: who is trained on the whole data; None are the best of the ranking.
        rank: whether candidates are ranked on the proxy at all.
        proxy_recipe: how they are trained for that; None is the settings'.
        title: what the user reads instead of "Ranking, … epochs", and of "Finalists, whole data" where none are ranked.
        accuracies: whether scores are accuracies, and shown as such.
        keep_weights: called with each training on the whole data before it is recorded.
        has_weights: whether that was done for a task, by this run or one before.
        progress: what the user sees.
        stopwatch: keeps the time of ranking and finalists.
        budget: when it is spent, nothing more is handed out until the finalists, chosen from what is ranked by then.
    """

    def __init__(
        self,
        settings: SearchSettings,
        candidates: Sequence[Candidate],
        costs: Mapping[str, Cost],
        study: Study,
        *,
        train_images: int,
        proxy_images: int = 100,
        proposals: Proposals | None = None,
        finalists: Sequence[Candidate] | None = None,
        rank: bool = True,
        proxy_recipe: TrainingRecipe | None = None,
        title: str | None = None,
        accuracies: bool = True,
        keep_weights: Callable[[Outcome], None],
        has_weights: Callable[[Task], bool],
        progress: Progress,
        stopwatch: Stopwatch | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._settings = settings
        self._costs = costs
        self._study = study
        self._model = CostModel(costs, proxy_images=proxy_images, train_images=train_images)
        self._whole_model = CostModel(costs, proxy_images=proxy_images, train_images=train_images, data=WHOLE)
        self._predicted = self._model.predict()
        self._proxy_recipe = proxy_recipe or settings.proxy_recipe()
        self._whole_recipe = settings.finalist_recipe(train_images)
        self._keep_weights = keep_weights
        self._has_weights = has_weights
        self._progress = progress
        self._stopwatch = stopwatch or Stopwatch()
        self._budget = budget or Budget()
        self._workers = 1
        self._queue = Queue()
        self._outstanding: dict[Key, Task] = {}
        self._by_itself: list[Task] = []
        self._lost: Counter[Key] = Counter()
        self._alone: list[Task] = []
        self._last_try: set[Key] = set()
        self._best = 0.0
        self._pruning: Pruning | None = None
        self.candidates = list(candidates)
        """Those that take part; of a sampler's, those proposed so far."""
        self.planned = len(candidates) if proposals is None else min(settings.trials or 0, len(candidates))
        """How many take part if nothing ends the ranking early."""
        self.rungs: list[Rung] = []
        self.ranking: list[Candidate] = []
        self.calibration: list[Candidate] = []
        """Those drawn at random from the ranking, to be trained on the whole data."""
        self.finalists: list[Candidate] = []
        self.finished = False
        self._title = title
        self._accuracies = accuracies
        self.cut_short = False
        """Whether the budget ended the ranking."""
        self._stages = self._run(proposals, finalists, rank)
        self._shown: Stage | None = None
        self._ahead: Ahead | None = None
        self._advance()

    @property
    def has_work(self) -> bool:
        """Whether :meth:`next_bundle` has something to hand out at this moment."""
        return bool(self._queue or self._by_itself or (self._alone and not self._outstanding))

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Wall time of each stage, earlier invocations included."""
        return self._stopwatch.seconds

    def next_bundle(self, workers: int) -> list[Task]:
        """The next portion of trainings for one of ``workers``; empty while others must finish, and at the end."""
        if workers != self._workers:
            self._workers = workers
            self._reserve()
        self._heed_budget()
        bundle: list[Task] = []
        if self._queue:
            bundle = next_bundle(self._queue, self._predicted, workers, self._room())
        elif self._by_itself:
            bundle = [self._by_itself.pop(0)]
        elif self._alone and not self._outstanding:
            bundle = [self._alone.pop(0)]
        self._outstanding.update((task.key, task) for task in bundle)
        return bundle

    def record(self, outcome: Outcome) -> bool:
        """Stores one result; one that failed for lack of memory is tried once more when nothing else runs.

        The last one of a stage opens the next stage.

        Returns:
            Whether this training, which waits for that decision, goes on; then nothing is stored yet.
        """
        task = outcome.task
        if task.key not in self._outstanding:
            return False
        if outcome.out_of_memory and task.key not in self._last_try:
            self._try_alone(task)
            return False
        if outcome.unfinished and self._pruning is not None:
            if self._pruning.goes_on(task.candidate, outcome.scores[-1]):
                return True
            outcome = replace(outcome, unfinished=False)
        with unbroken():
            if task.data == WHOLE and outcome.failure is None:
                self._keep_weights(outcome)
            self._study.record(outcome)
            self._stopwatch.tick()
            del self._outstanding[task.key]
            self._learn(task)
            if self._model.learnt.bit_count() == 1:  # ever more rarely
                self._reserve()
            moved = 1.0 if self._ahead is None else self._ahead.advance(task, outcome.seconds)
            self._progress.advance(self._headline(outcome), moved)
            if not self._queue and not self._by_itself and not self._alone and not self._outstanding:
                self._advance()
            self._heed_budget()
        return False

    def give_up(self, tasks: Sequence[Task], reason: str, *, tries: int = 2) -> None:
        """Takes back a bundle whose worker died.

        Nobody knows which of them it died of, so each is tried by itself; one that was by itself, when nothing else
        runs, as it is most often for lack of memory that a worker dies. Then it fails, unless it has been tried less
        than ``tries`` times: a node that goes down is no fault of a training's.
        """
        for task in tasks:
            if task.key not in self._outstanding:
                continue
            self._lost[task.key] += 1
            if task.key in self._last_try and self._lost[task.key] >= tries:
                self.record(Outcome(task, (), 0.0, failure=reason))
            elif len(tasks) == 1:
                self._try_alone(task)
            else:
                del self._outstanding[task.key]
                self._by_itself.append(task)
        self._heed_budget()

    def _try_alone(self, task: Task) -> None:
        self._last_try.add(task.key)
        del self._outstanding[task.key]
        self._alone.append(task)

    def _advance(self) -> None:
        """Opens the next stage that has something left to do."""
        for stage in self._stages:
            done = {task.key for task in stage.tasks if self._is_done(task)}
            for task in stage.tasks:
                if task.key in done:
                    self._learn(task)
            pending = [task for task in stage.tasks if task.key not in done]
            if pending:
                # Only here: within a stage, order, portions and the time left are of one measure.
                self._predicted = self._model.predict()
                self._queue = longest_first(pending, self._predicted)
                if stage.in_order or (self._budget.limited and stage.tasks[0].data == PROXY):
                    # What the budget may cut off at any moment goes in the order of promise.
                    self._queue = Queue(pending, self._queue.work)
                self._show(stage, pending)
                self._reserve()
                return
        self.finished = True

    def _heed_budget(self) -> None:
        """When it is spent, leaves out what is not yet under way, and goes on to the finalists when nothing is."""
        waiting = self._queue or self._by_itself or self._alone
        if not waiting or self._on_whole_data() or self._budget.left > 0:
            return
        if not self.cut_short:
            self._progress.note("The time budget is spent; the finalists are chosen from what is ranked.")
        self.cut_short = True
        self._queue = Queue()
        self._by_itself.clear()
        self._alone.clear()
        if not self._outstanding:
            self._advance()

    def _room(self) -> Callable[[Task], bool] | None:
        """Whether a bundle of the ranking has room for one training more: it takes half of the time left at most."""
        if not self._budget.limited or self._on_whole_data():
            return None
        predicted = self._model.predict()
        room = self._budget.left / 2 if predicted.in_seconds else 0.0

        def fits(task: Task) -> bool:
            nonlocal room
            room -= predicted(task)
            return room >= 0

        return fits

    def _reserve(self) -> None:
        """Keeps so much of the budget as finalists of the average size in this stage are predicted to take."""
        predicted = self._model.predict()
        if self._shown is None or not self._budget.limited or not predicted.in_seconds:
            return
        candidates = list({task.candidate.id: task.candidate for task in self._shown.tasks}.values())
        finals = self._whole_tasks(candidates)
        each = self._settings.top_k + (self._settings.calibrate or 0)
        rounds = -(-min(each * (self._settings.repeats or 1), len(finals)) // self._workers)
        self._budget.reserve(rounds * sum(map(predicted, finals)) / len(finals))

    def _on_whole_data(self) -> bool:
        return self._shown is not None and self._shown.tasks[0].data == WHOLE

    def _show(self, stage: Stage, pending: Sequence[Task]) -> None:
        """Tells the user of a stage, unless it goes on with the one before."""
        shown, self._shown = self._shown, stage
        # What is still to be proposed costs nobody knows how much.
        model = self._whole_model if self._on_whole_data() else self._model
        self._ahead = Ahead(pending, self._predicted, model) if stage.total is None else None
        if shown is not None and shown.name == stage.name and len(pending) == len(stage.tasks):
            return
        self._best = 0.0
        done = stage.before + len(stage.tasks) - len(pending)
        if stage.total is not None:
            self._progress.stage(stage.name, stage.total, done=done)
            return
        self._progress.stage(stage.name, len(stage.tasks), done=done, work=self._queue.work)

    def _is_done(self, task: Task) -> bool:
        """Whether the result is there, and of a finalist the weights too: the winner is handed over with them."""
        found = self._study.measurements.get(task.key)
        return found is not None and (task.data == PROXY or found.failure is not None or self._has_weights(task))

    def _learn(self, task: Task) -> None:
        """Takes in how long a training took; one that failed, was stopped or left the finite numbers ended early."""
        found = self._study.measurements[task.key]
        if found.failure is None and found.scores[-1].epoch == task.epochs and not found.scores[-1].diverged:
            self._model.learn(task, found.seconds)
            self._whole_model.learn(task, found.seconds)

    def _run(self, proposals: Proposals | None, finalists: Sequence[Candidate] | None, rank: bool) -> Iterator[Stage]:
        complete: list[Candidate] = []
        if rank:
            self._stopwatch.begin("search")
            complete, eliminated = yield from self._rank(proposals)
            self.ranking = complete + eliminated
            if self._settings.calibrate is not None:
                self._stopwatch.begin("calibration")
                self.calibration = drawn(self.ranking, self._settings.calibrate, self._settings.seed)
                yield Stage("Calibration, whole data", self._whole_tasks(self.calibration))
        self.finalists = complete[: self._settings.top_k] if finalists is None else self._buildable(finalists)
        self._stopwatch.begin("finalists")
        yield Stage(
            (None if rank else self._title) or "Finalists, whole data",
            self._whole_tasks(self.finalists),
        )
        self._stopwatch.begin()

    def _rank(self, proposals: Proposals | None) -> Generator[Stage, None, tuple[list[Candidate], list[Candidate]]]:
        """The stages of the ranking; returns those that may become finalists, and the others, best first."""
        if proposals is not None:
            return self._sample(proposals)
        return self._prune() if self._settings.scheduler in PRUNERS else self._halve()

    def _prune(self) -> Generator[Stage, None, tuple[list[Candidate], list[Candidate]]]:
        """All candidates at once, each stopped as soon as its scores are among the lower ones."""
        settings, recipe = self._settings, self._proxy_recipe
        # Who comes first is judged least: not the largest network, but one drawn at random.
        alive = sorted(self._buildable(self.candidates), key=lambda c: c.seed(settings.seed, 0, PROXY))
        self._pruning = pruning = Pruning(str(settings.scheduler), alive, settings.epochs, settings.seed)
        self.rungs = [Rung(epochs, len(alive)) for epochs in (*pruning.levels, settings.epochs)]
        scored_at = tuple(sorted({*pruning.levels, *settings.evaluate_at}))
        tasks = self._tasks(alive, PROXY, recipe, settings.epochs, scored_at)
        for task in tasks:
            found = self._study.measurements.get(task.key)
            for score in found.scores if found is not None else ():
                pruning.goes_on(task.candidate, score)
        watched = tuple(replace(task, watched=True) for task in tasks)
        yield Stage(self._ranking_title(settings.epochs), watched, in_order=True)
        self._pruning = None
        if self.cut_short:
            alive = self._measured(alive, settings.epochs)
        stopped: dict[int, list[Candidate]] = {level: [] for level in reversed(scored_at)}
        complete: list[Candidate] = []
        for candidate in alive:
            came = self.score(candidate, PROXY, settings.epochs)
            early = came is not None and came.epoch < settings.epochs and not came.diverged
            (stopped[came.epoch] if came is not None and early else complete).append(candidate)
        complete = self._ranked(complete, settings.epochs)
        self._settle(complete, TrialState.COMPLETE, settings.epochs)
        eliminated: list[Candidate] = []
        for level, candidates in stopped.items():
            ranked = self._ranked(candidates, settings.epochs)
            for candidate in ranked:
                last = self.score(candidate, PROXY, settings.epochs)
                self._study.settle(candidate, TrialState.PRUNED, level, last)
            eliminated += ranked
        # So few may have come to the end that those stopped last are finalists too.
        spare = max(0, settings.top_k - len(complete))
        return complete + eliminated[:spare], eliminated[spare:]

    def _halve(self) -> Generator[Stage, None, tuple[list[Candidate], list[Candidate]]]:
        """Rungs of candidates, fewer and longer each; returns those trained in full, and the others, best first."""
        alive = self._buildable(self.candidates)
        if self._budget.limited:
            # Whatever the budget leaves of the first rung is a random sample.
            alive.sort(key=lambda candidate: candidate.seed(self._settings.seed, 0, PROXY))
        self.rungs = self._settings.rungs(len(alive))
        recipe = self._proxy_recipe
        eliminated: list[Candidate] = []
        for number, rung in enumerate(self.rungs):
            final = number + 1 == len(self.rungs)
            alive = alive[: rung.candidates]
            scored_at = self._settings.evaluate_at if final else ()
            yield Stage(self._ranking_title(rung.epochs), self._tasks(alive, PROXY, recipe, rung.epochs, scored_at))
            if self.cut_short:
                return self._ranked_in_part(alive, number), eliminated
            alive = self._ranked(alive, rung.epochs)
            keep = len(alive) if final else self.rungs[number + 1].candidates
            self._settle(alive[:keep], TrialState.COMPLETE if final else TrialState.RUNNING, rung.epochs)
            self._settle(alive[keep:], TrialState.PRUNED, rung.epochs)
            eliminated = alive[keep:] + eliminated
            alive = alive[:keep]
        return alive, eliminated

    def _ranked_in_part(self, alive: Sequence[Candidate], number: int) -> list[Candidate]:
        """Of a rung that was cut short, those that it measured, then in the order of the rung before those it did not.

        Nothing is closed that an undisturbed search would treat otherwise.
        """
        epochs = self.rungs[number].epochs
        measured = self._measured(alive, epochs)
        ranked = self._ranked(measured, epochs)
        if number + 1 == len(self.rungs):
            self._settle(ranked, TrialState.COMPLETE, epochs)
        known = {candidate.id for candidate in measured}
        return ranked + [candidate for candidate in alive if number and candidate.id not in known]

    def _measured(self, candidates: Sequence[Candidate], epochs: int) -> list[Candidate]:
        """Those whose trainings on the proxy for ``epochs`` are all done."""
        repeats = range(self._settings.repeats or 1)
        return [c for c in candidates if self._study.has((c.id, PROXY, epochs, repeat) for repeat in repeats)]

    def _sample(self, proposals: Proposals) -> Generator[Stage, None, tuple[list[Candidate], list[Candidate]]]:
        """Generations of candidates, each proposed after the one before was measured; returns them best first.

        Generations are as large on one worker as on many, so that neither that nor an interruption changes what is
        proposed: a resumed run asks and tells all over again, and finds in the study what it trained before.
        """
        settings, recipe, repeats = self._settings, self._proxy_recipe, self._settings.repeats or 1
        trials, self.candidates = self.planned, []
        self.rungs = [Rung(settings.epochs, trials)]
        while len(self.candidates) < trials and not self.cut_short:
            generation = proposals.ask(min(proposals.generation, trials - len(self.candidates)))
            before = len(self.candidates) * repeats
            self.candidates += generation
            tasks = self._tasks(self._buildable(generation), PROXY, recipe, settings.epochs, settings.evaluate_at)
            yield Stage(self._ranking_title(settings.epochs), tasks, before, trials * repeats)
            for candidate in generation:
                score = self.score(candidate, PROXY, settings.epochs)
                proposals.tell(candidate, None if score is None else self._values(candidate, score))
        proposed = self._buildable(self.candidates)
        ranking = self._ranked(
            self._measured(proposed, settings.epochs) if self.cut_short else proposed, settings.epochs
        )
        self._settle(ranking, TrialState.COMPLETE, settings.epochs)
        return ranking, []

    def _buildable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that could be built; the others are closed."""
        for candidate in candidates:
            if (reason := self._costs[candidate.id].failure) is not None:
                self._study.settle(candidate, TrialState.FAIL, 0, None, reason)
        return [candidate for candidate in candidates if self._costs[candidate.id].failure is None]

    def _values(self, candidate: Candidate, score: Score) -> list[float]:
        """The objectives, in the order in which the settings name them."""
        cost = self._costs[candidate.id]
        sizes: dict[str, float | None] = {
            "parameters": cost.parameters,
            "multiply-adds": cost.multiply_adds,
            "latency": self._study.latency_ms(candidate.id, self.rungs[0].epochs),
        }
        values = [score.accuracy if name == "accuracy" else sizes[name] for name in self._settings.objectives]
        return [math.inf if value is None else float(value) for value in values]

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
                candidate,
                data,
                recipe,
                epochs,
                repeat,
                candidate.seed(self._settings.seed, repeat, data),
                evaluate_at,
                timed="latency" in self._settings.objectives
                and (data, epochs, repeat) == (PROXY, self.rungs[0].epochs, 0),
                curves=self._settings.tensorboard and data == WHOLE,
            )
            for candidate in candidates
            for repeat in range(self._settings.repeats or 1)
        )

    def _whole_tasks(self, candidates: Sequence[Candidate]) -> tuple[Task, ...]:
        recipe = self._whole_recipe
        each = tuple(range(1, recipe.epochs)) if self._settings.tensorboard else ()
        return self._tasks(candidates, WHOLE, recipe, recipe.epochs, each)

    def score(self, candidate: Candidate, data: str, epochs: int) -> Score | None:
        """The mean score of a candidate after ``epochs`` on ``data``; None where a repeat failed or is missing."""
        keys = [(candidate.id, data, epochs, repeat) for repeat in range(self._settings.repeats or 1)]
        found = [self._study.measurements.get(key) for key in keys]
        whole = [measurement for measurement in found if measurement is not None and measurement.failure is None]
        return mean_score(whole) if len(whole) == len(keys) else None

    def _ranked(self, candidates: Sequence[Candidate], epochs: int) -> list[Candidate]:
        """Best first: Pareto front, accuracy, lower cross-entropy, id. Those that failed are closed and left out."""
        scored: list[tuple[Candidate, Score]] = []
        reasons = self._reasons()
        for candidate in candidates:
            score = self.score(candidate, PROXY, epochs)
            if score is None:
                reason = reasons.get(candidate.id, "no result")
                self._study.settle(candidate, TrialState.FAIL, epochs, None, reason)
            else:
                scored.append((candidate, score))
        signs = [-1 if name == "accuracy" else 1 for name in self._settings.objectives]
        losses = [[sign * value for sign, value in zip(signs, self._values(*row), strict=True)] for row in scored]
        # With one objective, the order by accuracy is the order of the fronts.
        fronts = front_numbers(losses) if len(signs) > 1 else [0] * len(losses)
        keys = [
            (front, -score.accuracy, score.cross_entropy, candidate.id)
            for front, (candidate, score) in zip(fronts, scored, strict=True)
        ]
        return [scored[position][0] for position in sorted(range(len(keys)), key=keys.__getitem__)]

    def _settle(self, candidates: Sequence[Candidate], state: TrialState, epochs: int) -> None:
        for start in range(0, len(candidates), _TOGETHER):
            with self._study.together():
                for candidate in candidates[start : start + _TOGETHER]:
                    self._study.settle(candidate, state, epochs, self.score(candidate, PROXY, epochs))

    def _reasons(self) -> dict[str, str]:
        """Why candidates failed, by id: of several reasons the first that was recorded."""
        reasons: dict[str, str] = {}
        for (candidate_id, *_), measurement in self._study.measurements.items():
            if measurement.failure:
                reasons.setdefault(candidate_id, measurement.failure)
        return reasons

    def _ranking_title(self, epochs: int) -> str:
        return self._title or f"Ranking, {counted(epochs, 'epoch')}"

    def _headline(self, outcome: Outcome) -> str:
        if outcome.scores:
            self._best = max(self._best, outcome.scores[-1].accuracy)
        return f"best {self._best:.1%}" if self._accuracies else ""
