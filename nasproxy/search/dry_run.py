"""What a search would do, and how long it would take on this machine: a few trainings are timed, nothing is written."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from nasproxy.datasets.image_dataset import Split
from nasproxy.errors import NasproxyError
from nasproxy.progress import Progress, Silent
from nasproxy.proxies.make import cached_proxy, random_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.proxies.soft_labels import teacher_seconds
from nasproxy.search.bench import Bench, Payload
from nasproxy.search.budget import Budget
from nasproxy.search.constraints import measure_candidates
from nasproxy.search.costs import Costs
from nasproxy.search.halving import PRUNERS, Rung, pruning_levels
from nasproxy.search.plan import Plan, make_plan, run_facts, study_name
from nasproxy.search.pruning import Pruning
from nasproxy.search.run_directory import check_kept, check_run
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import Study, holds_trials, open_storage, studies_in
from nasproxy.search.task import PROXY, WHOLE, Task
from nasproxy.spaces.candidate import Candidate
from nasproxy.text import Number, counted
from nasproxy.training.process import alone, default_threads, peak_memory_bytes, prepare_process
from nasproxy.training.recorded import timed_epochs
from nasproxy.training.train import Score

_TIMED = 8
_SAMPLED = 32
"""Candidates whose sizes stand for all that a sampler may propose: building each of a large space takes minutes."""
_PLAYED = 200
"""Candidates by which asynchronous halving is played through."""


@dataclass(frozen=True)
class Speed:
    """Seconds of a training: each is a constant and a multiple of the candidate's multiply-adds.

    Args:
        fixed: of building and scoring.
        epoch: of one epoch on the proxy.
    """

    fixed: tuple[float, float]
    epoch: tuple[float, float]

    def seconds(self, multiply_adds: float, epochs: Number) -> float:
        """Of a whole training."""
        return sum((a + b * multiply_adds) * times for (a, b), times in ((self.fixed, 1.0), (self.epoch, epochs)))


@alone()
def dry_run(settings: SearchSettings, *, resume: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Checks all that the user gave, and estimates time and memory by training some candidates for an epoch or two.

    On a GPU they train for as many as it takes until steps are recorded, as they are in the search.

    Args:
        settings: of the search.
        resume: whether a run in ``settings.out`` would be gone on with; what is done of it is counted.
        progress: told what goes on.

    Returns:
        The document that ``nasproxy search --dry-run --json`` prints. Seconds are of what is left to do; they and
        the memory are None where no training that was timed came to its end. ``failed`` has those that did not.

    Raises:
        NasproxyError: as the search itself would; or no candidate can be built, by which the search would fail.
    """
    progress = progress or Silent()
    prepare_process(default_threads())
    plan = make_plan(settings, resume=resume)
    check_run(plan.directory, run_facts(plan)["identity"], resume=resume)
    candidates, costs = measure_candidates(plan, progress)
    all_measured = plan.settings.sampler == "grid" or costs.measured > 0
    buildable = _buildable(plan, candidates, costs, progress)
    ranked = min(plan.settings.trials, len(candidates)) if plan.settings.trials else len(buildable)
    rungs = _rungs(plan.settings, ranked)
    done, finished = _done(plan)
    condense_seconds = _condense_seconds(plan, progress)  # on all cores, before the worker's threads are set
    timed = _measure(plan, buildable, costs, progress)
    mean = float(np.mean([costs[candidate.id].multiply_adds for candidate in buildable]))
    calibrated, finalists = _left_on_whole(plan, done, ranked)
    workers = _parallel(plan)
    each = None if timed.speed is None else _whole_seconds(plan, timed.speed, mean)
    ranking = None if timed.speed is None else _search_seconds(plan, rungs, done, timed.speed, mean, buildable)
    left = costs.measured if all_measured else max(0, ranked - costs.known)
    seconds: dict[str, float | None] = {
        "measure": costs.seconds / max(1, costs.measured) * left,
        "condense": condense_seconds,
        "search": ranking,
        **({"calibration": each and _spread(calibrated, each, workers)} if plan.settings.calibrate else {}),
        "finalists": each and _spread(finalists, each, workers),
    }
    return {
        "schema": 1,
        "dry_run": True,
        "space": plan.space.name,
        "dataset": plan.dataset.name,
        "proxy": plan.settings.proxy,
        "candidates": ranked,
        "rungs": [
            {
                "epochs": rung.epochs,
                "candidates": rung.candidates,
                "done": finished.get((PROXY, rung.epochs), 0),
                **({"judged_after": list(pruning_levels(rung.epochs))} if plan.settings.scheduler in PRUNERS else {}),
            }
            for rung in rungs
        ],
        **({"calibration": {"candidates": min(plan.settings.calibrate, ranked)}} if plan.settings.calibrate else {}),
        "finalists": {"candidates": plan.settings.top_k, "done": _finalists_done(plan, finished)},
        "workers": workers,
        "time_budget": plan.settings.time_budget,
        "budget_suffices": _suffices(plan, seconds),
        "seconds": {**seconds, "total": None if ranking is None else sum(filter(None, seconds.values()))},
        "memory_bytes": timed.memory and timed.memory * (workers + 1 if plan.settings.executor == "tune" else 1),
        "timed": timed.number,
        "failed": [{"id": name, "reason": reason} for name, reason in timed.failures.items()],
        "run": str(plan.directory),
    }


