"""Where files are kept, and how they are written so that no reader ever meets half of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from nasproxy.errors import WriteError


def write_atomically(path: Path, content: bytes) -> Path:
    """Writes beside ``path``, then renames: a reader sees the old file or the whole new one; returns the path.

    Raises:
        WriteError: the disk is full, the folder missing or not writable.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            beside.write_bytes(content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(
            f"{path} could not be written: {error.strerror or error}.", "Free some space, or write to another folder."
        ) from error
    return path


def make_folder(path: Path) -> Path:
    """Makes a folder and those above it, unless it is there; returns it.

    Raises:
        WriteError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{path} could not be made: {error.strerror}.", "Choose another folder.") from error
    return path


def cache_folder() -> Path:
    """Where proxies and downloaded datasets are kept: ``NASPROXY_CACHE``, or the user's cache folder."""
    named = os.environ.get("NASPROXY_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("nasproxy", appauthor=False))


def cached_file(room: str, name: str, facts: Mapping[str, Any]) -> Path:
    """Where the cache keeps what ``facts`` decide.

    Args:
        room: a folder of the cache.
        name: how the file's name begins.
        facts: all that the content depends on; JSON values.
    """
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()
    return cache_folder() / room / f"{name}-{digest}.safetensors"
