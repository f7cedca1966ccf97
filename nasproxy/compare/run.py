"""A whole comparison, from the names of the proxies to the table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasproxy.compare.mixture import mixed_run
from nasproxy.compare.names import WHOLE, members_of, parts_of
from nasproxy.compare.order import finalists, ordering
from nasproxy.compare.plan import ComparePlan, plan_comparison
from nasproxy.compare.report import write_comparison
from nasproxy.compare.runs import ProxyRun, accuracy_of, run_proxy, run_whole
from nasproxy.compare.scores import ComparisonScores, save_scores
from nasproxy.compare.settings import CompareSettings
from nasproxy.compare.table import NOT_DEFINED, compare_scores
from nasproxy.files import write_json
from nasproxy.kernels.library import why_none
from nasproxy.progress import Progress, Silent
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.search.cluster import check_unconnected
from nasproxy.search.run import say_what_it_was_begun_with
from nasproxy.search.run_directory import check_unused, open_run
from nasproxy.search.study import Measurement
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.space import ABSENT
from nasproxy.training.process import alone, default_threads, prepare_process
from nasproxy.versions import library_versions, machine_facts

Column = tuple[str, str, Iterable[Any]]


@dataclass(frozen=True)
class CompareResult:
    """What a comparison found.

    Args:
        document: what ``nasproxy compare --json`` prints.
        scores: every score of every candidate.
        directory: the run's.
        failed: trainings and scores that failed, and proxies that could not be made.
    """

    document: dict[str, Any]
    scores: ComparisonScores
    directory: Path
    failed: int

    def __repr__(self) -> str:
        return f"CompareResult({self.directory}: {self.failed} failed\n  {self.scores!r})"


@alone()
def run_compare(settings: CompareSettings, *, resume: bool = False, progress: Progress | None = None) -> CompareResult:
    """Ranks the same candidates by every proxy, trains those that matter on the whole data, and draws the table.

    The best of every proxy and a random sample are trained on the whole data together, each candidate once.

    Args:
        settings: what to do.
        resume: finish the comparison in ``settings.search.out``, or start it where there is none. It may be of other
            proxies than before: what is scored or trained already is kept.
        progress: told what goes on.

    Raises:
        NasproxyError: with what is wrong and what to do about it.
    """
    progress = progress or Silent()
    if resume and settings.search.out is not None:
        check_unused(settings.search.out)
    plan = plan_comparison(settings, resume=resume, progress=progress)
    if settings.search.executor == "tune":
        check_unconnected()  # before anything is made for it
    directory = plan.common.directory
    say_what_it_was_begun_with(directory, progress)
    prepare_process(default_threads())
    with open_run(directory, plan.facts(), resume=resume):
        _keep_names(plan)
        for note in plan.notes:
            progress.note(note)
        if plan.common.device.type == "cpu" and (slower := why_none()):
            progress.note(slower)
        every = _rank(plan, progress)
        whole = run_whole(plan, _chosen(plan, every), progress)
        if WHOLE in plan.proxies:
            every[WHOLE] = ProxyRun(whole, 0.0, len(plan.common.dataset.train))
        runs = {name: every[name] for name in plan.settings.named.rows}
        scores = save_scores(directory, _facts(plan, runs), list(_columns(plan, runs, whole)))
        document = {**compare_scores(scores), "run": str(directory)}
        write_comparison(directory, scores, document, directory)
    return CompareResult(document, scores, directory, _failed(plan, every, whole))


def _keep_names(plan: ComparePlan) -> None:
    """Notes in ``run.json`` which proxies are asked for now."""
    file, proxies = plan.common.directory / "run.json", list(plan.settings.proxies)
    facts = json.loads(file.read_text(encoding="utf-8"))
    if facts.get("proxies") != proxies:
        write_json(file, {**facts, "proxies": proxies})


def _rank(plan: ComparePlan, progress: Progress) -> dict[str, ProxyRun]:
    """What each proxy makes of the candidates, but for the ground truth, which is trained for all at the end."""
    runs = {name: run_proxy(plan, name, progress) for name in plan.proxies if name != WHOLE}
    mixtures = [name for name in plan.settings.named.rows if name not in plan.proxies]
    for name in mixtures:
        runs[name] = mixed_run({member: runs[member] for member in members_of(name)}, plan.candidates)
    return runs


def _chosen(plan: ComparePlan, runs: Mapping[str, ProxyRun]) -> list[Candidate]:
    """The sample and the best of every proxy, or all for the ground truth, in the order of the candidates."""
    if WHOLE in plan.proxies:
        return plan.candidates
    settings = plan.common.settings
    wanted = {candidate.id for candidate in plan.sample}
    for run in runs.values():
        if run.reason is None:
            order = ordering(_accuracies(plan, run), _ties(plan, run))
            best = finalists(order, settings.top_k, settings.seed)
            wanted |= {plan.candidates[position].id for position in best}
    return [candidate for candidate in plan.candidates if candidate.id in wanted]


def _accuracies(plan: ComparePlan, run: ProxyRun) -> list[list[float]]:
    """A row for each candidate, a score for each repeat; NaN where there is none."""
    return [[accuracy_of(m) for m in run.measurements[candidate.id]] for candidate in plan.candidates]


def _ties(plan: ComparePlan, run: ProxyRun) -> list[float]:
    """What breaks ties, lower is better: the mean cross-entropy; 0 for scores without training."""
    found = (run.measurements[candidate.id] for candidate in plan.candidates)
    return [
        sum(m.scores[-1].cross_entropy for m in repeats) / len(repeats) if all(m.scores for m in repeats) else math.nan
        for repeats in found
    ]


def _facts(plan: ComparePlan, runs: Mapping[str, ProxyRun]) -> dict[str, Any]:
    settings, common = plan.common.settings, plan.common
    return {
        "dataset": common.dataset.name,
        "fingerprint": common.dataset.fingerprint,
        "space": common.space.name,
        "space_size": common.valid,
        "choices": {name: list(values) for name, values in common.space.choices.items()},
        "preset": settings.preset,
        "seed": settings.seed,
        "repeats": settings.repeats,
        "top_k": settings.top_k,
        "epochs": settings.epochs,
        "whole_epochs": settings.finalist_epochs,
        "proxies": {name: _about(run) for name, run in runs.items()},
        "notes": plan.notes,
        "versions": library_versions(),
        "machine": machine_facts(common.device.type),
    }


def _about(run: ProxyRun) -> dict[str, Any]:
    every = [m for repeats in run.measurements.values() for m in repeats]
    failures = Counter(m.failure for m in every if m.failure is not None)
    return {
        "reason": run.reason,
        "seconds": sum(m.seconds for m in every if not math.isnan(m.seconds)),
        "making_seconds": run.making,
        "images": run.images,
        "failures": dict(failures.most_common(3)),
    }


def _columns(
    plan: ComparePlan, runs: Mapping[str, ProxyRun], whole: Mapping[str, Sequence[Measurement]]
) -> Iterator[Column]:
    candidates, costs = plan.candidates, plan.costs
    sample = {candidate.id for candidate in plan.sample}
    yield "id", "candidate: a hash of its configuration", [c.id for c in candidates]
    for choice in plan.common.space.choices:
        yield f"params_{choice}", f"the configuration's {choice}", [c.config.get(choice, ABSENT) for c in candidates]
    yield "parameters", "numbers that are trained", [costs[c.id].parameters for c in candidates]
    yield "multiply_adds", "of the forward pass of one image", [costs[c.id].multiply_adds for c in candidates]
    yield "sampled", "1 for those of the random sample", [int(c.id in sample) for c in candidates]
    for name, run in runs.items():
        if run.reason is None:
            rows = _accuracies(plan, run)
            for repeat in range((plan.common.settings.repeats or 1) if name != WHOLE else 0):
                yield f"{name}.{repeat}", f"{_meaning(plan, name)}, repeat {repeat}", [row[repeat] for row in rows]
            yield f"{name}.ties", f"what breaks ties of {name}: mean cross-entropy, lower is better", _ties(plan, run)
    yield from _whole_columns(plan, whole)


def _meaning(plan: ComparePlan, name: str) -> str:
    if name not in plan.proxies:
        twice = ", each made and trained by itself" if len({*parts_of(name)}) < len(parts_of(name)) else ""
        return f"mean of the standardised scores by {' and '.join(parts_of(name))}{twice}"
    score = isinstance(plan.proxies[name], CandidateScore)
    return f"score by {name}, without training" if score else f"validation accuracy after training by {name}"


def _whole_columns(plan: ComparePlan, whole: Mapping[str, Sequence[Measurement]]) -> Iterator[Column]:
    found = [whole.get(candidate.id) for candidate in plan.candidates]
    for repeat in range(plan.common.settings.repeats or 1):
        what = f"validation accuracy after training on the whole training part, repeat {repeat}"
        yield f"whole.{repeat}", what, [accuracy_of(row[repeat]) if row else math.nan for row in found]
    for repeat in range(plan.common.settings.repeats or 1):
        tests = [row[repeat].test_accuracy if row else None for row in found]
        yield (
            f"test.{repeat}",
            f"test accuracy of the same, repeat {repeat}",
            [math.nan if t is None else t for t in tests],
        )
    seconds = [sum(m.seconds for m in row) if row else math.nan for row in found]
    yield "whole_seconds", "seconds of training on the whole training part, all repeats", seconds
    reasons = [next((m.failure for m in row if m.failure), "") if row else "" for row in found]
    yield "whole_reason", "why there is no accuracy on the whole training part", reasons


def _failed(plan: ComparePlan, runs: Mapping[str, ProxyRun], whole: Mapping[str, Sequence[Measurement]]) -> int:
    """A score that is not defined for a network is no failure; all else without a score is, and a proxy not made.

    Of ``runs``, those of mixtures count nothing that their parts do not.
    """
    ranked = {name: proxy for name, proxy in plan.proxies.items() if name != WHOLE}
    scored = [runs[name].measurements for name, proxy in ranked.items() if isinstance(proxy, CandidateScore)]
    trained = [runs[name].measurements for name, proxy in ranked.items() if not isinstance(proxy, CandidateScore)]
    failures = len(_reasons([*trained, whole]))
    failures += sum(not reason.startswith(NOT_DEFINED) for reason in _reasons(scored))
    return failures + sum(runs[name].reason is not None for name in plan.proxies)


def _reasons(found: Iterable[Mapping[str, Sequence[Measurement]]]) -> list[str]:
    return [m.failure for by_id in found for row in by_id.values() for m in row if m.failure is not None]
