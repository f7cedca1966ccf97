"""``nasproxy spaces``: what ``--space`` can name, and whether a space of one's own works."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from nasproxy.cli.completion import space_names
from nasproxy.cli.options import Json, parse_image_size
from nasproxy.cli.output import plain_table, print_json, stdout
from nasproxy.text import count, counted

if TYPE_CHECKING:
    from nasproxy.spaces.check import SpaceReport

app = typer.Typer(no_args_is_help=True, help="Search spaces.")
Spec = Annotated[
    str,
    typer.Argument(
        help="A registered name, package.module:attribute, or file.py[:attribute].", autocompletion=space_names
    ),
]


@app.command("list")
def list_spaces(as_json: Json = False) -> None:
    """List the registered search spaces."""
    from nasproxy.spaces.source import registered_spaces

    registered = registered_spaces()
    broken = {name: reason for name, packages in registered.items() if (reason := _why_not_loaded(name, packages))}
    if as_json:
        spaces = [
            {"name": name, "package": package} | ({"error": broken[name]} if name in broken else {})
            for name, packages in registered.items()
            for package in packages
        ]
        print_json({"schema": 1, "spaces": spaces})
        return
    table = plain_table("Name", "Package", "")
    for name, packages in registered.items():
        for package in packages:
            others = " and ".join(other for other in packages if other != package)
            mark = f"[yellow]ambiguous: {escape(others)} has it too; uninstall one[/]" if others else ""
            if name in broken:
                mark = f"[red]cannot be loaded: {escape(broken[name])}[/]"
            table.add_row(escape(name), escape(package), mark)
    stdout().print(table)


def _why_not_loaded(name: str, packages: Collection[str]) -> str | None:
    """What is wrong with a registered space; None where nothing is, or where the name does not say which it is."""
    from nasproxy.errors import SpaceError
    from nasproxy.spaces.source import SpaceSource

    if len(packages) > 1 or "nasproxy" in packages:  # its own can be loaded, but only together with torch
        return None
    try:
        SpaceSource.parse(name).load()
    except SpaceError as error:
        return error.message
    return None


@app.command()
def show(space: Spec, as_json: Json = False) -> None:
    """Show a search space's choices."""
    from nasproxy.spaces.source import SpaceSource

    loaded = SpaceSource.parse(space).load()
    choices = {name: list(values) for name, values in loaded.choices.items()}
    if as_json:
        print_json({"schema": 1, "name": loaded.name, "size": len(loaded), "choices": choices})
        return
    table = plain_table("Choice", "Values")
    for name, values in choices.items():
        table.add_row(escape(name), escape(", ".join(map(str, values))))
    console = stdout()
    console.print(f"[bold]{escape(loaded.name)}[/], {len(loaded):,} candidates")
    console.print(table)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the space and its file: letters, digits and '_'.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")] = Path(),
    as_json: Json = False,
) -> None:
    """Write a search space to start from, commented, with its test; overwrites nothing."""
    from nasproxy.spaces.template import write_space

    file, test = write_space(name, out)
    if as_json:
        print_json({"schema": 1, "space": str(file), "test": str(test)})
        return
    console = stdout()
    console.print(f"Wrote [bold]{escape(str(file))}[/] and {escape(str(test))}. Next:")
    for command in (f"nasproxy spaces check {file}", f"pytest {test}", f"nasproxy search --space {file} --limit 20"):
        console.print(f"  {escape(command)}")


@app.command()
def check(
    space: Spec,
    image_size: Annotated[str, typer.Option(help="N or HEIGHTxWIDTH pixels.")] = "16",
    channels: Annotated[int, typer.Option(help="Channels of an image.")] = 1,
    classes: Annotated[int, typer.Option(help="Classes.")] = 10,
    sample: Annotated[int, typer.Option(help="Candidates to build and train a step.")] = 20,
    as_json: Json = False,
) -> int:
    """Build a sample of candidates, run each forward and backward, and report what is wrong."""
    from nasproxy.errors import InputError
    from nasproxy.spaces.check import check_space
    from nasproxy.spaces.source import SpaceSource

    for option, value in (("--channels", channels), ("--classes", classes), ("--sample", sample)):
        if value < 1:
            raise InputError(f"{option} must be 1 or more, got {value}.")
    size = parse_image_size(image_size)
    assert size is not None
    loaded = SpaceSource.parse(space).load()
    found = check_space(loaded, in_channels=channels, num_classes=classes, image_size=size, sample=sample)
    if as_json:
        print_json({"schema": 1, "name": loaded.name, **_document(found)})
    else:
        _show(found)
    return 0 if found.ok else 1


def _document(found: SpaceReport) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "candidates": found.candidates,
        "valid": found.valid,
        "invalid": dict(found.invalid),
        "compared": found.compared,
        "duplicates": found.duplicates,
        "tried": found.tried,
        "output_shape": found.output_shape,
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds,
        "seconds": found.seconds,
        "problems": list(found.problems),
    }


def _show(found: SpaceReport) -> None:
    table = plain_table("", "")
    table.add_row("candidates", f"{found.candidates:,}")
    table.add_row("valid", f"{found.valid:,} of {found.examined:,} looked at")
    for reason, number in found.invalid.items():
        table.add_row("", escape(f"{number:,} invalid: {reason}"))
    if found.compared:
        table.add_row("duplicates", f"{found.duplicates or 'none'} among the {found.compared} compared")
    table.add_row("trained a step", str(found.tried))
    if found.output_shape is not None:
        table.add_row("output", f"{found.output_shape[0]} images → {found.output_shape}")
    if found.parameters is not None:
        table.add_row("parameters", _range(*found.parameters))
    if found.multiply_adds is not None:
        table.add_row("multiply-adds", _range(*found.multiply_adds))
    if found.seconds is not None:
        table.add_row("a step of four images", f"{1000 * found.seconds:.1f} ms")
    console = stdout()
    console.print(table)
    for problem in found.problems:
        console.print(f"[red]✗[/] {escape(problem)}")
    problems = f"[red]{counted(len(found.problems), 'problem')}[/]"
    console.print("[green]✓ nothing wrong found[/]" if found.ok else problems)


def _range(fewest: int, most: int) -> str:
    return f"{count(fewest)} to {count(most)}"
