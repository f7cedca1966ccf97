"""``nasproxy compare``: every proxy side by side, and how far each can be trusted."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from nasproxy.cli.completion import several_proxies, space_names
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
    ThreadsPerWorker,
    Workers,
    parse_image_size,
)
from nasproxy.cli.output import Row, print_json, print_rows, stdout
from nasproxy.cli.run_folder import run_folder
from nasproxy.cli.screen import open_screen
from nasproxy.compare.settings import DEFAULT_PROXIES, CompareSettings, asked_before
from nasproxy.errors import InputError
from nasproxy.search.settings import SearchSettings

PROXIES = "Proxies and space"
_D = SearchSettings()


class CompareCommand(TyperCommand):
    """Hands over a ``typer.Context``: what typer makes by itself is of a base class of the type that it asks for."""

    context_class = typer.Context


def compare(
    context: typer.Context,
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
            rich_help_panel=PROXIES,
        ),
    ] = _D.space,
    proxies: Annotated[
        str | None,
        typer.Option(
            help="With commas between them: methods that make images, proxy files, early-stopping, scores without"
            " training, whole; a+b is the mixture of two, a+a of two independent trainings. With --resume others may be"
            " named than before: what is scored is kept.",
            show_default=f"{','.join(DEFAULT_PROXIES)}; of a resumed comparison its own",
            autocompletion=several_proxies,
            rich_help_panel=PROXIES,
        ),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="quick (a stratified sample of 30 candidates) or paper (all, as in the paper).",
            rich_help_panel=PROXIES,
        ),
    ] = _D.preset,
    ipc: Annotated[int, typer.Option(help="Images per class of a proxy.", rich_help_panel=PROXIES)] = _D.ipc,
    soft_labels: Annotated[
        bool,
        typer.Option("--soft-labels", help=f"{SOFT_LABELS} Of every proxy with images.", rich_help_panel=PROXIES),
    ] = _D.soft_labels,
    limit: Annotated[
        int | None,
        typer.Option(
            help=f"Compare on a seeded, stratified sample of N candidates{FEWER}.",
            show_default="30; paper all",
            rich_help_panel=PROXIES,
        ),
    ] = None,
    max_parameters: Annotated[
        int | None, typer.Option(help="Leave out larger candidates.", rich_help_panel=PROXIES)
    ] = None,
    max_multiply_adds: Annotated[
        int | None, typer.Option(help="Leave out candidates that take more for an image.", rich_help_panel=PROXIES)
    ] = None,
    epochs: Annotated[int, typer.Option(help="Epochs on a proxy's images.", rich_help_panel=RANK)] = _D.epochs,
    learning_rate: LearningRate = _D.learning_rate,
    augmentation: ProxyAugmentation = _D.augmentation,
    norm_statistics: NormStatistics = _D.norm_statistics,
    repeats: Repeats = None,
    top_k: Annotated[
        int, typer.Option(help="Best of each proxy, trained on the whole data.", rich_help_panel=WHOLE)
    ] = _D.top_k,
    sample: Annotated[
        int | None,
        typer.Option(
            help="Random candidates trained on the whole data beside them, for the overall figures.",
            show_default="40, or all",
            rich_help_panel=WHOLE,
        ),
    ] = None,
    finalist_epochs: FinalistEpochs = None,
    finalist_learning_rate: FinalistLearningRate = _D.finalist_learning_rate,
    finalist_batch_size: FinalistBatchSize = None,
    finalist_augmentation: FinalistAugmentation = _D.finalist_augmentation,
    executor: Executor = _D.executor,
    workers: Workers = None,
    threads_per_worker: ThreadsPerWorker = _D.threads_per_worker,
    gpus_per_worker: GpusPerWorker = _D.gpus_per_worker,
    address: Annotated[
        str | None,
        typer.Option(help="Join a running Ray cluster.", show_default="a Ray of its own", rich_help_panel=RUN),
    ] = None,
    device: Device = _D.device,
    precision: Precision = _D.precision,
    seed: Annotated[int, typer.Option(help="Of proxies, samples and trainings.", rich_help_panel=RUN)] = _D.seed,
    out: Annotated[
        Path | None,
        typer.Option(help="Run directory.", show_default="runs/<date>-<space>-compare", rich_help_panel=RUN),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the comparison in --out, or start it.", rich_help_panel=RUN)
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Draw table, figures and report anew from scores.csv, or its folder, without training; written"
            " to --out if that is given.",
            rich_help_panel=RUN,
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Rank the same candidates by every proxy, and measure how far each ranking can be trusted."""
    given = dict(locals())
    if from_ is not None:
        _check_alone(context)
        return _redraw(from_, out, as_json=as_json)
    before = asked_before(out) if resume and out is not None else None
    settings = _settings(given, _names(proxies) if proxies is not None else before or DEFAULT_PROXIES)
    with run_folder(out, space, "compare", resume=resume) as directory, open_screen() as screen:
        from nasproxy.compare.run import run_compare

        settings = replace(settings, search=replace(settings.search, out=directory))
        result = run_compare(settings, resume=resume, progress=screen)
    _show(result.document, as_json=as_json)
    return 1 if result.failed else 0


