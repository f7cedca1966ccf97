"""All that an outer iteration changes: taken down, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

_OPTIMIZER, _NETWORKS = "optimizer.", "networks."


@runtime_checkable
class Drawing(Protocol):
    """Where networks come from, with a state of its own."""

    def state(self) -> dict[str, Tensor]:
        """What decides the networks to come, besides the generator that it was given."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts it back."""


class Moving:
    """The images, the optimiser's momentum, and every generator that is drawn from.

    Args:
        images: that are learnt.
        optimizer: of these.
        generator: of everything that a method draws, on the CPU.
        networks: where the networks come from.
    """

    def __init__(
        self, images: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator, networks: Drawing
    ) -> None:
        self._images, self._optimizer, self._generator, self._networks = images, optimizer, generator, networks

    def tensors(self) -> dict[str, Tensor]:
        """Copies, each on its own device."""
        kept = {
            "images": self._images.detach().clone(),
            "generator": self._generator.get_state(),
            "torch": torch.get_rng_state(),
        }
        if self._images.device.type == "cuda":
            kept["cuda"] = torch.cuda.get_rng_state(self._images.device)
        elif self._images.device.type == "mps":
            kept["mps"] = torch.mps.get_rng_state()
        for name, value in self._optimizer.state[self._images].items():
            if isinstance(value, Tensor):
                kept[_OPTIMIZER + name] = value.detach().clone()
        return kept | {_NETWORKS + name: value for name, value in self._networks.state().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what :meth:`tensors` gave.

        Raises:
            ValueError: the images are none of these.
            KeyError, TypeError, RuntimeError: something is missing, or no generator's state.
        """
        images, optimizer = tensors["images"], self._part(tensors, _OPTIMIZER)
        for value in (images, *optimizer.values()):
            if value.shape != self._images.shape or value.dtype != torch.float32 or not torch.isfinite(value).all():
                raise ValueError(f"expected finite float32 images of the shape {tuple(self._images.shape)}")
        with torch.no_grad():
            self._images.copy_(images)
        self._optimizer.state[self._images].update(
            {name: value.to(self._images.device) for name, value in optimizer.items()}
        )
        self._generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["torch"])
        if self._images.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["cuda"], self._images.device)
        elif self._images.device.type == "mps":
            torch.mps.set_rng_state(tensors["mps"])
        self._networks.restore(self._part(tensors, _NETWORKS))

    @staticmethod
    def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
