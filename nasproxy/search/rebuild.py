"""A candidate's network as a training began with it, and the weights that it ended with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nasproxy.errors import RunError, SpaceError
from nasproxy.networks.materialise import materialise
from nasproxy.search.run_directory import how_to_resume, weights_file
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.source import error_text, space_location
from nasproxy.spaces.space import SearchSpace


def rebuild(
    space: SearchSpace,
    candidate: Candidate,
    *,
    channels: int,
    image_size: tuple[int, int],
    num_classes: int,
    seed: int,
) -> nn.Module:
    """The freshly initialised network, on the CPU, in training mode.

    Args:
        space: that the candidate comes from.
        candidate: which network.
        channels: of the images.
        image_size: (height, width) in pixels.
        num_classes: of the labels.
        seed: of the training, so that what a network draws when it is built, and keeps out of its state, is the same.

    Raises:
        SpaceError: the space raises, or builds something else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = space.build(
                dict(candidate.config), in_channels=channels, num_classes=num_classes, image_size=image_size
            )
            return materialise(model, torch.zeros(2, channels, *image_size), num_classes)
        except SpaceError:
            raise
        except Exception as error:
            raise SpaceError(
                f"{space.name} cannot build {candidate.id}: {error_text(error, space_location(error, space))}",
                "With --debug the whole traceback is shown.",
            ) from error


def load_weights(directory: Path, candidate_id: str, repeats: int) -> tuple[int, Mapping[str, Tensor]]:
    """What a finalist has learnt on the whole data: the first of its repeats that did not diverge, and its weights.

    A repeat that failed has none. Where all of them diverged, it is the first.

    Args:
        directory: of the run.
        candidate_id: of the finalist.
        repeats: trainings that its score is the mean of.

    Raises:
        RunError: the weights are missing or damaged.
    """
    files = [weights_file(directory, candidate_id, repeat) for repeat in range(repeats)]
    found = ((repeat, _read(file, directory)) for repeat, file in enumerate(files) if file.exists())
    first = next(found, None)
    if first is None:
        raise RunError(f"{files[0]} is missing.", f"Train it again with: {how_to_resume(directory)}")
    return next((one for one in itertools.chain([first], found) if not has_nan(one[1])), first)


def has_nan(weights: Mapping[str, Tensor]) -> bool:
    """Whether they are of a training that left the finite numbers; infinite ones may be the mask of a network."""
    return any(bool(tensor.isnan().any()) for tensor in weights.values())


def _read(file: Path, directory: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise RunError(
            f"{file} cannot be read: {error}.", f"Delete it, and train it again with: {how_to_resume(directory)}"
        ) from error


def fill(model: nn.Module, weights: Mapping[str, Tensor], candidate_id: str) -> None:
    """Puts what a training has left into the network that it began with.

    Raises:
        RunError: the weights are not those of this network.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise RunError(
            f"The weights of {candidate_id} do not fit the network that the space builds:"
            f" {str(error).splitlines()[-1].strip()}",
            "The run was made with other code; search again.",
        ) from error
