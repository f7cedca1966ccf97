"""A whole search, from the dataset's name to the winner's folder."""

from __future__ import annotations

import contextlib
import json
import secrets
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from nasproxy.analysis.report import write_report
from nasproxy.analysis.results import winner_words
from nasproxy.condensation.course import Course
from nasproxy.datasets.image_dataset import Split
from nasproxy.errors import BudgetError, ExportError, NasproxyError
from nasproxy.export.card import Origin, model_card
from nasproxy.export.description import Description
from nasproxy.export.standalone import write_standalone
from nasproxy.export.trace import MOST_CHECKED
from nasproxy.files import facts_of, make_folder, write_atomically, write_json
from nasproxy.kernels.library import why_none
from nasproxy.progress import Progress, Silent, within_step_of
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.make import make_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.proxies.soft_labels import Teacher
from nasproxy.search.bench import Payload
from nasproxy.search.budget import Budget
from nasproxy.search.calibration import calibration, warning
from nasproxy.search.campaign import Campaign
from nasproxy.search.cluster import check_unconnected
from nasproxy.search.constraints import measure_candidates
from nasproxy.search.costs import Costs
from nasproxy.search.curves import write_curves
from nasproxy.search.inline import run_inline
from nasproxy.search.plan import HALF_MADE, Plan, make_plan, run_facts, study_name
from nasproxy.search.proposals import Proposals
from nasproxy.search.rebuild import fill, load_weights, rebuild
from nasproxy.search.results import results_table, summarise
from nasproxy.search.run_directory import (
    NO_WINNER,
    check_kept,
    check_run,
    check_unused,
    open_run,
    token_of,
    weights_file,
)
from nasproxy.search.settings import SearchSettings
from nasproxy.search.stopwatch import Stopwatch
from nasproxy.search.study import Study, holds_trials, open_storage
from nasproxy.search.task import WHOLE, Outcome
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.known import remember_space
from nasproxy.text import counted
from nasproxy.training.memory import release_memory
from nasproxy.training.process import alone, default_threads, prepare_process
from nasproxy.versions import deciding_versions, library_versions


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        summary: the document that ``nasproxy search --json`` prints.
        table: ``results.csv``: one row a candidate, best first.
        directory: the run's.
    """

    summary: dict[str, Any]
    table: pd.DataFrame
    directory: Path

    def __repr__(self) -> str:
        found = self.summary
        about = f"{found['space']} on {found['dataset']} by {found['proxy']}"
        counts = f"{found['evaluated']} of {counted(found['candidates'], 'candidate')} evaluated"
        return f"SearchResult({self.directory}: {about}, {counts}\n  {winner_words(found)})"


@alone()
def run_search(settings: SearchSettings, *, resume: bool = False, progress: Progress | None = None) -> SearchResult:
    """Condenses, ranks all candidates, trains the best on the whole data, and writes the winner and a report.

    Everything the user gave is checked before a directory is made.

    Args:
        settings: what to do.
        resume: finish the run in ``settings.out``, or start it where there is none.
        progress: told what goes on.

    Raises:
        NasproxyError: with what is wrong and what to do about it.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    if resume and settings.out is not None:
        check_unused(settings.out)
    plan = make_plan(settings, resume=resume)
    if settings.executor == "tune":
        check_unconnected()  # before anything is made for it
    facts = run_facts(plan)
    check_run(plan.directory, facts["identity"], resume=resume)
    say_what_it_was_begun_with(plan.directory, progress)
    for note in plan.dataset.notes:
        progress.note(note)
    if plan.given_proxy is not None and plan.given_proxy.doubt:
        progress.note(plan.given_proxy.doubt)
    if plan.device.type == "cpu" and (slower := why_none()):
        progress.note(slower)
    _say_what_inline_ignores(settings, progress)
    _say_what_is_invalid(plan, progress)
    prepare_process(default_threads())
    candidates, costs = measure_candidates(plan, progress)
    directory = plan.directory
    with open_run(directory, {**facts, "token": secrets.token_hex(8)}, resume=resume):
        with contextlib.suppress(NasproxyError):  # a cache that cannot be written stops nobody
            remember_space(plan.settings.space, plan.source)
        budget = Budget(plan.settings.time_budget, began)
        stopwatch = Stopwatch(directory / "seconds.json", began)
        before = facts_of(directory, "summary.json")
        whole = plan.procedure is not None or (directory / "proxy.safetensors").exists()
        proxy = _ranked_on(plan, progress, stopwatch, budget)
        storage, name = open_storage(directory, plan.settings.storage), study_name(plan.settings, directory)
        check_kept(directory, study=holds_trials(storage, name))
        space = plan.space
        study = Study(storage, name, space.choices, space.distributions)
        if plan.settings.storage is not None:
            study.claim(token_of(directory))
        campaign = _campaign(plan, candidates, study, costs, len(proxy), progress, stopwatch, budget)
        done = campaign.finished
        try:
            execute(plan, campaign, payload_of(plan, proxy))
        finally:
            # Also when interrupted: what is there can be looked at.
            table = results_table(
                campaign.candidates,
                costs,
                study,
                campaign.ranking,
                plan.settings.objectives,
                campaign.finalists or None,
                space.choices,
                plan.settings.repeats or 1,
            )
            with contextlib.suppress(NasproxyError):
                write_atomically(directory / "results.csv", table.to_csv(index=False).encode())
                _write_curves(plan, campaign, study, progress)
            if not done:
                stopwatch.keep()
        summary = _summary(plan, campaign, table, study)
        if plan.settings.calibrate is None:
            _keep_calibration(summary, before)
        if summary["calibration"] and (warned := warning(summary["calibration"])):
            progress.note(warned)
        _say_which_finalists_diverged(plan, summary, study, progress)
        if done and whole and _holds(directory, before, summary):
            return SearchResult(before, table, directory)
        summary["winner_directory"] = _hand_over(plan, summary, progress)
        summary["seconds"] = stopwatch.seconds
        stopwatch.keep()
        write_json(directory / "summary.json", summary)
        write_report(directory)
    return SearchResult(summary, table, directory)


