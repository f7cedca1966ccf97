"""Where a command that can be resumed writes, and what it says when it is interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from nasproxy.cli.output import command_to_go_on, say_how_to_go_on
from nasproxy.errors import NasproxyError
from nasproxy.search.last_words import worded


@contextlib.contextmanager
def run_folder(out: Path | None, space: str, ranked_by: str, *, resume: bool) -> Iterator[Path | None]:
    """The run directory: ``out``, or a new one; interrupted, the command that goes on with the run is printed.

    An error after which ``--resume`` goes on says so of a directory that the user has not named by the whole command.
    None where ``--resume`` has no ``--out``: there is nothing to go on with, and the search says so.
    """
    from nasproxy.search.run_directory import new_directory

    found = contextlib.nullcontext(out) if out is not None or resume else new_directory(space, ranked_by)
    with found as directory, saying_how_to_resume(directory):
        unnamed = directory if out is None else None
        try:
            with worded(lambda tell: lambda error: tell(_naming(unnamed, error))):
                yield directory
        except NasproxyError as error:
            _naming(unnamed, error)
            raise


def _naming(directory: Path | None, error: NasproxyError) -> NasproxyError:
    """The error, with the command that goes on with the run in ``directory`` if it speaks of one."""
    if directory is not None and "--resume" in error.hint and (directory / "run.json").exists():
        error.hint += f" The run is in {directory}: {command_to_go_on(directory)}"
    return error


@contextlib.contextmanager
def saying_how_to_resume(directory: Path | None) -> Iterator[None]:
    """Prints, if the body is interrupted, the command that goes on with the run in ``directory``, if it has begun."""
    try:
        yield
    except KeyboardInterrupt:
        if directory is not None and (directory / "run.json").exists():
            say_how_to_go_on(directory)
        raise
