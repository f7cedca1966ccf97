"""The run directory: one run, one writer at a time, everything about it in one place."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from nasproxy.datasets.catalogue import available_datasets
from nasproxy.errors import RunError, WriteError
from nasproxy.files import facts_of, make_folder, write_json
from nasproxy.lock import held


def default_directory(space: str, proxy: str) -> Path:
    """``runs/<date>-<space>-<proxy>``, with a number behind it where that is taken."""
    return next(path for path in _default_directories(space, proxy) if not path.exists())


@contextlib.contextmanager
def new_directory(space: str, proxy: str) -> Iterator[Path]:
    """The default directory, made, so that no other process takes it; one that nothing was written to goes again.

    Raises:
        WriteError: it cannot be made.
    """
    directory = next(path for path in _default_directories(space, proxy) if _is_claimed(path))
    try:
        yield directory
    finally:
        with contextlib.suppress(OSError):  # they are not empty
            directory.rmdir()
            directory.parent.rmdir()


def _default_directories(space: str, proxy: str) -> Iterator[Path]:
    base = Path("runs") / f"{date.today().isoformat()}-{_plain(space)}-{_plain(proxy)}"
    yield base
    yield from (base.with_name(f"{base.name}-{number}") for number in itertools.count(2))


def _is_claimed(path: Path) -> bool:
    """Whether this call has made the folder."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise WriteError(f"{path} could not be made: {error.strerror}.", "Choose another --out.") from error
    return True


@contextlib.contextmanager
def open_run(directory: Path, facts: Mapping[str, Any], *, resume: bool) -> Iterator[Path]:
    """Opens or makes the directory of a run and holds it against other processes.

    Args:
        directory: of the run; made if it is not there.
        facts: the content of ``run.json``; ``facts["identity"]`` decides whether a run that is there is the same.
        resume: go on with a run that is there, if it is the same.

    Raises:
        RunError: the directory holds something else, another run, a run not to be resumed, or is in use.
        WriteError: it cannot be made; one that is raised within the run gets a hint at ``--resume`` too.
    """
    check_run(directory, facts["identity"], resume=resume)
    make_folder(directory)
    with _lock(directory):
        # Between the check above and the lock another process may have begun the run.
        check_run(directory, facts["identity"], resume=resume)
        if not (directory / "run.json").exists():
            write_json(directory / "run.json", facts)
        try:
            yield directory
        except WriteError as error:
            # Whoever writes a file need not know that it is a run's.
            if "--resume" not in error.hint:
                error.hint = f"{error.hint} Go on with --resume; nothing that was measured before is lost.".lstrip()
            raise


def check_unused(directory: Path) -> None:
    """Makes sure that no process works in ``directory`` at the moment; called early by commands that will work in it.

    Raises:
        RunError: one does, or the directory cannot be looked at.
        WriteError: the directory cannot be written.
    """
    with _looking_at(directory):
        has_lock = (directory / ".lock").exists()
    if has_lock:
        with _lock(directory):
            pass


@contextlib.contextmanager
def _looking_at(directory: Path) -> Iterator[None]:
    """Has what the system refuses told as an error that names the directory."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{directory} cannot be looked at: {error.strerror}.", "Choose another --out.") from error


def _lock(directory: Path) -> contextlib.AbstractContextManager[None]:
    busy = RunError(f"Another process is working in {directory}.", "Wait for it, or choose another --out.")
    return held(directory / ".lock", busy)


NO_WINNER = "finalists/config.json"
"""What describes a run's finalists where there is no winner with a description of its own."""


def weights_file(directory: Path, candidate_id: str, repeat: int) -> Path:
    """Where a run keeps what a finalist learnt on the whole data."""
    return directory / "finalists" / f"{candidate_id}-{repeat}.safetensors"


def how_to_resume(directory: Path) -> str:
    """The command that makes again what a search's directory lacks."""
    return f"nasproxy search --out {directory} --resume, and the options it was started with"


