"""A finalist of a finished run, read back: what it is, the code that builds it, its weights."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nasproxy.analysis.results import RunResults, load_run
from nasproxy.errors import InputError, RunError
from nasproxy.export.card import Origin
from nasproxy.export.description import Description, parse_description
from nasproxy.export.trace import MOST_CHECKED
from nasproxy.search.rebuild import fill, has_nan, load_weights, rebuild
from nasproxy.search.run_directory import NO_WINNER, how_to_resume
from nasproxy.search.task import WHOLE
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.known import space_of_run
from nasproxy.spaces.space import SearchSpace


@dataclass(frozen=True)
class Finalist:
    """A network that a search has trained on the whole data.

    Args:
        run: the search.
        entry: of the network in ``summary["top"]``.
        description: of it, and of its data.
        space: that builds it.
        weights: trained; of several repeats, those of :func:`~nasproxy.search.rebuild.load_weights`.
        repeat: number of that.
        further: how it was trained after the search, and by what its weights were chosen; empty where it was not.
    """

    run: RunResults
    entry: Mapping[str, Any]
    description: Description
    space: SearchSpace
    weights: Mapping[str, Tensor]
    repeat: int
    further: str = ""

    @property
    def origin(self) -> Origin:
        """Where it comes from, for its card."""
        return Origin(self.run.run, self.run.summary, self.entry, self.further)

    @property
    def candidate(self) -> Candidate:
        """Which network of the search it is."""
        return Candidate(dict(self.entry["config"]), str(self.entry["id"]))

    def fresh(self, seed: int | None = None) -> nn.Module:
        """The untrained network, on the CPU, in training mode.

        Args:
            seed: of its weights; None is that of the search, which began with this network.

        Raises:
            SpaceError: the space does not build it.
        """
        about, of_search = self.description, int(self.run.run["settings"]["seed"] or 0)
        return rebuild(
            self.space,
            self.candidate,
            channels=about.channels,
            image_size=about.image_size,
            num_classes=len(about.class_names),
            seed=self.candidate.seed(of_search, self.repeat, WHOLE) if seed is None else seed,
        )

    def model(self) -> nn.Module:
        """The trained network, on the CPU, in evaluation mode.

        Raises:
            SpaceError: the space does not build it.
            RunError: the weights diverged, or are not those of the network that the space builds.
        """
        if has_nan(self.weights):
            raise self.diverged()
        model = self.fresh()
        fill(model, self.weights, str(self.entry["id"]))
        return model.eval()

    def diverged(self) -> RunError:
        """The error that its weights give no finite numbers."""
        run, rank = self.run.directory, self.entry["rank"]
        command = shlex.join(["nasproxy", "train", str(run), "--rank", str(rank), "--anew"])
        return RunError(
            f"Finalist {rank} ({self.entry['id']}) of {run} diverged in the search: it gives no finite numbers.",
            f"Choose another --rank, or train it from fresh weights: {command}, with --epochs and --learning-rate",
        )

    def images(self) -> Float[Tensor, "n c h w"]:
        """Normalised images to try the network on: the proxy's where the run kept them, else noise."""
        about, proxy = self.description, self.run.proxy
        shape = (about.channels, *about.image_size)
        if proxy is None or tuple(proxy.images.shape[1:]) != shape:
            return torch.randn(MOST_CHECKED, *shape, generator=torch.Generator().manual_seed(0))
        return proxy.images[torch.arange(MOST_CHECKED) % len(proxy)]


def load_finalist(
    directory: Path, rank: int | None = None, space: str | None = None, *, candidate_id: str | None = None
) -> Finalist:
    """Reads a finalist of the run in ``directory``.

    Args:
        directory: of a finished search.
        rank: as the search's table shows it, from 1 in the order of the proxy; None is the winner.
        space: where the code that builds its networks is; None is where it was.
        candidate_id: of the finalist, in place of a rank.

    Raises:
        InputError: there is no such rank.
        RunError: the directory is not a finished search's, or a file in it is missing, broken or foreign; or no
            finalist of it has that id.
        SpaceError: the space cannot be loaded.
    """
    run = load_run(directory)
    if not run.finished:
        raise RunError(
            f"The search in {directory} has not come to its end.", f"Finish it with: {how_to_resume(directory)}"
        )
    entry = _entry(run, rank) if candidate_id is None else _entry_of(run, candidate_id)
    source = space_of_run(run.run, directory, space)
    if entry["whole_accuracy"] is None:
        raise RunError(
            f"Finalist {entry['rank']} ({entry['id']}) of {directory} could not be trained on the whole data.",
            "results.csv says why; choose another --rank.",
        )
    repeat, weights = load_weights(directory, entry["id"], run.run["settings"].get("repeats") or 1)
    return Finalist(run, entry, _description(run, entry), source.load(), weights, repeat)


def _entry(run: RunResults, rank: int | None) -> Mapping[str, Any]:
    top, winner = run.summary["top"], run.summary["winner"]
    if rank is None and winner is not None:
        entry: Mapping[str, Any] = winner
        return entry
    if rank is None:
        raise RunError(
            f"The search in {run.directory} has no winner: no finalist could be trained, or all of them diverged.",
            "results.csv says what became of them; choose one by --rank.",
        )
    found: Mapping[str, Any] | None = next((entry for entry in top if entry["rank"] == rank), None)
    if found is None:
        raise InputError(
            f"--rank {rank} is no finalist of {run.directory}, which has ranks 1 to {len(top)}.",
            "Ranks are those of the search's table; without --rank the winner is taken.",
        )
    return found


def _entry_of(run: RunResults, candidate_id: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = next((entry for entry in run.summary["top"] if entry["id"] == candidate_id), None)
    if found is None:
        raise RunError(
            f"{candidate_id} is no finalist of {run.directory} any more: the search has gone on and chosen others.",
            "What was trained is handed over in the folders best and last of the training.",
        )
    return found


def _description(run: RunResults, entry: Mapping[str, Any]) -> Description:
    """The winner's, whose images and classes are all finalists', with the finalist's own configuration and scores."""
    file = run.directory / ("winner/config.json" if run.summary["winner"] else NO_WINNER)
    try:
        about = parse_description(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{file} cannot be read: {error}.", f"Write it again with: {how_to_resume(run.directory)}"
        ) from error
    return about.of_entry(entry)
