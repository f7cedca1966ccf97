"""``nasproxy datasets``: what ``--dataset`` can name, and what is in a dataset of one's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from nasproxy.cli.options import DataDir, ImageSize, Json, parse_image_size
from nasproxy.cli.output import plain_table, print_json, stdout
from nasproxy.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from nasproxy.datasets.check import DatasetFindings

_MOST_CLASSES, _MOST_PROBLEMS, _MOST_EXAMPLES = 30, 20, 5  # on the screen; --json has all

app = typer.Typer(no_args_is_help=True, help="Datasets with a name, and a look at one's own.")


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the datasets with a name; a folder of images or of Parquet files works too."""
    from nasproxy.datasets.catalogue import available_datasets

    known = available_datasets()
    if as_json:
        print_json({"schema": 1, "datasets": [asdict(info) for info in known]})
        return
    table = plain_table("Name", "What", "Download")
    for info in known:
        table.add_row(info.name, info.description, "yes" if info.needs_download else "no")
    stdout().print(table)


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="A folder of images or Parquet files, or a name.")],
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    as_json: Json = False,
) -> int:
    """Look at every image: counts, sizes, broken files, duplicates, memory, and what would be made of it.

    Exit code 1 where images are broken or training would be refused, 2 where it is no dataset at all.
    """
    from nasproxy.datasets.check import check_dataset

    found = check_dataset(dataset, data_dir=data_dir, image_size=parse_image_size(image_size))
    if as_json:
        print_json(_document(found))
    else:
        _show(found, stdout())
    return 1 if found.problems else 0


def _document(found: DatasetFindings) -> dict[str, Any]:
    used = found.dataset
    return {
        "schema": 1,
        "dataset": found.name,
        "ok": not found.problems,
        "classes": [
            {"name": name, **{part: counts[label] for part, counts in found.counts.items()}}
            for label, name in enumerate(found.class_names)
        ],
        "images": {part: sum(counts) for part, counts in found.counts.items()},
        "imbalance": found.imbalance,
        "sizes": [{"height": h, "width": w, "images": n} for (h, w), n in found.survey.sizes.most_common()],
        "modes": dict(found.survey.modes.most_common()),
        "broken": [
            {"part": part, "name": failure.name, "reason": failure.reason}
            for part, failures in found.broken.items()
            for failure in failures
        ],
        "duplicates": {
            "compared": _compared(found),
            "within": dict(found.duplicates.within),
            "between": {" and ".join(pair): count for pair, count in found.duplicates.between.items()},
            "conflicting_labels": found.duplicates.conflicting,
            "examples": [list(group) for group in found.examples],
        },
        "memory_bytes": {"uint8": found.pixels, "float32": 4 * found.pixels},
        "used_as": None
        if used is None
        else {
            "image_size": list(used.image_size),
            "channels": used.channels,
            "train": len(used.train),
            "validation": len(used.validation),
            "test": len(used.test),
        },
        "notes": list(found.notes),
        "problems": found.problems,
    }


def _show(found: DatasetFindings, console: Console) -> None:
    console.print(f"[bold]{escape(found.name)}[/], {len(found.class_names)} classes")
    console.print(_class_table(found))
    facts = plain_table("", "")
    for name, text in _facts(found).items():
        facts.add_row(name, escape(text))
    console.print()
    console.print(facts)
    for group in found.examples[:_MOST_EXAMPLES]:
        more = ", …" if len(group) > _MOST_EXAMPLES else ""
        console.print(f"  the same: {escape(', '.join(group[:_MOST_EXAMPLES]))}{more}")
    for note in [*found.notes, *_warnings(found)]:
        console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)
    for problem in found.problems[:_MOST_PROBLEMS]:
        console.print(f"[red]✗[/] {escape(problem)}", soft_wrap=True)
    if len(found.problems) > _MOST_PROBLEMS:
        console.print(f"[red]✗[/] {len(found.problems) - _MOST_PROBLEMS:,} more; --json lists all")
    if found.broken and found.dataset is not None:
        console.print("  Repair or remove them; the other commands leave them out with --skip-broken.")
    if not found.problems:
        console.print("[green]✓ nothing is broken[/]")


def _class_table(found: DatasetFindings) -> Any:
    table = plain_table("Class", *(part.capitalize() for part in found.counts), right=("Train", "Validation", "Test"))
    rows = [(name, *row) for name, *row in zip(found.class_names, *found.counts.values(), strict=True)]
    shown = rows
    if len(rows) > _MOST_CLASSES:
        by_size = sorted(rows, key=lambda row: -row[1])
        shown = [*by_size[: _MOST_CLASSES // 2], *by_size[-_MOST_CLASSES // 2 :]]
    for place, (name, *counts) in enumerate(shown):
        if len(rows) > _MOST_CLASSES and place == _MOST_CLASSES // 2:
            table.add_row(f"… {len(rows) - _MOST_CLASSES:,} classes between, by number of training images")
        table.add_row(escape(name), *(f"{count:,}" for count in counts))
    table.add_row("[bold]all[/]", *(f"[bold]{sum(counts):,}[/]" for counts in found.counts.values()))
    return table


def _facts(found: DatasetFindings) -> dict[str, str]:
    copies = found.duplicates
    pairs = {f"in {second} that {first} has too": count for (first, second), count in copies.between.items()}
    repeats = {f"again in {part}": count for part, count in copies.within.items()}
    told = [f"{count:,} {what}" for what, count in {**pairs, **repeats}.items() if count]
    used = found.dataset
    return {
        "sizes": _sizes(found),
        "channels": f"{found.survey.channels}, from {_modes(found)}" if found.survey.modes else "none",
        "broken": f"{sum(map(len, found.broken.values())):,}",
        "duplicates": f"{', '.join(told) or 'none'} ({_compared(found)})",
        "imbalance": "a class has no images"
        if found.imbalance is None
        else f"the largest class has {found.imbalance:.1f} times the images of the smallest",
        "memory": f"{_size(found.pixels)} as uint8, {_size(4 * found.pixels)} as float32 on the device",
        "used as": "cannot be used"
        if used is None
        else f"{used.image_size[0]}x{used.image_size[1]}, {counted(used.channels, 'channel')}: "
        f"{len(used.train):,} train, {len(used.validation):,} validation, {len(used.test):,} test",
    }


def _warnings(found: DatasetFindings) -> list[str]:
    copies = found.duplicates
    leaked = sum(count for (_, second), count in copies.between.items() if second != "train")
    told = []
    if leaked:
        told.append(f"Held-out images that another part has as well: {leaked:,}. Accuracies will be too high.")
    if copies.conflicting:
        told.append(f"Pictures under two labels or more: {copies.conflicting:,}.")
    return told


def _compared(found: DatasetFindings) -> str:
    return f"all pixels equal at {found.size[0]}x{found.size[1]}"


def _modes(found: DatasetFindings) -> str:
    return ", ".join(f"{mode} ({count:,})" for mode, count in found.survey.modes.most_common())


def _sizes(found: DatasetFindings) -> str:
    sizes = sorted(found.survey.sizes, key=lambda size: (size[0] * size[1], size))
    if not sizes:
        return "none"
    (smallest, largest), often = (sizes[0], sizes[-1]), found.survey.sizes.most_common(1)[0]
    text = f"{smallest[0]}x{smallest[1]}"
    if len(sizes) > 1:
        text = f"{len(sizes):,}, from {text} to {largest[0]}x{largest[1]}; most often {often[0][0]}x{often[0][1]} "
        text += f"({often[1]:,})"
    return f"{text} (height x width)"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