def _buildable(plan: Plan, candidates: Sequence[Candidate], costs: Costs, progress: Progress) -> list[Candidate]:
    """The candidates that can be built; of a sampler's, which are built as they are proposed, those of a sample."""
    sample = candidates
    if plan.settings.sampler != "grid":
        sample = random.Random(plan.settings.seed).sample(candidates, min(_SAMPLED, len(candidates)))
        progress.stage("Measuring candidates", len(sample))
        for candidate in sample:
            _ = costs[candidate.id]
            progress.advance()
    failures = [failure for candidate in sample if (failure := costs[candidate.id].failure) is not None]
    if len(failures) == len(sample):
        raise NasproxyError(
            f"None of {counted(len(sample), 'candidate')} of {plan.space.name} can be built, the first for"
            f" {failures[0]}.",
            "nasproxy spaces check says more about a space.",
        )
    if failures:
        progress.note(
            f"{len(failures)} of {counted(len(sample), 'candidate')} cannot be built, the first for {failures[0]}."
        )
    return [candidate for candidate in sample if costs[candidate.id].failure is None]


def _rungs(settings: SearchSettings, ranked: int) -> list[Rung]:
    """After how many epochs how many go on; by asynchronous halving, which decides that as it goes, how many begin."""
    return [Rung(settings.epochs, ranked)] if settings.scheduler in PRUNERS else settings.rungs(ranked)


def _suffices(plan: Plan, seconds: Mapping[str, float | None]) -> bool | None:
    """Whether condensing and ranking end within the time budget, the finalists' part of it kept back.

    None where there is none, or where nobody can say.
    """
    condense, ranking, finals = (seconds[name] for name in ("condense", "search", "finalists"))
    if plan.settings.time_budget is None or condense is None or ranking is None or finals is None:
        return None
    budget = Budget(plan.settings.time_budget)
    budget.reserve(finals)
    return condense + ranking <= budget.left


def _done(plan: Plan) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """How many trainings the study holds, by data and epochs, and all repeats of how many candidates.

    A journal is read from a copy, as opening may mend it.
    """
    name, address = study_name(plan.settings, plan.directory), plan.settings.storage
    if address is not None and name not in studies_in(address):
        check_kept(plan.directory, study=False)
        return {}, {}
    with tempfile.TemporaryDirectory() as folder:
        if address is None and (plan.directory / "study.log").exists():
            shutil.copy(plan.directory / "study.log", folder)
        storage = open_storage(Path(folder), address)
        kept = holds_trials(storage, name)
        check_kept(plan.directory, study=kept)
        if not kept:
            return {}, {}
        held = Counter(key[:3] for key in Study(storage, name, plan.space.choices).measurements)
    trainings, repeats = Counter[tuple[str, int]](), plan.settings.repeats or 1
    for (_, data, epochs), count in held.items():
        trainings[data, epochs] += count
    return trainings, Counter((data, epochs) for (_, data, epochs), count in held.items() if count >= repeats)


