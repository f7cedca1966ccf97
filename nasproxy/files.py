"""Where files are kept, how they are written so that no reader ever meets half of one, and how they are read back."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

from nasproxy.errors import InputError, WriteError


def write_atomically(path: Path, content: bytes) -> Path:
    """Writes beside ``path``, then renames: a reader sees the old file or the whole new one; returns the path.

    So does whoever comes after a power cut: the content is on the disk before it has the name, and the name is too when
    this returns.

    Raises:
        WriteError: the disk is full, the folder missing or not writable.
    """
    with replacing(path) as file:
        file.write(content)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` to write piece by piece, which is then renamed, as :func:`write_atomically` does.

    If the body raises, nothing is left of it.

    Raises:
        WriteError: the disk is full, the folder missing or not writable.
    """
    # Hosts that share a disk may have processes of one number. A file of tempfile's would be its owner's alone.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            with beside.open("xb") as file:
                yield file
            rename_durably(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path} could not be written: {error.strerror or error}.",
            way_out(path, "Free some space, or write to another folder."),
        ) from error


def rename_durably(written: Path, path: Path) -> None:
    """Puts a file, or a folder of files, in the place of ``path``, once all of it is on the disk.

    Raises:
        OSError: the disk is full, or broken.
    """
    for part in (*(written.iterdir() if written.is_dir() else ()), written):
        flush(part)
    written.replace(path)
    with contextlib.suppress(OSError):  # the file is in its place, and some network disks know no more of folders
        flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """A file's text.

    Raises:
        ValueError: why it cannot be read.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8 text") from error
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from error


def facts_of(directory: Path, name: str = "run.json") -> dict[str, Any]:
    """A JSON document of a run; empty where there is none that can be read."""
    try:
        return dict(json.loads((directory / name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):  # the last of arrays within arrays without end
        return {}


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a CSV file, its header the first.

    Raises:
        ValueError: why it cannot be read.
    """
    text = read_text(path)
    if not text.endswith("\n"):
        raise ValueError("it is empty or truncated: its last line does not end")
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(f"it is not a CSV file ({error})") from error


def make_folder(path: Path) -> Path:
    """Makes a folder and those above it, unless it is there; returns it.

    Raises:
        WriteError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path} could not be made: {error.strerror}.", way_out(path, "Choose another folder.")
        ) from error
    return path


def cache_folder() -> Path:
    """Where proxies and downloaded datasets are kept: ``NASPROXY_CACHE``, or the user's cache folder.

    Raises:
        InputError: ``NASPROXY_CACHE`` begins with the home of a user who has none.
    """
    named = os.environ.get("NASPROXY_CACHE")
    try:
        return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("nasproxy", appauthor=False))
    except RuntimeError as error:
        raise InputError(f"NASPROXY_CACHE is {named}: {error}", "Write the folder's whole path.") from error


def way_out(path: Path, otherwise: str) -> str:
    """What to do where ``path`` cannot be written: of the cache, which no option names, how to put it elsewhere."""
    with contextlib.suppress(InputError):
        if path.is_relative_to(cache_folder()):
            return "Free some space, or set NASPROXY_CACHE to a folder that can be written."
    return otherwise


def cached_file(room: str, name: str, facts: Mapping[str, Any]) -> Path:
    """Where the cache keeps what ``facts`` decide.

    Args:
        room: a folder of the cache.
        name: how the file's name begins.
        facts: all that the content depends on; JSON values.
    """
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()
    return cache_folder() / room / f"{name}-{digest}.safetensors"


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV, the header the first of them; None is an empty field."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Writes one JSON document, atomically."""
    return write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
