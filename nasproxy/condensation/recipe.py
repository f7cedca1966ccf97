"""The settings of gradient matching, and the values the paper gives them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from nasproxy.condensation.condenser import Condenser
from nasproxy.errors import InputError, nearest

if TYPE_CHECKING:  # settings are read before torch is loaded
    import torch

    from nasproxy.condensation.outer_loop import Iterate
    from nasproxy.datasets.image_dataset import ImageDataset

DISTANCES = ("layerwise-cosine", "squared-euclidean", "cosine")

# (images per class, matching steps T, inner epochs) as printed in appendix A; 2 to 9 images per class are not given.
_PAPER_STEPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
_QUICK_ITERATIONS = 8
# Of the MLP, by appendix A; with the flat distances it is another, whose value is lost and was probably this.
_MLP_IMAGE_LEARNING_RATE, _MLP_FLAT_IMAGE_LEARNING_RATE = 0.01, 0.001


@dataclass(frozen=True)
class MatchingRecipe(Condenser):
    """Settings of gradient matching (Algorithm 1) besides those of :class:`Condenser`; the symbols are the paper's.

    ``iterations`` is K, ``image_learning_rate`` is η_S.

    Args:
        distance: between gradients: ``layerwise-cosine`` (equation 10), or the ablation's rivals ``squared-euclidean``
            and ``cosine`` over all gradients as one vector.
        matching_steps: T, steps of matching for each initialisation.
        inner_epochs: epochs on the synthetic set between two matching steps.
        network_learning_rate: of the network between matching steps; plain SGD.
        network_batch: batch size of the same.
    """

    name: ClassVar[str] = "dc"

    distance: str = "layerwise-cosine"
    matching_steps: int = 10
    inner_epochs: int = 50
    network_learning_rate: float = 0.01
    network_batch: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("matching_steps", "network_batch")
        if self.inner_epochs < 0:
            raise InputError(f"inner_epochs must be 0 or more, got {self.inner_epochs}.")
        if not self.network_learning_rate > 0:
            raise InputError(f"network_learning_rate must be above 0, got {self.network_learning_rate}.")
        if self.distance not in DISTANCES:
            raise InputError(f"No distance is called {self.distance!r}.", nearest(self.distance, DISTANCES))

    @classmethod
    def preset(cls, preset: str, ipc: int) -> MatchingRecipe:
        """:meth:`quick` or :meth:`paper`."""
        return cls.quick(ipc) if preset == "quick" else cls.paper(ipc)

    def suited_to_network(self) -> MatchingRecipe:
        """With the MLP's image learning rate, where that is the network."""
        if self.network != "mlp":
            return self
        layerwise = self.distance == DISTANCES[0]
        return replace(
            self, image_learning_rate=_MLP_IMAGE_LEARNING_RATE if layerwise else _MLP_FLAT_IMAGE_LEARNING_RATE
        )

    def iteration(self, dataset: ImageDataset) -> Iterate:
        """See :func:`nasproxy.condensation.gradient_matching.match_gradients`."""
        from nasproxy.condensation.gradient_matching import match_gradients

        return partial(match_gradients, recipe=self)

    def expected_seconds(self, dataset: ImageDataset, *, device: torch.device, precision: str) -> float:
        """By one matching step and one round of inner training; on a GPU, which records both, by a whole iteration."""

        def seconds(steps: int) -> float:
            return self._seconds_per_iteration(dataset, device, precision, matching_steps=steps)

        seconds(1)  # the first also compiles kernels
        if device.type == "cuda":
            return self.iterations * seconds(self.matching_steps)
        step, two = seconds(1), seconds(2)
        inner = max(0.0, two - 2 * step)
        return self.iterations * (self.matching_steps * step + (self.matching_steps - 1) * inner)

    @classmethod
    def paper(cls, ipc: int) -> MatchingRecipe:
        """The paper's values (appendix A) for ``ipc`` images per class.

        Between the sizes that the paper gives, T is ``ipc`` and the inner epochs keep their product with T near 500;
        below 10, where nothing is given, they rise linearly from 1 at 1 image to 50 at 10.
        """
        if ipc in _PAPER_STEPS:
            steps, epochs = _PAPER_STEPS[ipc]
        elif ipc < 10:
            steps, epochs = ipc, round(1 + (ipc - 1) * 49 / 9)
        else:
            steps, epochs = ipc, max(1, round(500 / ipc))
        return cls(ipc=ipc, matching_steps=steps, inner_epochs=epochs)

    @classmethod
    def quick(cls, ipc: int) -> MatchingRecipe:
        """About a minute on two cores for 16×16 images: few short iterations from real images."""
        return cls(
            ipc=ipc,
            iterations=_QUICK_ITERATIONS,
            matching_steps=min(ipc, 10),
            inner_epochs=10,
            real_batch=64,
            initial="real",
        )
