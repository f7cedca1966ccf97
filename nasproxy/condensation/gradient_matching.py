"""Dataset condensation by gradient matching: Algorithm 1 of Zhao, Mopuri & Bilen (2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nasproxy.condensation.convnet_gradients import differentiable_gradients, has_written_gradients
from nasproxy.condensation.distance import distance_between, is_compared
from nasproxy.condensation.frozen_statistics import frozen_statistics
from nasproxy.condensation.inner_training import InnerTraining
from nasproxy.condensation.mean_gradients import mean_gradients
from nasproxy.condensation.outer_loop import Material
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.errors import InputError
from nasproxy.networks.norms import differentiated_twice
from nasproxy.training.precision import is_direct
from nasproxy.training.recorded import RECORDED, Recorded, Results

_Match = Callable[[Tensor, Tensor, Tensor], Results]

# Real images cost as much as a synthetic one, differentiated twice: measured on a CPU in bfloat16 with the default
# ConvNet on digits; with others up to six.
_TWICE = 4

LARGEST_STEP = 1.0
"""Root mean square over pixels, at a learning rate of 1 and one image a class, that a network of a space moves the
images by at most in a matching step; at more images a class as many times less, as their gradients are.

From real images, steps by the default ConvNet are of 0.2 to 1.1 on digits and CIFAR-10 (JPEG) at 16×16 and 32×32; by
one that normalises each channel over 2×2 pixels, of 5 to 17, and in no direction that lessens the loss.
"""


def match_gradients(
    network: nn.Module, material: Material, optimizer: torch.optim.Optimizer, *, recipe: MatchingRecipe
) -> float:
    """An outer iteration of Algorithm 1: T matching steps, and the network's training between them.

    In bfloat16 the real images' gradients and the inner training are computed in that format; the synthetic images'
    gradients, which are differentiated again, always in float32. A network of a space moves them by no more than
    :data:`LARGEST_STEP` in a step.

    Returns:
        The mean matching loss of a class and a step.
    """
    loss, inner = torch.zeros((), device=material.images.device), InnerTraining(network, material, recipe)
    match, parts = _matching(network, material, recipe), _Parts(material, recipe)
    for step in range(recipe.matching_steps):
        # Images of one class lie together, so one optimiser over all is the paper's update of each class by itself.
        optimizer.zero_grad()
        loss += _matching_step(network, material, recipe, match, partial(parts.tell, step))
        if recipe.draws_from_space:
            material.bound_step(LARGEST_STEP / recipe.ipc)
        optimizer.step()
        # The last network of an iteration is thrown away: training it further would be wasted.
        if step + 1 < recipe.matching_steps:
            inner.run()
    return float(loss) / (recipe.matching_steps * len(material.by_class))


def _matching(network: nn.Module, material: Material, recipe: MatchingRecipe) -> _Match:
    """Gives the matching loss, and its gradient on the synthetic images, of real and synthetic images and their class.

    On a GPU it is recorded once for each network, where that pays. Not measured there: with the default ConvNet it is
    some 600 operations, counted, which Python takes 10 µs each to launch, a hundred times at 10 images a class.
    """

    def match(real: Tensor, synthetic: Tensor, label: Tensor) -> Results:
        pixels = synthetic.detach().requires_grad_()
        # Fused attention has no second derivative. Backward passes are included for what they compute again.
        with sdpa_kernel(SDPBackend.MATH):
            distance = matching_loss(
                network,
                real,
                pixels,
                label,
                distance=recipe.distance,
                precision=material.precision,
                chunk=recipe.chunk,
            )
            (slope,) = torch.autograd.grad(distance, pixels)
        return distance.detach(), slope

    device, calls = material.images.device, recipe.matching_steps * len(material.by_class)
    return Recorded(match, network) if device.type == "cuda" and calls >= RECORDED else match


def _matching_step(
    network: nn.Module, material: Material, recipe: MatchingRecipe, match: _Match, begins: Callable[[int], None]
) -> Float[Tensor, ""]:
    """Adds to the images' gradient that of the matching loss (equation 9), class by class; returns the loss.

    ``begins`` is told each class.
    """
    loss = torch.zeros((), device=material.images.device)
    # Under settled statistics a deep network's gradients are no guide: the loss rises, and the images teach less.
    with frozen_statistics(network, material.real, material.by_class, material.generator, material.precision):
        for label in range(len(material.by_class)):
            begins(label)
            real, mine = material.real_batch(label, recipe.real_batch), material.of_class(label)
            transform = material.draw_transform()
            synthetic = transform(material.images[mine])
            distance, slope = match(transform(real), synthetic.detach(), material.labels[mine][0])
            synthetic.backward(slope, inputs=[material.images])
            loss += distance
    return loss


class _Parts:
    """How much of an iteration is done, by the images that have been computed."""

    def __init__(self, material: Material, recipe: MatchingRecipe) -> None:
        self._on_part, self._classes = material.on_part, len(material.by_class)
        synthetic = self._classes * recipe.ipc
        real = sum(min(recipe.real_batch, len(members)) for members in material.by_class)
        self._matching = real + _TWICE * synthetic
        self._training = recipe.inner_epochs * synthetic
        self._whole = recipe.matching_steps * (self._matching + self._training) - self._training

    def tell(self, step: int, label: int) -> None:
        """A matching begins: class ``label`` in ``step``, both from 0."""
        if self._on_part is not None:
            done = step * (self._matching + self._training) + label / self._classes * self._matching
            self._on_part(done / self._whole)


def matching_loss(
    network: nn.Module,
    real: Float[Tensor, "n c h w"],
    synthetic: Float[Tensor, "m c h w"],
    label: int | Int64[Tensor, ""],
    *,
    distance: str,
    precision: str,
    chunk: int = 0,
) -> Float[Tensor, ""]:
    """How far the network's gradients on real and on synthetic images of one class lie apart (equation 9).

    Parameters that are frozen or take no part in the logits are left out.

    Args:
        network: in the mode that both are to be seen in.
        real: of the class ``label``.
        synthetic: of the same; the loss is differentiable in these.
        label: the class.
        distance: one of :data:`nasproxy.condensation.recipe.DISTANCES`.
        precision: of the real images' gradients.
        chunk: how many real images are computed at a time, see :func:`nasproxy.condensation.chunks.chunk_size`.

    Raises:
        InputError: the network has no gradient that the distance compares.
    """
    parameters = [p for p in network.parameters() if p.requires_grad and is_compared(distance, p)]
    target = torch.as_tensor(label, device=real.device)
    pairs: list[tuple[Tensor, Tensor]] = []
    if parameters:
        on_real = mean_gradients(network, parameters, real, target.repeat(len(real)), chunk=chunk, precision=precision)
        on_synthetic = _differentiable_gradients(network, parameters, synthetic, target, precision)
        pairs = [(r, s) for r, s in zip(on_real, on_synthetic, strict=True) if r is not None and s is not None]
    if not any(r.ndim > 1 for r, _ in pairs):
        raise InputError(
            f"The network {type(network).__name__} has no layer whose gradient could be matched.",
            "Use --method dm, or leave it out of the space.",
        )
    return distance_between(distance, [r for r, _ in pairs], [s for _, s in pairs])


def _differentiable_gradients(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    images: Float[Tensor, "m c h w"],
    label: Int64[Tensor, ""],
    precision: str,
) -> Sequence[Tensor | None]:
    """The gradients of the mean cross-entropy of images of one class, differentiable in the images."""
    if not is_direct(precision) and has_written_gradients(network, images):
        found = differentiable_gradients(network, images, label)
        of = dict(zip(network.parameters(), found, strict=True))
        return [of[parameter] for parameter in parameters]
    with differentiated_twice():
        loss = F.cross_entropy(network(images), label.repeat(len(images)))
    return torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
