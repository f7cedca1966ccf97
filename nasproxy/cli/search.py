"""``nasproxy search``: the whole road from data to the winning network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from nasproxy.cli.completion import among, proxy_names, space_names
from nasproxy.cli.dry_run import estimate
from nasproxy.cli.options import (
    FEWER,
    RANK,
    RUN,
    SOFT_LABELS,
    WHOLE,
    DataDir,
    Dataset,
    Device,
    Executor,
    FinalistAugmentation,
    FinalistBatchSize,
    FinalistEpochs,
    FinalistLearningRate,
    GpusPerWorker,
    ImageSize,
    Json,
    LearningRate,
    NormStatistics,
    Precision,
    ProxyAugmentation,
    Repeats,
    SkipBroken,
    Tensorboard,
    ThreadsPerWorker,
    Workers,
    parse_image_size,
)
from nasproxy.cli.output import Row, print_json, print_parts, print_rows, say_how_to_see_curves, stdout
from nasproxy.cli.run_folder import run_folder
from nasproxy.cli.screen import open_screen
from nasproxy.search.settings import OBJECTIVES, PRESETS, SAMPLERS, SCHEDULERS, SearchSettings
from nasproxy.text import count, counted, duration, milliseconds, percent

if TYPE_CHECKING:
    import pandas as pd

    from nasproxy.search.run import SearchResult

PROXY = "Proxy and space"
_TOLD = 3
"""Kinds of failures that are told on the terminal; the report has all."""
_D = SearchSettings()


def search(
    *,
    dataset: Dataset = _D.dataset,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    skip_broken: SkipBroken = False,
    space: Annotated[
        str,
        typer.Option(
            help="A registered name, package.module:attribute, or file.py[:attribute]; the last two run that code.",
            autocompletion=space_names,
            rich_help_panel=PROXY,
        ),
    ] = _D.space,
    proxy: Annotated[
        str,
        typer.Option(
            help="A method (condensed, random, early-stopping, …) or a proxy file.",
            autocompletion=proxy_names,
            rich_help_panel=PROXY,
        ),
    ] = _D.proxy,
    preset: Annotated[
        str,
        typer.Option(
            help="quick (minutes on two cores) or paper (the paper's settings).",
            autocompletion=among(*PRESETS),
            rich_help_panel=PROXY,
        ),
    ] = _D.preset,
    ipc: Annotated[int, typer.Option(help="Images per class of the proxy.", rich_help_panel=PROXY)] = _D.ipc,
    limit: Annotated[
        int | None,
        typer.Option(help=f"Rank a seeded, stratified sample of N candidates{FEWER}.", rich_help_panel=PROXY),
    ] = None,
    soft_labels: Annotated[
        bool, typer.Option("--soft-labels", help=SOFT_LABELS, rich_help_panel=PROXY)
    ] = _D.soft_labels,
    epochs: Annotated[
        int, typer.Option(help="Epochs on the proxy; whole takes --finalist-epochs.", rich_help_panel=RANK)
    ] = _D.epochs,
    learning_rate: LearningRate = _D.learning_rate,
    augmentation: ProxyAugmentation = _D.augmentation,
    norm_statistics: NormStatistics = _D.norm_statistics,
    repeats: Repeats = None,
    max_parameters: Annotated[
        int | None, typer.Option(help="Leave out larger candidates.", rich_help_panel=RANK)
    ] = None,
    max_multiply_adds: Annotated[
        int | None, typer.Option(help="Leave out candidates that take more for an image.", rich_help_panel=RANK)
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="accuracy, and parameters, multiply-adds or latency (measured, so not the same twice) beside it;"
            " repeat it to rank by Pareto fronts.",
            show_default="accuracy",
            autocompletion=among(*OBJECTIVES),
            rich_help_panel=RANK,
        ),
    ] = None,
    sampler: Annotated[
        str,
        typer.Option(
            help="grid (all candidates); random, tpe or nsga2 (Optuna proposes --trials of them).",
            autocompletion=among(*SAMPLERS),
            rich_help_panel=RANK,
        ),
    ] = _D.sampler,
    trials: Annotated[
        int | None, typer.Option(help="Candidates a sampler proposes.", show_default="100", rich_help_panel=RANK)
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="halving, asha or hyperband (most candidates stop early), or none.",
            show_default="halving; paper none",
            autocompletion=among(*SCHEDULERS),
            rich_help_panel=RANK,
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            help="Minutes for condensing and ranking, anew with each --resume; the finalists' predicted time, up to"
            " half, is kept back from them.",
            show_default="no limit",
            rich_help_panel=RANK,
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Finalists.", rich_help_panel=WHOLE)] = _D.top_k,
    calibrate: Annotated[
        int | None,
        typer.Option(
            help="Before the finalists, train N random candidates on the whole data: how far can the proxy be trusted"
            " over all of them? A finished run can be calibrated with --resume.",
            show_default="none",
            rich_help_panel=WHOLE,
        ),
    ] = None,
    min_correlation: Annotated[
        float | None,
        typer.Option(
            help="Exit with 1 if that estimate of Spearman's rho is below.",
            show_default="warn below 0.5",
            rich_help_panel=WHOLE,
        ),
    ] = None,
    finalist_epochs: FinalistEpochs = None,
    finalist_learning_rate: FinalistLearningRate = _D.finalist_learning_rate,
    finalist_batch_size: FinalistBatchSize = None,
    finalist_augmentation: FinalistAugmentation = _D.finalist_augmentation,
    tensorboard: Tensorboard = False,
    executor: Executor = _D.executor,
    workers: Workers = None,
    threads_per_worker: ThreadsPerWorker = _D.threads_per_worker,
    gpus_per_worker: GpusPerWorker = _D.gpus_per_worker,
    address: Annotated[
        str | None,
        typer.Option(
            help="Join a running Ray cluster that this machine is a node of: host:port of its head, or auto. Every node"
            " needs nasproxy, not the file of --space.",
            show_default="a Ray of its own",
            rich_help_panel=RUN,
        ),
    ] = None,
    device: Device = _D.device,
    precision: Precision = _D.precision,
    storage: Annotated[
        str | None,
        typer.Option(
            help="An Optuna storage address.", show_default="a journal in the run directory", rich_help_panel=RUN
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of proxy, sample and trainings.", rich_help_panel=RUN)] = _D.seed,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory.", show_default="runs/<date>-<space>-<proxy>", rich_help_panel=RUN),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the run in --out, or start it.", rich_help_panel=RUN)
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only say what would be done, and about how long it takes.", rich_help_panel=RUN
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Rank every candidate on a proxy of the data, train the best on all of it, hand over the winner."""
    options = {
        name: value
        for name, value in locals().items()
        if name not in ("image_size", "resume", "dry_run", "as_json", "objective")
    }
    objectives = tuple(objective or _D.objectives)
    settings = SearchSettings(**options, objectives=objectives, image_size=parse_image_size(image_size))
    if dry_run:
        return estimate(settings, resume=resume, as_json=as_json)
    with run_folder(out, space, proxy, resume=resume) as directory, open_screen() as screen:
        from nasproxy.search.run import run_search

        result = run_search(replace(settings, out=directory), resume=resume, progress=screen)
    if as_json:
        print_json(result.summary)
    else:
        _print(result, several=len(objectives) > 1)
    nothing = result.summary["budget_spent"] and not result.summary["evaluated"]
    no_winner = bool(result.summary["top"]) and result.summary["winner"] is None
    too_low = _too_low(result.summary["calibration"])
    return 1 if result.summary["failed"] or nothing or no_winner or too_low else 0


