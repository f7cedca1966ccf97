"""The entry point: commands, and what becomes of their errors."""

from __future__ import annotations

import contextlib
import errno
import io
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from nasproxy.cli import compare, condense, datasets, export, predict, proxy, report, search, spaces, train
from nasproxy.cli.output import json_line, nothing_but_json
from nasproxy.errors import NasproxyError
from nasproxy.interruption import end_if_signalled, heeding_signals, received
from nasproxy.search.last_words import worded
from nasproxy.versions import version_report

# Typer shows its own copy of click's exceptions only through this one.
_UsageError: Any = typer.BadParameter.__base__
_ClickException: Any = _UsageError.__base__
_INTERRUPTED = 130  # typer's code for a KeyboardInterrupt, whatever signal it was
_REFUSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)  # by the system, wherever a path is first looked at

app = typer.Typer(
    name="nasproxy",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find a good neural network by training every candidate on a tiny condensed proxy of your images.",
    epilog="Results go to stdout, all else to stderr. "
    "Exit codes: 0 success, 1 something failed, 2 wrong input, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM). "
    "Both keep what is finished and say how to go on; a second one ends at once.",
)
app.command()(search.search)
app.command(cls=compare.CompareCommand)(compare.compare)
app.command()(condense.condense)
app.command()(report.report)
app.command()(export.export)
app.command()(train.train)
app.command()(predict.predict)
app.add_typer(proxy.app, name="proxy")
app.add_typer(spaces.app, name="spaces")
app.add_typer(datasets.app, name="datasets")


def _print_version(asked: bool) -> bool:
    if asked:
        typer.echo(version_report())
        raise typer.Exit
    return asked


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the versions that belong into a bug report.",
            is_eager=True,
            callback=_print_version,
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with its code.

    As in a shell, a command that a signal ended has 128 and its number as its code: 130 for SIGINT (Ctrl-C), 143 for
    SIGTERM. The first of them keeps what is finished and says how to go on, the second ends the process at once.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal cannot show is no reason to stop
    with heeding_signals():
        code = _run(arguments)
        end_if_signalled(code)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    as_json = "--json" in words
    try:
        with (
            worded(lambda _: lambda error: _worded(error.kind, error.message, error.hint, as_json=as_json)),
            nothing_but_json() if as_json else contextlib.nullcontext(),
        ):
            code = app(args=words, prog_name="nasproxy", standalone_mode=False)
        if code == _INTERRUPTED:
            code = _report_interruption(as_json=as_json)
    except NasproxyError as error:
        if debug:
            raise
        code = _report(error.kind, error.message, error.hint, error.exit_code, as_json=as_json)
    except _ClickException as error:
        if debug:
            raise
        message = error.format_message()
        if not message:  # the help was printed instead
            return 2
        code = _report("usage", message, _usage_hint(error), 2, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = _report_interruption(as_json=as_json)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
            message, hint = f"{error.filename}: {error.strerror}.", "Name another path, or see to its permissions."
            return _report("input", message, hint, 2, as_json=as_json)
        what = f"{type(error).__name__}: {error}"
        hint = "This is a defect of nasproxy; run again with --debug and report the traceback."
        code = _report("internal", what, hint, 1, as_json=as_json)
    return code if isinstance(code, int) else 0


def _report_interruption(*, as_json: bool) -> int:
    number = received()
    message = "Terminated." if number == signal.SIGTERM else "Interrupted."
    return _report("interrupted", message, "", 128 + number, as_json=as_json)


def _usage_hint(error: Any) -> str:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "nasproxy"
    return f"See {command} --help."


def _report(kind: str, message: str, hint: str, code: int, *, as_json: bool) -> int:
    out, err = _worded(kind, message, hint, as_json=as_json)
    with contextlib.suppress(OSError):  # a full disk, say, which stderr can still tell of
        print(out, end="", flush=True)  # noqa: T201, what stdout is for
    print(err, end="", file=sys.stderr)  # noqa: T201
    return code


def _worded(kind: str, message: str, hint: str, *, as_json: bool) -> tuple[str, str]:
    """What an error puts on stdout, and what on stderr."""
    document = {"schema": 1, "error": {"kind": kind, "message": message, "hint": hint}}
    console = Console(stderr=True, soft_wrap=True)
    with console.capture() as captured:
        console.print("[bold red]Error:[/] ", end="")
        console.print(message, markup=False, highlight=False)
        if hint:
            console.print(f"  {hint}", markup=False, highlight=False, style="dim")
    return f"{json_line(document)}\n" if as_json else "", captured.get()