def _condense_seconds(plan: Plan, progress: Progress) -> float | None:
    """Of what is left of making the proxy; 0 where that is done already, None where nobody can say."""
    if (plan.directory / "proxy.safetensors").exists():
        return 0.0
    where: Any = {"device": plan.device, "precision": plan.precision}
    recipe, seed = plan.teacher_recipe, plan.settings.seed
    teaching = 0.0 if recipe is None else teacher_seconds(plan.dataset, recipe, plan.method, seed=seed, **where)
    if plan.method is None or cached_proxy(plan.dataset, plan.method, seed=seed, **where).exists():
        return teaching
    kept = plan.checkpoints()
    start = kept.load() if kept is not None else None
    progress.stage("Timing the proxy", 1)
    seconds = plan.method.expected_seconds(plan.dataset, **where)
    progress.advance()
    if seconds is None:
        return None
    return teaching + seconds * (1 if start is None else 1 - len(start.losses) / plan.method.steps)


@dataclass(frozen=True)
class _Timed:
    """What timing some trainings has shown.

    Args:
        number: of candidates that were timed.
        speed: None where none of them came to its end.
        memory: of a process, in bytes; None likewise.
        failures: reasons by candidate id.
    """

    number: int
    speed: Speed | None
    memory: int | None
    failures: Mapping[str, str]


def _measure(plan: Plan, candidates: Sequence[Candidate], costs: Costs, progress: Progress) -> _Timed:
    """Times candidates from the smallest to the largest; the largest says how much memory a process takes."""
    settings = plan.settings
    bench = Bench(
        Payload.of(
            plan.source,
            plan.dataset,
            _stand_in(plan),
            device=plan.device.type,
            precision=plan.precision,
            threads=settings.threads_per_worker,
            real_statistics=settings.norm_statistics == "real",
        )
    )
    by_size = sorted(candidates, key=lambda candidate: costs[candidate.id].multiply_adds)
    picked = [by_size[round(q * (len(by_size) - 1))] for q in np.linspace(0, 1, min(_TIMED, len(by_size)))]
    epochs = timed_epochs(plan.device, plan.proxy_recipe.epochs, _batches(plan))
    progress.stage("Timing candidates", len(picked))
    sizes, once, twice = [], [], []
    failures: dict[str, str] = {}
    for candidate in picked:
        task = Task(candidate, PROXY, plan.proxy_recipe, epochs, 0, candidate.seed(settings.seed, 0, PROXY))
        # The first training of a shape also compiles its kernels.
        outcomes = [bench.perform(one) for one in (task, task, replace(task, epochs=2 * epochs))]
        if reasons := [outcome.failure for outcome in outcomes if outcome.failure is not None]:
            failures[candidate.id] = reasons[0]
        else:
            sizes.append(float(costs[candidate.id].multiply_adds))
            once.append(outcomes[1].seconds)
            twice.append(outcomes[2].seconds)
        progress.advance()
    if not sizes:
        return _Timed(len(picked), None, None, failures)
    trained = np.maximum(np.subtract(twice, once), 0)
    speed = Speed(_fit(sizes, np.maximum(np.subtract(once, trained), 0)), _fit(sizes, trained / epochs))
    return _Timed(len(picked), speed, peak_memory_bytes(plan.device), failures)