def _too_low(calibration: dict[str, Any] | None) -> bool:
    return bool(calibration and calibration["min_correlation"] is not None and calibration["below"])


def _print(result: SearchResult, *, several: bool) -> None:
    summary, console = result.summary, stdout()
    front = {*result.table.loc[result.table["pareto"], "id"]} if several else None
    winner, agreement = summary["winner"], summary["agreement"]
    if summary["top"]:
        _print_finalists(summary, front)
    else:
        console.print("No candidate came so far that it could be a finalist.")
    if winner is not None:
        console.print()
        print_parts("Winner", [winner["id"], *_describe(winner["config"])])
        console.print(f"  test accuracy {percent(winner['test_accuracy'])}, {count(winner['parameters'])} parameters")
    elif summary["top"]:
        console.print("\n[bold red]No winner[/] No finalist could be trained on the whole data to finite numbers.")
    if summary["top"]:
        console.print(f"\n[bold]Trust[/]  {escape(_agreement(agreement))}")
    if summary["calibration"] is not None:
        console.print(f"\n[bold]Calibration[/]  {escape(_calibration(summary))}")
    console.print(f"\n[bold]Effort[/] {_effort(summary)}")
    if summary["failed"]:
        console.print(f"\n[bold red]{counted(summary['failed'], 'candidate')} failed[/]")
        for line in _failures(summary, result.table):
            console.print(f"  {escape(line)}", soft_wrap=True)
    names = ("report.html", "results.csv", "winner/", "study.log")
    files = [name for name in names if (result.directory / name).exists()]
    console.print(f"\n[bold]Files[/]  {escape(summary['run'])}: {', '.join(files)}", soft_wrap=True)
    say_how_to_see_curves(result.directory)


