"""The course of a search: which trainings come next, given those that are done. Executors ask it, never the reverse."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from optuna.trial import TrialState

from nasproxy.interruption import unbroken
from nasproxy.progress import Progress
from nasproxy.search.budget import Budget
from nasproxy.search.calibration import drawn
from nasproxy.search.cost_model import CostModel
from nasproxy.search.costs import Cost, Queue, longest_first, next_bundle
from nasproxy.search.halving import PRUNERS, Rung
from nasproxy.search.promotion import Promotion
from nasproxy.search.proposals import Proposals
from nasproxy.search.pruning import Pruning
from nasproxy.search.settings import SearchSettings
from nasproxy.search.stage import Stage, StageProgress
from nasproxy.search.standings import Standings
from nasproxy.search.stopwatch import Stopwatch
from nasproxy.search.study import Study
from nasproxy.search.task import PROXY, WHOLE, Key, Outcome, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.text import counted
from nasproxy.training.recipe import TrainingRecipe


class Campaign:
    """Hands out trainings rung by rung, then the finalists', and files what comes back.

    All of a rung's candidates are measured before any is cut, so the course depends on scores alone: not on the number
    of workers, their speed, or whether the run was interrupted. What the study already holds is not handed out.

    Who goes on whatever the others come to need not wait for them: once all of a rung is handed out, those who would
    stand idle begin with the next.

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
        self.standings = Standings(settings, costs, study)
        """The candidates' scores, and their order."""
        self._model = CostModel(costs, proxy_images=proxy_images, train_images=train_images)
        self._whole_model = CostModel(costs, proxy_images=proxy_images, train_images=train_images, data=WHOLE)
        self._predicted = self._model.predict()
        self._proxy_recipe = proxy_recipe or settings.proxy_recipe()
        self._whole_recipe = settings.finalist_recipe(train_images)
        self._keep_weights = keep_weights
        self._has_weights = has_weights
        self._progress = progress
        self._stage_progress = StageProgress(progress, accuracies=accuracies)
        self._stopwatch = stopwatch or Stopwatch()
        self._budget = budget or Budget()
        self._workers = 1
        self._begun = False
        self._queue = Queue()
        self._outstanding: dict[Key, Task] = {}
        self._by_itself: list[Task] = []
        self._lost: Counter[Key] = Counter()
        self._alone: list[Task] = []
        self._last_try: set[Key] = set()
        self._left: set[Key] = set()  # of the stage that is shown
        self._sure: list[Task] = []  # of the next one
        self._early: set[Key] = set()  # those recorded before their stage was shown
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
        self.cut_short = False
        """Whether the budget ended the ranking."""
        self._stages = self._run(proposals, finalists, rank)
        self._shown: Stage | None = None
        self._advance()

    @property
    def has_work(self) -> bool:
        """Whether :meth:`next_bundle` has something to hand out at this moment."""
        return bool(self._queue or self._by_itself or (self._alone and not self._outstanding))

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Wall time of each stage, earlier invocations included."""
        return self._stopwatch.seconds

    @property
    def in_one_training(self) -> bool:
        """Whether one training takes a candidate through all rungs, instead of one for each."""
        return self._settings.scheduler in PRUNERS

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
        if bundle and not self._begun:
            self._begun = True
            self._stage_progress.work_begins()
        self._outstanding.update((task.key, task) for task in bundle)
        self._go_ahead()
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
            if task.key in self._left:
                self._left.remove(task.key)
                self._stage_progress.advance(outcome)
                self._find_sure(task.candidate)
            else:
                self._early.add(task.key)
            if not self._left or not (self._waiting or self._outstanding):
                self._advance()
            self._heed_budget()
            self._go_ahead()
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

    @property
    def _waiting(self) -> bool:
        """Whether anything is still to be handed out."""
        return bool(self._queue or self._by_itself or self._alone)

    def _try_alone(self, task: Task) -> None:
        self._last_try.add(task.key)
        del self._outstanding[task.key]
        self._alone.append(task)

    def _advance(self) -> None:
        """Opens the next stage that has something left to do."""
        for stage in self._stages:
            done = [task for task in stage.tasks if self._is_done(task)]
            for task in done:
                if task.key not in self._early:
                    self._learn(task)
            self._left = {task.key for task in stage.tasks} - {task.key for task in done}
            self._sure = []
            if self._left:
                # Only here: within a stage, order, portions and the time left are of one measure.
                self._predicted = self._model.predict()
                pending = [task for task in stage.tasks if task.key in self._left]
                self._show(stage, pending, done)
                begun = {*self._outstanding, *(task.key for task in (*self._by_itself, *self._alone))}
                self._queue = self._ordered([task for task in pending if task.key not in begun])
                for candidate in {task.candidate.id: task.candidate for task in done}.values():
                    self._find_sure(candidate)
                self._reserve()
                return
        self.finished = True

    def _show(self, stage: Stage, pending: Sequence[Task], done: Sequence[Task]) -> None:
        self._shown = stage
        scores = [score for task in done for score in self._study.measurements[task.key].scores[-1:]]
        best = max((score.accuracy for score in scores), default=0.0)
        model = self._whole_model if self._on_whole_data() else self._model
        self._stage_progress.begin(stage, pending, best, predicted=self._predicted, model=model)

    def _ordered(self, tasks: Sequence[Task]) -> Queue:
        queue = longest_first(tasks, self._predicted)
        assert self._shown is not None
        if self._shown.in_order or (self._budget.limited and not self._on_whole_data()):
            # What the budget may cut off at any moment goes in the order of promise.
            return Queue(tasks, queue.work)
        return queue

    def _find_sure(self, candidate: Candidate) -> None:
        """Keeps what is sure of the next stage since ``candidate`` has ended one more training of this one."""
        if self._shown is not None and self._shown.sure is not None:
            self._sure += [task for task in self._shown.sure(candidate) if not self._is_done(task)]

    def _go_ahead(self) -> None:
        """Once all of the stage is handed out, has those who would stand idle begin with what is sure of the next."""
        if not self._sure or self._waiting or self.cut_short or self._budget.left <= 0:
            return
        # Beside what is tried when nothing else runs, nothing does.
        if self._outstanding.keys().isdisjoint(self._last_try):
            self._queue, self._sure = self._ordered(self._sure), []

    def _heed_budget(self) -> None:
        """When it is spent, leaves out what is not yet under way, and goes on to the finalists when nothing is."""
        if not self._waiting or self._on_whole_data() or self._budget.left > 0:
            return
        waiting = (*itertools.islice(self._queue, 1), *self._by_itself, *self._alone)
        # Where only trainings of the next stage are left out, this one comes to its end.
        if any(task.key in self._left for task in waiting):
            if not self.cut_short:
                self._progress.note("The time budget is spent; the finalists are chosen from what is ranked.")
            self.cut_short = True
        self._queue = Queue()
        self._by_itself.clear()
        self._alone.clear()
        self._sure.clear()
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

    def _is_done(self, task: Task) -> bool:
        """Whether the result is there, and of a finalist the weights too: the winner is handed over with them."""
        found = self._study.measurements.get(task.key)
        return found is not None and (task.data == PROXY or found.failure is not None or self._has_weights(task))

    def _learn(self, task: Task) -> None:
        """Takes in how long a training took, but of one that failed or left the finite numbers, which ended early."""
        found = self._study.measurements[task.key]
        if found.failure is not None or found.scores[-1].diverged:
            return
        if (epochs := found.scores[-1].epoch) < task.epochs:
            # One that was stopped has taken as long as a shorter one.
            task = replace(task, epochs=epochs, evaluate_at=tuple(e for e in task.evaluate_at if e <= epochs))
        self._model.learn(task, found.seconds)
        self._whole_model.learn(task, found.seconds)

    def _run(self, proposals: Proposals | None, finalists: Sequence[Candidate] | None, rank: bool) -> Iterator[Stage]:
        if rank:
            self._stopwatch.begin("search")
            ranking = yield from self._rank(proposals)
            # What diverged early may have been cut before what worked, and what diverged late after it.
            self.ranking = sorted(ranking, key=self._has_diverged)
            if self._settings.calibrate is not None:
                self._stopwatch.begin("calibration")
                self.calibration = drawn(self.ranking, self._settings.calibrate, self._settings.seed)
                yield Stage("Calibration, whole data", self._whole_tasks(self.calibration))
        self.finalists = self.ranking[: self._settings.top_k] if finalists is None else self._buildable(finalists)
        self._stopwatch.begin("finalists")
        yield Stage(
            (None if rank else self._title) or "Finalists, whole data",
            self._whole_tasks(self.finalists),
        )
        self._stopwatch.begin()

    def _rank(self, proposals: Proposals | None) -> Generator[Stage, None, list[Candidate]]:
        """The stages of the ranking; returns the ranked: who was trained for longer first, then the better."""
        if proposals is not None:
            return self._sample(proposals)
        return self._prune() if self.in_one_training else self._halve()

    def _has_diverged(self, candidate: Candidate) -> bool:
        """Whether the longest training on the proxy left the finite numbers."""
        scores = (self.standings.score(candidate, PROXY, rung.epochs) for rung in reversed(self.rungs))
        return next(score.diverged for score in scores if score is not None)

    def _prune(self) -> Generator[Stage, None, list[Candidate]]:
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
            alive = self.standings.measured(alive, settings.epochs)
        stopped: dict[int, list[Candidate]] = {level: [] for level in reversed(scored_at)}
        complete: list[Candidate] = []
        for candidate in alive:
            came = self.standings.score(candidate, PROXY, settings.epochs)
            early = came is not None and came.epoch < settings.epochs and not came.diverged
            (stopped[came.epoch] if came is not None and early else complete).append(candidate)
        complete = self.standings.ranked(complete, settings.epochs)
        self.standings.settle(complete, TrialState.COMPLETE, settings.epochs)
        eliminated: list[Candidate] = []
        for level, candidates in stopped.items():
            ranked = self.standings.ranked(candidates, settings.epochs)
            self.standings.settle(ranked, TrialState.PRUNED, settings.epochs, level)
            eliminated += ranked
        return complete + eliminated

    def _halve(self) -> Generator[Stage, None, list[Candidate]]:
        """Rungs of candidates, fewer and longer each; returns those trained in full before those that were cut."""
        alive = self._buildable(self.candidates)
        if self._budget.limited:
            # Whatever the budget leaves of the first rung is a random sample.
            alive.sort(key=lambda candidate: candidate.seed(self._settings.seed, 0, PROXY))
        self.rungs = self._settings.rungs(len(alive))
        eliminated: list[Candidate] = []
        for number, rung in enumerate(self.rungs):
            final = number + 1 == len(self.rungs)
            alive = alive[: rung.candidates]
            sure = None if final else self._sure_after(number, len(alive))
            yield Stage(self._ranking_title(rung.epochs), self._rung_tasks(alive, number), sure=sure)
            if self.cut_short:
                return self._ranked_in_part(alive, number) + eliminated
            alive = self.standings.ranked(alive, rung.epochs)
            keep = len(alive) if final else self.rungs[number + 1].candidates
            self.standings.settle(alive[:keep], TrialState.COMPLETE if final else TrialState.RUNNING, rung.epochs)
            self.standings.settle(alive[keep:], TrialState.PRUNED, rung.epochs)
            eliminated = alive[keep:] + eliminated
            alive = alive[:keep]
        return alive + eliminated

    def _rung_tasks(self, candidates: Sequence[Candidate], number: int) -> tuple[Task, ...]:
        scored_at = self._settings.evaluate_at if number + 1 == len(self.rungs) else ()
        return self._tasks(candidates, PROXY, self._proxy_recipe, self.rungs[number].epochs, scored_at)

    def _sure_after(self, number: int, competitors: int) -> Callable[[Candidate], Sequence[Task]] | None:
        """What :class:`Stage` has as ``sure`` of the rung ``number``, in which so many take part."""
        if len(self._settings.objectives) > 1:
            return None  # One more point may push back any number of those that it does not even beat.
        epochs = self.rungs[number].epochs
        promotion = Promotion(competitors, self.rungs[number + 1].candidates)

        def sure(candidate: Candidate) -> Sequence[Task]:
            if not self.standings.measured([candidate], epochs):
                return ()
            promoted = promotion.add(candidate, self.standings.place(candidate, epochs))
            return () if promoted is None else self._rung_tasks([promoted], number + 1)

        return sure

    def _ranked_in_part(self, alive: Sequence[Candidate], number: int) -> list[Candidate]:
        """Of a rung that was cut short, those that it measured, then in the order of the rung before those it did not.

        Of those that it measured, who has gone ahead to the next rung comes first.
        Nothing is closed that an undisturbed search would treat otherwise.
        """
        epochs = self.rungs[number].epochs
        measured = self.standings.measured(alive, epochs)
        ranked = self.standings.ranked(measured, epochs)
        if number + 1 == len(self.rungs):
            self.standings.settle(ranked, TrialState.COMPLETE, epochs)
        elif ahead := self.standings.measured(ranked, self.rungs[number + 1].epochs):
            gone = {candidate.id for candidate in ahead}
            ranked = self._ranked_in_part(ahead, number + 1) + [c for c in ranked if c.id not in gone]
        known = {candidate.id for candidate in measured}
        return ranked + [candidate for candidate in alive if number and candidate.id not in known]

    def _sample(self, proposals: Proposals) -> Generator[Stage, None, list[Candidate]]:
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
                score = self.standings.score(candidate, PROXY, settings.epochs)
                proposals.tell(candidate, None if score is None else self.standings.values(candidate, score))
        proposed = self._buildable(self.candidates)
        ranking = self.standings.ranked(
            self.standings.measured(proposed, settings.epochs) if self.cut_short else proposed, settings.epochs
        )
        self.standings.settle(ranking, TrialState.COMPLETE, settings.epochs)
        return ranking

    def _buildable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that could be built; the others are closed."""
        for candidate in candidates:
            if (reason := self._costs[candidate.id].failure) is not None:
                self._study.settle(candidate, TrialState.FAIL, 0, None, reason)
        return [candidate for candidate in candidates if self._costs[candidate.id].failure is None]

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

    def _ranking_title(self, epochs: int) -> str:
        return self._title or f"Ranking, {counted(epochs, 'epoch')}"