def _batches(plan: Plan) -> int:
    """Of an epoch on the proxy."""
    proxy = plan.proxy_recipe
    return -(-(proxy.images or len(_stand_in(plan).labels)) // proxy.batch_size)


def _fit(sizes: Sequence[float], seconds: np.ndarray) -> tuple[float, float]:
    """A constant and a slope, neither below 0 (non-negative least squares)."""
    scale = max(sizes) or 1.0
    (constant, slope), _ = nnls(np.column_stack([np.ones(len(sizes)), np.divide(sizes, scale)]), seconds)
    return float(constant), float(slope / scale)


def _stand_in(plan: Plan) -> ProxySet | Split:
    """Images of the proxy's number and size; what they show makes no difference to the time."""
    if plan.procedure is not None:
        return plan.procedure.images(plan.dataset, seed=plan.settings.seed)
    return plan.given_proxy or random_proxy(plan.dataset, plan.settings.ipc, seed=0)


def _search_seconds(
    plan: Plan,
    rungs: Sequence[Rung],
    done: dict[tuple[str, int], int],
    speed: Speed,
    mean: float,
    candidates: Sequence[Candidate],
) -> float:
    """Of the trainings that are left, spread over the workers. Who survives a rung is taken to be of average size."""
    repeats, workers = plan.settings.repeats or 1, _parallel(plan)
    total = 0.0
    for rung in rungs:
        left = max(0, rung.candidates * repeats - done.get((PROXY, rung.epochs), 0))
        each = speed.seconds(mean, _epochs_played(plan.settings, candidates) or rung.epochs)
        total += _spread(left, each, workers)
    return total


def _spread(trainings: int, each: float, workers: int) -> float:
    """Seconds of so many trainings of ``each`` seconds, of which no more than there are run at once."""
    return trainings * each / min(workers, max(1, trainings))


def _epochs_played(settings: SearchSettings, candidates: Sequence[Candidate]) -> float | None:
    """Epochs of a training by asynchronous halving, on average, where a candidate's score is drawn once for all levels.

    None where trainings are as long as their rung.
    """
    if settings.scheduler not in PRUNERS:
        return None
    played, draw = candidates[:_PLAYED], random.Random(settings.seed)
    pruning, total = Pruning(str(settings.scheduler), played, settings.epochs, settings.seed), 0
    for candidate in played:
        accuracy = draw.random()
        scores = (Score(level, accuracy, 0.0) for level in pruning.levels)
        total += next((s.epoch for s in scores if not pruning.goes_on(candidate, s)), settings.epochs)
    return total / len(played)


def _left_on_whole(plan: Plan, done: dict[tuple[str, int], int], ranked: int) -> tuple[int, int]:
    """Trainings on the whole data of the calibration, which comes first, and of the finalists."""
    repeats, trained = plan.settings.repeats or 1, sum(n for (data, _), n in done.items() if data == WHOLE)
    calibrated = min(plan.settings.calibrate or 0, ranked) * repeats
    return max(0, calibrated - trained), max(0, plan.settings.top_k * repeats - max(0, trained - calibrated))


def _finalists_done(plan: Plan, finished: dict[tuple[str, int], int]) -> int:
    """How many at the most; what else was trained on the whole data is a calibration's."""
    return min(sum(n for (data, _), n in finished.items() if data == WHOLE), plan.settings.top_k)


def _whole_seconds(plan: Plan, speed: Speed, mean: float) -> float:
    """Of one of them."""
    images = len(plan.dataset.train)
    recipe = plan.settings.finalist_recipe(images)
    # An epoch's constant part is its steps'; its other part grows with the images.
    proxy = plan.proxy_recipe
    shown = proxy.images or len(_stand_in(plan).labels)
    steps, share = -(-images // recipe.batch_size) / _batches(plan), images / shown
    epoch = speed.epoch[0] * steps + speed.epoch[1] * mean * share
    return recipe.epochs * epoch + speed.seconds(mean, 0)


def _parallel(plan: Plan) -> int:
    return plan.workers if plan.settings.executor == "tune" else 1