def _print_finalists(summary: dict[str, Any], front: set[str] | None) -> None:
    """The table of finalists; who is in ``front``, the Pareto front of several objectives, has a star."""
    timed = any("latency_ms" in entry for entry in summary["top"])
    figures = ("Rank", "Proxy", "Whole", "Test", "Parameters", "Multiply-adds", *(["Latency"] if timed else []))
    marked = [] if front is None else ["Pareto"]
    rows = []
    for entry in summary["top"]:
        best = summary["winner"] is not None and entry["id"] == summary["winner"]["id"]
        accuracies = [percent(entry[name]) for name in ("proxy_accuracy", "whole_accuracy", "test_accuracy")]
        sizes = [count(entry["parameters"]), count(entry["multiply_adds"])]
        sizes += [milliseconds(entry["latency_ms"])] if timed else []
        stars = ["*" if entry["id"] in (front or ()) else "" for _ in marked]
        cells = [str(entry["rank"]), *accuracies, *sizes, *stars, entry["id"]]
        rows.append(Row(cells, _describe(entry["config"]), "bold green" if best else None))
    print_rows([*figures, *marked, "Id", "Configuration"], rows, right=figures)


def _describe(config: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in config.items()]


def _agreement(agreement: dict[str, Any]) -> str:
    from nasproxy.analysis.explain import agreement_of, explain

    # The rest of the explanation is in the report.
    return " ".join(explain(agreement_of(agreement))[:2])


def _calibration(summary: dict[str, Any]) -> str:
    from nasproxy.analysis.explain import against_winner, agreement_of, explain_calibration

    found = summary["calibration"]
    sentences = explain_calibration(agreement_of(found), found["ranked"])
    return " ".join([*sentences, *against_winner(found, summary["winner"])])


def _failures(summary: dict[str, Any], table: pd.DataFrame) -> list[str]:
    """The most frequent kinds of failure, each with its number; reasons that differ in numbers alone are one kind."""
    reasons = {entry["id"]: entry["reason"] for entry in (summary["calibration"] or {"sample": []})["sample"]}
    reasons.update(table.set_index("id")["reason"].dropna())
    kinds: dict[str, list[str]] = {}
    for reason in filter(None, reasons.values()):
        kinds.setdefault(re.sub(r"\d+", "0", reason), []).append(reason)
    frequent = sorted(kinds.values(), key=len, reverse=True)
    lines, others = [f"{len(kind)} × {kind[0]}" for kind in frequent[:_TOLD]], frequent[_TOLD:]
    more = f"{sum(map(len, others))} for {counted(len(others), 'other reason')}: see reason in results.csv"
    return [*lines, more] if others else lines


def _effort(summary: dict[str, Any]) -> str:
    rungs = " → ".join(f"{rung['candidates']} × {counted(rung['epochs'], 'epoch')}" for rung in summary["rungs"])
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in summary["seconds"].items())
    ranked = f"{summary['evaluated']} of {summary['candidates']} ranked"
    diverged = f", {summary['diverged']} of them diverged" if summary["diverged"] else ""
    ended = f"; the time budget ended the ranking, {summary['not_reached']} not reached (--resume goes on)"
    return f"{ranked}{diverged} ({rungs}){ended if summary['budget_spent'] else ''}; {times}"
