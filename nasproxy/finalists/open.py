"""A trained network by the directory that holds it: a search's, or that of a training after it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasproxy.analysis.json_shape import TEXT, Maybe, Shape, parse_object
from nasproxy.errors import InputError, RunError
from nasproxy.finalists.checkpoint import read_checkpoint
from nasproxy.finalists.load import Finalist, load_finalist

_TRAINING: Shape = {"training": Maybe({"run": (str,)}), "identity": {"id": TEXT}}
_SUMMARY: Shape = {
    "best": {"validation_accuracy": (float, int), "test_accuracy": (float, int)},
    "further": (str,),
}


def open_finalist(directory: Path, rank: int | None = None, space: str | None = None) -> Finalist:
    """A finalist as the search in ``directory`` left it, or as a later training in ``directory`` made it.

    Args:
        directory: of a finished search, or one that ``nasproxy train`` wrote, whose best weights are taken.
        rank: of the search's finalists, see :func:`load_finalist`; a training has one network only.
        space: where the code that builds it is; None is where it was.

    Raises:
        InputError: there is no such rank.
        RunError: the directory is neither, is not finished, or a file in it is missing, broken or foreign; or the
            search has gone on, and what was trained is none of its finalists any more.
        SpaceError: the space cannot be loaded.
    """
    facts = _training(directory)
    if facts is None:
        return load_finalist(directory, rank, space)
    if rank is not None:
        raise InputError(
            f"{directory} holds one network, {facts['identity']['id']}; it takes no --rank.",
            "Leave it out, or give the search's directory.",
        )
    run = directory / facts["training"]["run"]
    best = _best(directory, run)
    # By its id: a search that has gone on since may rank it otherwise.
    found = load_finalist(run, space=space, candidate_id=str(facts["identity"]["id"]))
    scores = best["best"]
    trained = {"whole_accuracy": scores["validation_accuracy"], "test_accuracy": scores["test_accuracy"]}
    entry = {**found.entry, **trained}
    checkpoint = directory / "checkpoint.safetensors"
    if not checkpoint.exists():
        raise RunError(f"{checkpoint} is missing.", f"Train it again with: {_command(directory, run)}")
    weights = read_checkpoint(checkpoint).best
    return replace(
        found, entry=entry, description=found.description.of_entry(entry), weights=weights, further=best["further"]
    )


def _training(directory: Path) -> dict[str, Any] | None:
    """A training's ``run.json``; None where it is a search's, or is not there, which others report."""
    try:
        found = parse_object((directory / "run.json").read_text(encoding="utf-8"), _TRAINING)
    except (OSError, ValueError):
        return None
    return found if found.get("training") else None


def _best(directory: Path, run: Path) -> dict[str, Any]:
    file = directory / "summary.json"
    if not file.exists():
        raise RunError(
            f"The training in {directory} has not come to its end.", f"Finish it with: {_command(directory, run)}"
        )
    try:
        return parse_object(file.read_text(encoding="utf-8"), _SUMMARY)
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {error}.", "Train again in another --out.") from error


def _command(directory: Path, run: Path) -> str:
    words = ["nasproxy", "train", str(run.resolve()), "--out", str(directory), "--resume"]
    return f"{shlex.join(words)}, and --epochs and the other options it was started with"
