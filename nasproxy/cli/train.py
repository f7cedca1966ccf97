"""``nasproxy train``: a finalist, trained further on the whole data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from nasproxy.cli.options import DATA, RUN, DataDir, Device, Json, Precision, Rank, RunSpace, Tensorboard, Threads
from nasproxy.cli.output import plain_table, print_json, say_how_to_see_curves, stdout
from nasproxy.cli.run_folder import saying_how_to_resume
from nasproxy.cli.screen import open_screen
from nasproxy.text import counted, duration, percent

TRAINING = "Training"


def train(
    run: Annotated[Path, typer.Argument(help="The directory of a finished search.")],
    rank: Rank = None,
    *,
    epochs: Annotated[int, typer.Option(help="Epochs on the whole data.", rich_help_panel=TRAINING)],
    learning_rate: Annotated[
        float, typer.Option(help="Of the first half; a tenth of it in the second.", rich_help_panel=TRAINING)
    ] = 0.01,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images a step.", show_default="a sixteenth of the images, 16 to 256", rich_help_panel=TRAINING
        ),
    ] = None,
    augmentation: Annotated[str, typer.Option(help="none, crop, or crop-flip.", rich_help_panel=TRAINING)] = "none",
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin with fresh weights, not the search's.", rich_help_panel=TRAINING)
    ] = False,
    seed: Annotated[int, typer.Option(help="Of order, augmentation and fresh weights.", rich_help_panel=TRAINING)] = 0,
    tensorboard: Tensorboard = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Where the search's dataset is now.", show_default="where the search found it", rich_help_panel=DATA
        ),
    ] = None,
    data_dir: DataDir = None,
    space: RunSpace = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write.", show_default="RUN/trained/<id>", rich_help_panel=RUN)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish the training in --out, or begin it.", rich_help_panel=RUN)
    ] = False,
    as_json: Json = False,
) -> int:
    """Train the winner, or another finalist, further on the whole dataset."""
    from nasproxy.finalists.further import FurtherSettings, train_further
    from nasproxy.finalists.load import load_finalist

    settings = FurtherSettings(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        augmentation=augmentation,
        anew=anew,
        seed=seed,
        device=device,
        precision=precision,
        threads=threads,
        tensorboard=tensorboard,
        dataset=dataset,
        data_dir=data_dir,
    )
    finalist = load_finalist(run, rank, space)
    directory = out or run / "trained" / finalist.description.id
    with saying_how_to_resume(directory), open_screen() as screen:
        summary = train_further(finalist, settings, directory, resume=resume, progress=screen)
    if as_json:
        print_json(summary)
    else:
        _print(summary)
    return 1 if summary["diverged"] else 0


def _print(summary: dict[str, Any]) -> None:
    table = plain_table("Weights", "Epoch", "Validation", "Test", right=("Epoch", "Validation", "Test"))
    before = summary["before"]
    table.add_row("search", "\N{EN DASH}", percent(before["whole_accuracy"]), percent(before["test_accuracy"]))
    for name in ("best", "last"):
        row = summary[name]
        table.add_row(name, str(row["epoch"]), percent(row["validation_accuracy"]), percent(row["test_accuracy"]))
    console = stdout()
    console.print(table)
    console.print(
        f"\n{summary['id']}, {counted(summary['epochs'], 'epoch')} in {duration(summary['seconds'])};"
        " best by validation"
    )
    console.print(f"[bold]Files[/]  {escape(summary['out'])}: best/, last/, curves.csv, curves.png", soft_wrap=True)
    say_how_to_see_curves(Path(summary["out"]))