def _settings(given: dict[str, Any], proxies: tuple[str, ...]) -> CompareSettings:
    apart = ("context", "proxies", "sample", "resume", "from_", "as_json", "image_size")
    options = {name: value for name, value in given.items() if name not in apart}
    search = SearchSettings(**options, image_size=parse_image_size(given["image_size"]), scheduler="none")
    return CompareSettings(search, proxies, given["sample"])


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_alone(context: typer.Context) -> None:
    """Makes sure that nothing was said beside ``--from`` that would have no effect.

    Raises:
        InputError: something was.
    """
    asked = [param for param in context.command.params if param.name and _is_said(context, param.name)]
    if names := [param.opts[0] for param in asked if param.name not in ("from_", "out", "as_json")]:
        raise InputError(
            f"--from only draws what was measured, so {', '.join(names)} would have no effect.",
            f"Leave out {', '.join(names)}; beside --from there may be --out and --json.",
        )


def _is_said(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _redraw(path: Path, out: Path | None, *, as_json: bool) -> int:
    from nasproxy.compare.report import write_comparison
    from nasproxy.compare.scores import load_scores
    from nasproxy.compare.table import compare_scores

    folder = path if path.is_dir() else path.parent
    scores = load_scores(path)
    document = {**compare_scores(scores), "run": str(out or folder)}
    if out is not None:
        _check_replaceable(out, folder)
        write_comparison(out, scores, document, folder)
    _show(document, as_json=as_json)
    return 0


def _check_replaceable(out: Path, source: Path) -> None:
    """Makes sure that drawing overwrites nothing but what ``--from`` drew before, or the comparison itself."""
    ours = (out / "comparison.json").exists() and not (out / "run.json").exists()
    if ours or not out.exists() or (out.is_dir() and (not any(out.iterdir()) or out.samefile(source))):
        return
    raise InputError(
        f"{out} holds other things, some of which would be overwritten.", "Choose a new or an empty folder by --out."
    )


def _show(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    from nasproxy.compare.write import table_cells

    head, rows = table_cells(document)
    print_rows(head, [Row(cells) for cells in rows], right=head[1:])
    console = stdout()
    for row in document["rows"]:
        if row["reason"]:
            console.print(f"\n[bold]{escape(row['proxy'])}[/]  {escape(row['reason'])}")
    for paragraph in document["text"]:
        # Not by rich, which would break lines at no-break spaces.
        console.print(f"\n{escape(textwrap.fill(paragraph, console.width))}", soft_wrap=True)
    patterns = ("report.html", "figures/*", "comparison.*", "scores.csv")
    if files := [pattern for pattern in patterns if any(Path(document["run"]).glob(pattern))]:
        console.print(f"\n[bold]Files[/]  {escape(document['run'])}: {', '.join(files)}", soft_wrap=True)
