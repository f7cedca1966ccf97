"""Which code builds the networks of a finished run, and whether its user has run that code before.

A run directory may come from anybody, so what it names is not run for that: a registered space is an installed
package's; any other must have been named by ``--space`` before, by this user. The cache keeps where it was found then.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nasproxy.errors import RunError, SpaceError
from nasproxy.files import cache_folder, make_folder, write_atomically
from nasproxy.spaces.source import SpaceSource, registered_spaces


def text_digest(source: SpaceSource) -> str:
    """What ``run.json`` keeps of a space's code: a hash of its file's text, or of none where a package registers it."""
    code = "" if source.kind == "registered" else source.code  # a package's next version does not end its runs
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def remember_space(spec: str, source: SpaceSource) -> None:
    """Notes in the cache that the user has named ``source`` by ``spec``, and where it was.

    Raises:
        WriteError: the cache cannot be written.
    """
    if source.kind == "registered":
        return
    file = _record(spec, text_digest(source))
    make_folder(file.parent)
    write_atomically(file, json.dumps({**asdict(source), "text": ""}).encode())


def space_of_run(run: Mapping[str, Any], directory: Path, given: str | None) -> SpaceSource:
    """The code that builds a run's networks, unchanged since the search; none of it is run yet.

    Args:
        run: ``run.json``.
        directory: of the run.
        given: ``--space``, or None.

    Raises:
        SpaceError: what was given is no space.
        RunError: nobody has named it here, or it is other code than the run's.
    """
    spec, digest = str(run["settings"]["space"]), str((run["identity"] or {}).get("space_text"))
    if given is None:
        source = SpaceSource.parse(spec) if spec in registered_spaces() else _recalled(spec, digest)
        if source is None:
            raise RunError(
                f"The networks of {directory} are built by {spec}, which was not used on this machine before.",
                f"Name the code to run it: --space {shlex.quote(spec)}",
            )
    else:
        source = SpaceSource.parse(given)
    if text_digest(source) != digest:
        raise RunError(
            f"{source} is not what built the networks of {directory}: the search used another text.",
            "Bring the file back as it was, or name it by --space.",
        )
    if given is not None:
        remember_space(spec, source)
    return source


def _recalled(spec: str, digest: str) -> SpaceSource | None:
    """The space where it was when the user named it; None if that never was."""
    try:
        known = SpaceSource(**json.loads(_record(spec, digest).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if known.kind == "module":
        return known
    try:
        return SpaceSource.parse(str(known))
    except SpaceError as error:
        raise RunError(error.message, f"Say where it is now: --space {shlex.quote(Path(known.name).name)}") from error


def _record(spec: str, digest: str) -> Path:
    name = hashlib.blake2b(json.dumps([spec, digest]).encode(), digest_size=12).hexdigest()
    return cache_folder() / "spaces" / f"{name}.json"