def _say_what_is_invalid(plan: Plan, progress: Progress) -> None:
    for reason, most in plan.invalid.most_common(1):
        number = plan.invalid.total()
        of = "all of them" if most == number else f"{most:,} of them, more than for any other reason"
        progress.note(
            f"{counted(number, 'configuration')} {'makes' if number == 1 else 'make'} no sense and"
            f" {'is' if number == 1 else 'are'} left out; is_valid says of {of}: {reason}."
        )


def _say_what_inline_ignores(settings: SearchSettings, progress: Progress) -> None:
    asked = {"--workers": settings.workers or 1, "--gpus-per-worker": settings.gpus_per_worker}
    ignored = [f"{option} {number:g}" for option, number in asked.items() if number > 1]
    if settings.executor == "inline" and ignored:
        progress.note(f"--executor inline trains in this process alone; {' and '.join(ignored)} make no difference.")


def say_what_it_was_begun_with(directory: Path, progress: Progress) -> None:
    """Of a run that goes on, whether by other versions of what decides its numbers."""
    was, now = facts_of(directory).get("versions"), deciding_versions()
    other = [name for name in now if isinstance(was, dict) and was.get(name) not in (None, now[name])]
    if isinstance(was, dict) and other:
        before, after = (", ".join(f"{name} {versions[name]}" for name in other) for versions in (was, now))
        progress.note(f"This run was begun with {before} and goes on with {after}, whose scores may differ a little.")


def _write_curves(plan: Plan, campaign: Campaign, study: Study, progress: Progress) -> None:
    """TensorBoard's event files of the finalists, where they were asked for."""
    settings = plan.settings
    if not settings.tensorboard or not campaign.finalists:  # those of before are not to be removed for nothing
        return
    recipe, folder = settings.finalist_recipe(len(plan.dataset.train)), plan.directory / "tensorboard"
    unwatched = write_curves(folder, campaign.finalists, study, recipe, settings.repeats or 1)
    if unwatched:
        progress.note(
            f"Trainings of finalists from before --tensorboard was asked for: {unwatched}. Of these TensorBoard shows"
            " the last epoch alone."
        )


def _say_which_finalists_diverged(plan: Plan, summary: Mapping[str, Any], study: Study, progress: Progress) -> None:
    wild = Counter(
        candidate
        for (candidate, data, *_), m in study.measurements.items()
        if data == WHOLE and m.failure is None and m.scores[-1].diverged
    )
    settings, run = plan.settings, plan.directory
    repeats = settings.repeats or 1
    found = {entry["rank"]: wild[entry["id"]] for entry in summary["top"] if wild[entry["id"]]}
    if not found:
        return
    ranks = ", ".join(f"{rank} ({number} of {repeats})" if repeats > 1 else str(rank) for rank, number in found.items())
    progress.note(
        "Warning: left the finite numbers on the whole data, and count there as diverged, with an accuracy of 0:"
        f" finalists of rank {ranks}{' repeats' if repeats > 1 else ''}."
    )
    if summary["winner"] is None:
        anew = shlex.join(["nasproxy", "train", str(run), "--rank", str(min(found)), "--anew"])
        progress.note(
            f"No other finalist is left, so there is no winner. What they came to is in {run / 'results.csv'} and"
            f" {run / 'finalists'}. Search again in another --out, with a --finalist-learning-rate below"
            f" {settings.finalist_learning_rate:g} or a higher --top-k, or train a finalist from fresh weights: {anew},"
            " with --epochs and --learning-rate"
        )


