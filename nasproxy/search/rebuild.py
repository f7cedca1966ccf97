"""A candidate's network as a training began with it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nasproxy.errors import RunError, SpaceError
from nasproxy.networks.materialise import materialise
from nasproxy.search.candidate import Candidate
from nasproxy.search.space import SearchSpace
from nasproxy.search.space_source import error_text, space_location


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
