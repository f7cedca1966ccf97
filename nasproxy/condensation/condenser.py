"""What all condensation methods share: how long they go on, from which images, and with which networks."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from nasproxy.condensation.convergence import has_not_fallen
from nasproxy.errors import InputError, nearest
from nasproxy.networks.names import CONVNET, NETWORKS
from nasproxy.proxies.method import ProxyMethod
from nasproxy.spaces.source import SpaceSource

if TYPE_CHECKING:  # settings are read before torch is loaded
    from collections.abc import Callable, Sequence

    import torch

    from nasproxy.condensation.course import Course
    from nasproxy.condensation.outer_loop import Iterate
    from nasproxy.datasets.image_dataset import ImageDataset
    from nasproxy.proxies.condensed import Condensed

INITIAL = ("noise", "real")
_SPACE = "space:"
_TIMED_NETWORKS = 6  # of a space, to say what one costs on average


@dataclass(frozen=True)
class Condenser(ProxyMethod):
    """Settings of a method that learns images by gradient descent, with a new network in each outer iteration.

    Args:
        ipc: synthetic images per class.
        iterations: outer iterations; with ``patience``, at the most.
        image_learning_rate: of the synthetic images; SGD with ``image_momentum``.
        image_momentum: of the same.
        real_batch: real images of one class in each matching step.
        initial: ``noise`` or ``real`` (random real images).
        network: one of :data:`nasproxy.networks.names.NETWORKS`, or ``space:`` and a search space (a registered name, a
            file, a module's attribute), from which each outer iteration draws its network.
        max_multiply_adds: of an image, in the networks drawn from a space; by default two and a half times those of
            the ConvNet of ``width`` and ``depth``, which at 128 and 3 lets in all of the paper's with up to 64 filters;
            images too small for the ConvNet count as the smallest that are not.
        patience: outer iterations; stop when the mean loss of the last so many is no lower than that of as many before
            them. 0 never does, and is all that networks of a space, whose losses cannot be compared, allow.
        width: filters of the ConvNet.
        depth: its number of blocks.
        norm: its normalisation; this and the two below as in :class:`nasproxy.networks.convnet.ConvNet`.
        activation: its activation.
        pooling: its pooling.
        chunk: images computed at a time, which bounds memory; 0 is what is fast. Not bounded by it are the synthetic
            images of a class, whose gradients are differentiated again, and what batch normalisation sees as one batch.
    """

    verb: ClassVar[str] = "Condensing"
    loss_name: ClassVar[str] = "matching loss"

    iterations: int = 1000
    image_learning_rate: float = 0.1
    image_momentum: float = 0.5
    real_batch: int = 256
    initial: str = "noise"
    network: str = CONVNET
    max_multiply_adds: int | None = None
    patience: int = 0
    width: int = 128
    depth: int = 3
    norm: str = "instance"
    activation: str = "relu"
    pooling: str = "average"
    chunk: int = 0
    space_digest: str = field(init=False, default="")
    """Of the text of a space's file or module, or the version of its package: a changed one is another setting."""

    def __post_init__(self) -> None:
        self._check_counts("ipc", "iterations", "real_batch", "width", "depth")
        for name in ("patience", "chunk"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        if not self.image_learning_rate > 0:
            raise InputError(f"image_learning_rate must be above 0, got {self.image_learning_rate}.")
        if not 0 <= self.image_momentum < 1:
            raise InputError(f"image_momentum must be in [0, 1), got {self.image_momentum}.")
        if self.initial not in INITIAL:
            raise InputError(f"initial must be noise or real, got {self.initial!r}.", nearest(self.initial, INITIAL))
        self._check_space()

    @property
    def steps(self) -> int:
        """The outer iterations, at the most."""
        return self.iterations

    @property
    def draws_from_space(self) -> bool:
        """Whether each outer iteration draws its network from a search space."""
        return self.network not in NETWORKS

    def space_source(self) -> SpaceSource | None:
        """The search space that networks are drawn from; None for a network of the paper.

        Raises:
            InputError: ``network`` names neither.
        """
        if not self.draws_from_space:
            return None
        if not self.network.startswith(_SPACE):
            known = [*NETWORKS, f"{_SPACE}convnet720"]
            raise InputError(f"No network is called {self.network!r}.", nearest(self.network, known))
        return SpaceSource.parse(self.network.removeprefix(_SPACE))

    def suited_to_network(self) -> Condenser:
        """With the image learning rate that the paper has for this network in particular, if it has one."""
        return self

    def doubt(self, losses: Sequence[float]) -> str | None:
        """That the loss did not fall, if so. Those of different networks of a space cannot be compared."""
        if self.draws_from_space or not has_not_fallen(losses):
            return None
        return (
            f"The {self.loss_name} did not fall, from {losses[0]:.4g} in the first iteration to {losses[-1]:.4g} in the"
            " last: these images may teach less than real ones. Larger images (--image-size), another method, network"
            " or image learning rate may help."
        )

    def make(
        self,
        dataset: ImageDataset,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        on_iteration: Callable[[int, float], None] | None = None,
        course: Course | None = None,
    ) -> Condensed:
        """As :meth:`ProxyMethod.make`; see :func:`nasproxy.condensation.outer_loop.condense_by`."""
        from nasproxy.condensation.outer_loop import condense_by

        return condense_by(
            self.iteration(dataset),
            dataset,
            self,
            seed=seed,
            device=device,
            precision=precision,
            on_iteration=on_iteration,
            course=course,
        )

    @abstractmethod
    def iteration(self, dataset: ImageDataset) -> Iterate:
        """What is done with the network of each outer iteration."""

    def augmentations(self, dataset: ImageDataset) -> tuple[str, ...]:
        """The kinds of augmentation of which each matching step draws one; none where it is empty."""
        return ()

    def _check_space(self) -> None:
        source = self.space_source()
        if source is not None and self.patience:
            raise InputError(
                "patience compares losses of one iteration with those of another, which says nothing where each has"
                f" another network, as with {self.network}.",
                "Leave it out, and give the number of iterations, or a paper's network.",
            )
        if self.max_multiply_adds is not None:
            self._check_counts("max_multiply_adds")
            if source is None:
                raise InputError(
                    f"max_multiply_adds chooses among the networks of a space, but the network is {self.network}.",
                    "Leave it out, or give a space as network.",
                )
        if source is not None and (code := source.code):
            digest = hashlib.blake2b(code.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
            object.__setattr__(self, "space_digest", digest)

    def _check_counts(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 or more, got {getattr(self, name)}.")

    def _seconds_per_iteration(
        self, dataset: ImageDataset, device: torch.device, precision: str, **changes: Any
    ) -> float:
        """By running one outer iteration; several where networks differ."""
        count = _TIMED_NETWORKS if self.draws_from_space else 1
        part = replace(self, iterations=count, patience=0, **changes)
        return part.make(dataset, seed=0, device=device, precision=precision).seconds / count