def _holds(directory: Path, before: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Whether a directory holds all that a run leaves, and an earlier summary says what the new one would."""
    trained = any(entry["whole_accuracy"] is not None for entry in summary["top"])
    about = ["winner/config.json"] if summary["winner"] else [NO_WINNER] if trained else []
    names = ["report.html", *about]
    new = json.loads(json.dumps(summary))
    return all((directory / name).exists() for name in names) and all(
        before.get(name) == value for name, value in new.items() if name != "seconds"
    )


def _ranked_on(plan: Plan, progress: Progress, stopwatch: Stopwatch, budget: Budget) -> ProxySet | Split:
    """The images that candidates are ranked on."""
    if plan.procedure is not None:
        return plan.procedure.images(plan.dataset, seed=plan.settings.seed)
    return kept_proxy(plan, progress, stopwatch, budget)


def kept_proxy(plan: Plan, progress: Progress, stopwatch: Stopwatch, budget: Budget | None = None) -> ProxySet:
    """The proxy, from the run directory if it is resumed; one that is half made there is gone on with.

    Raises:
        BudgetError: ``budget`` was spent before the proxy was made.
    """
    kept, half_made = plan.directory / "proxy.safetensors", plan.directory / HALF_MADE
    settings, checkpoints = plan.settings, plan.checkpoints()
    if kept.exists():
        proxy = load_proxy(kept)
        proxy.check_matches(plan.dataset)
        half_made.unlink(missing_ok=True)  # left where the run was killed as the proxy had just been written
        return proxy
    stopwatch.begin("condense")
    teacher = _teacher(plan, progress, stopwatch)
    if plan.method is None:
        assert plan.given_proxy is not None
        proxy = plan.given_proxy if teacher is None else teacher.label(plan.given_proxy)
    else:
        method = plan.method

        def said(_: int, loss: float) -> None:
            progress.advance(f"{method.loss_name} {loss:.2f}")
            stopwatch.tick()

        where: Any = {"seed": settings.seed, "device": plan.device, "precision": plan.precision}
        start, budget = checkpoints.load() if checkpoints else None, budget or Budget()
        if method.steps:
            progress.stage(method.verb, method.steps, done=len(start.losses) if start else 0)
        course = Course(checkpoints, start, lambda: budget.left <= 0, on_part=within_step_of(progress))
        proxy = make_proxy(plan.dataset, method, **where, on_iteration=said, course=course, teacher=teacher)
        if not proxy.finished:
            raise BudgetError(
                f"The time budget was spent after {len(proxy.history)} of {method.steps} iterations of condensing;"
                " nothing is ranked yet.",
                "--resume goes on where it stopped; a larger --time-budget, or none, leaves time for ranking.",
            )
        if doubt := method.doubt(proxy.history):
            progress.note(doubt)
    save_proxy(proxy, kept)
    if checkpoints is not None:
        checkpoints.discard()
    release_memory(plan.device)  # which stays with this process, and workers want
    stopwatch.begin()
    return proxy


def _teacher(plan: Plan, progress: Progress, stopwatch: Stopwatch) -> Teacher | None:
    """Who gives the proxy soft labels; None where nobody does."""
    settings, recipe = plan.settings, plan.teacher_recipe
    if recipe is None:
        return None
    progress.stage("Training the teacher of soft labels", recipe.epochs)

    def said(_: int, loss: float) -> None:
        progress.advance(f"training loss {loss:.2f}")
        stopwatch.tick()

    where: Any = {"seed": settings.seed, "device": plan.device, "precision": plan.precision}
    return Teacher.of(plan.dataset, recipe, **where, on_epoch=said)


def _campaign(
    plan: Plan,
    candidates: Sequence[Candidate],
    study: Study,
    costs: Costs,
    proxy_images: int,
    progress: Progress,
    stopwatch: Stopwatch,
    budget: Budget,
) -> Campaign:
    directory = plan.directory

    def keep_weights(outcome: Outcome) -> None:
        make_folder(directory / "finalists")
        # Tied tensors share memory, which safetensors refuses: each is written by itself.
        tensors = {name: value.clone().contiguous() for name, value in outcome.weights.items()}
        write_atomically(weights_file(directory, outcome.task.candidate.id, outcome.task.repeat), save(tensors))

    settings = plan.settings
    return Campaign(
        settings,
        candidates,
        costs,
        study,
        train_images=len(plan.dataset.train),
        proxy_images=proxy_images,
        proxy_recipe=plan.proxy_recipe,
        proposals=None
        if settings.sampler == "grid"
        else Proposals(
            settings.sampler,
            candidates,
            plan.space.choices,
            settings.objectives,
            settings.seed,
            plan.space.suggest,
        ),
        keep_weights=keep_weights,
        has_weights=lambda task: weights_file(directory, task.candidate.id, task.repeat).exists(),
        progress=progress,
        stopwatch=stopwatch,
        budget=budget,
    )


def payload_of(plan: Plan, proxy: ProxySet | Split | None, score: CandidateScore | None = None) -> Payload:
    """What workers need for a plan; see :meth:`Payload.of`."""
    return Payload.of(
        plan.source,
        plan.dataset,
        proxy,
        device=plan.settings.device,
        precision=plan.settings.precision,
        threads=plan.settings.threads_per_worker,
        real_statistics=plan.settings.norm_statistics == "real",
        score=score,
    )


def execute(plan: Plan, campaign: Campaign, payload: Payload) -> None:
    """Performs all trainings of ``campaign`` on the executor of the plan."""
    if plan.settings.executor == "inline":
        run_inline(campaign, payload)
        return
    from nasproxy.search.tune import run_on_tune

    gpus = plan.settings.gpus_per_worker if plan.settings.device == "cuda" else 0.0
    run_on_tune(campaign, payload, workers=plan.workers, gpus_per_worker=gpus, address=plan.settings.address)


def _summary(plan: Plan, campaign: Campaign, table: pd.DataFrame, study: Study) -> dict[str, Any]:
    settings = plan.settings
    summary = {
        "schema": 1,
        "space": plan.space.name,
        "dataset": plan.dataset.name,
        "proxy": settings.proxy,
        **summarise(campaign, table, study, settings.objectives),
        "calibration": None,
        "seconds": None,  # known when all is done
        "run": str(plan.directory),
    }
    if settings.calibrate is not None:
        found = calibration(campaign.calibration, table, study.measurements, settings)
        _take_calibration(summary, found)
    return summary


def _take_calibration(summary: dict[str, Any], found: Mapping[str, Any]) -> None:
    finalists = {entry["id"] for entry in summary["top"]}
    summary["failed"] += sum(e["reason"] is not None and e["id"] not in finalists for e in found["sample"])
    summary["calibration"] = found


def _keep_calibration(summary: dict[str, Any], before: Mapping[str, Any]) -> None:
    """What an earlier invocation has estimated holds on, unless more are ranked by now."""
    found = before.get("calibration")
    if found and found["ranked"] == summary["evaluated"]:
        _take_calibration(summary, found)


def _hand_over(plan: Plan, summary: Mapping[str, Any], progress: Progress) -> str | None:
    """Writes ``winner/``; returns its path, or None where no finalist has finite weights."""
    winner, dataset, directory = summary["winner"], plan.dataset, plan.directory
    entry = winner or next((entry for entry in summary["top"] if entry["whole_accuracy"] is not None), None)
    if winner is None:  # an earlier invocation, of other finalists, may have had one
        shutil.rmtree(directory / "winner", ignore_errors=True)
    if entry is None:
        return None
    description = Description(
        id=entry["id"],
        space=plan.space.name,
        config=entry["config"],
        scores={name: entry[name] for name in ("proxy_accuracy", "whole_accuracy", "test_accuracy")},
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        image_size=dataset.image_size,
        channels=dataset.channels,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        versions=library_versions(),
    )
    if winner is None:
        write_atomically(directory / NO_WINNER, description.text(entry["parameters"]).encode())
        return None
    repeat, weights = load_weights(directory, winner["id"], plan.settings.repeats or 1)
    candidate = Candidate(winner["config"], winner["id"])
    model = rebuild(
        plan.space,
        candidate,
        channels=dataset.channels,
        image_size=dataset.image_size,
        num_classes=dataset.num_classes,
        seed=candidate.seed(plan.settings.seed, repeat, WHOLE),
    )
    fill(model, weights, winner["id"])
    validation = dataset.validation.images.cpu()
    images = dataset.normalisation.apply(validation[torch.arange(MOST_CHECKED) % len(validation)])
    card = model_card(description, Origin(run_facts(plan), summary, winner))
    try:
        write_standalone(directory / "winner", model=model, description=description, images=images, card=card)
    except ExportError as error:
        progress.note(str(error))
    return str(directory / "winner")