def token_of(directory: Path) -> str | None:
    """What the study of the run in ``directory`` knows it by; None where there is no run, or an older one."""
    token = facts_of(directory).get("token")
    return token if isinstance(token, str) else None


def check_run(directory: Path, identity: Mapping[str, Any], *, resume: bool) -> None:
    """Makes sure that a run may begin, or go on, in ``directory``; changes nothing.

    Raises:
        RunError: the directory cannot be looked at, or holds something else, another run, or a run not to be resumed.
    """
    file = directory / "run.json"
    with _looking_at(directory):
        is_folder, begun = directory.is_dir(), file.exists()
        is_file = directory.exists() and not is_folder
        is_used = is_folder and any(not path.name.startswith(".") for path in directory.iterdir())
    if is_file:
        raise RunError(f"{directory} is a file.", "Choose another --out.")
    if not begun:
        if is_used:
            raise RunError(f"{directory} holds files, but no run.", "Choose an empty or new --out.")
        return
    try:
        there = dict(json.loads(file.read_text(encoding="utf-8"))["identity"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} cannot be read: {error}.", "Choose another --out.") from error
    if not resume:
        raise RunError(f"{directory} already holds a run.", "Go on with it by --resume, or choose another --out.")
    wanted = json.loads(json.dumps(identity))
    # A comparison's has a sample, null by default, which a search's lacks; it has all that a search's has besides.
    if wanted and ("sample" in there) != ("sample" in wanted):
        raise RunError(
            f"{directory} holds {'a' if 'sample' in there else 'no'} comparison of proxies.", "Choose another --out."
        )
    differing = [name for name in wanted if there.get(name) != wanted[name]]
    if _is_same_folder(there, wanted) and "dataset" in differing:
        differing.remove("dataset")
    if differing:
        edited = {*differing} <= {*_CONTENT, "choices"}
        how = "Bring back what was changed" if edited else "Repeat the options it was started with"
        raise RunError(
            f"{directory} holds a different run: "
            + "; ".join(_difference(name, there.get(name), wanted[name]) for name in differing)
            + ".",
            f"{how}, or choose another --out.",
        )


def _is_same_folder(was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether both datasets are folders of the same content, however their paths are written, and from where."""
    named = {info.name for info in available_datasets()}
    folders = all(isinstance(name := one.get("dataset"), str) and name not in named for one in (was, now))
    return folders and was.get("fingerprint") is not None and was.get("fingerprint") == now.get("fingerprint")


_CONTENT = {
    "space_text": "the code of the search space",
    "fingerprint": "the images, labels or split of the dataset",
    "proxy_fingerprint": "the images or labels of the proxy file",
}
"""What an identity keeps a hash of."""


def _difference(name: str, was: object, now: object) -> str:
    if name in _CONTENT:
        return f"{_CONTENT[name]} ({name}) changed since"
    return f"{name} was {was!r}, now {now!r}"


def check_kept(directory: Path, *, study: bool) -> None:
    """Makes sure that the study of a run that has had results is there.

    Args:
        directory: of the run.
        study: whether its study is there and holds anything.

    Raises:
        RunError: the run would begin anew, and put what it comes to in place of what is there.
    """
    if not study and (evidence := _had_results(directory)) is not None:
        raise RunError(
            f"The study of this run is missing or empty, but {evidence} shows that there were results.",
            "Put the study back from a copy, or start again in another --out.",
        )


def _had_results(directory: Path) -> Path | None:
    """What shows that a run has had results; None where nothing does."""
    if any((directory / "finalists").glob("*.safetensors")):
        return directory / "finalists"
    file = directory / "results.csv"
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            scored = any(row.get("proxy_accuracy") for row in csv.DictReader(lines))
    except (OSError, ValueError, csv.Error):
        return None
    return file if scored else None


def _plain(name: str) -> str:
    stem = Path(name.split(":")[0]).stem
    return "".join(c if c.isalnum() else "-" for c in stem)[:40] or "run"
