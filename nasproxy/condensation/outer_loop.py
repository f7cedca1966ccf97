"""What the methods do alike: images by gradient descent, a new network in each iteration, an end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.condensation.checkpoints import State
from nasproxy.condensation.condenser import Condenser
from nasproxy.condensation.convergence import has_converged
from nasproxy.condensation.course import Course
from nasproxy.condensation.evaluation import Evaluation
from nasproxy.condensation.moving import Moving
from nasproxy.condensation.networks import fresh_networks
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.per_class import draw_per_class
from nasproxy.errors import DivergedError
from nasproxy.proxies.condensed import Condensed
from nasproxy.training.on_demand import ImagesOnDemand, normalised_on
from nasproxy.training.transforms import Transform, draw_transform

_FARTHEST = 1000.0  # real images, which are normalised, lie within a few units of 0


@dataclass(frozen=True)
class Material:
    """What an outer iteration works on, besides its network.

    Args:
        real: normalised training images.
        by_class: the positions in ``real`` of each class.
        images: the synthetic images, classes in order and equally many of each; they are learnt.
        labels: theirs.
        augmentations: the kinds that a matching step draws from.
        generator: of everything drawn at random, on the CPU.
        precision: ``bfloat16`` or ``float32``.
        on_part: told what part of the iteration is done, see :class:`nasproxy.condensation.course.Course`.
    """

    real: Float[Tensor, "n c h w"] | ImagesOnDemand
    by_class: Sequence[Tensor]
    images: Float[Tensor, "m c h w"]
    labels: Int64[Tensor, " m"]
    augmentations: tuple[str, ...]
    generator: torch.Generator
    precision: str
    on_part: Callable[[float], None] | None = None

    def real_batch(self, label: int, size: int) -> Float[Tensor, "b c h w"]:
        """``size`` different random real images of one class; all where there are fewer."""
        members = self.by_class[label]
        picked = torch.randperm(len(members), generator=self.generator)[:size]
        return self.real[members[picked.to(members.device, non_blocking=members.is_cuda)]]

    def of_class(self, label: int) -> slice:
        """The positions in ``images`` of one class."""
        ipc = len(self.labels) // len(self.by_class)
        return slice(label * ipc, (label + 1) * ipc)

    def bound_step(self, most: float) -> None:
        """Scales the images' gradient down to a root mean square over pixels of ``most``, if it is larger."""
        nn.utils.clip_grad_norm_([self.images], most * self.images.numel() ** 0.5)

    def draw_transform(self, count: int = 1) -> Transform:
        """One augmentation with its parameters; ``count`` as in :func:`nasproxy.training.transforms.draw_transform`."""
        height, width = self.images.shape[2:]
        return draw_transform(self.augmentations, (height, width), self.generator, count=count)


Iterate = Callable[[nn.Module, Material, torch.optim.Optimizer], float]
"""One outer iteration: moves the images that the optimiser holds, returns the mean loss."""


def condense_by(
    iterate: Iterate,
    dataset: ImageDataset,
    recipe: Condenser,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_iteration: Callable[[int, float], None] | None = None,
    course: Course | None = None,
) -> Condensed:
    """Learns ``recipe.ipc`` synthetic images a class.

    Only the training part of ``dataset`` is seen.

    Args:
        iterate: what is done with each network.
        dataset: what to condense.
        recipe: the method's settings.
        seed: of initial images, networks and batches.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_iteration: called after each outer iteration with its number (from 1) and its loss.
        course: where to go on from, what to keep, and when to stop. With the same device and number of threads the
            images are bit for bit those of a condensation that was never interrupted; but not by dsa and dm on CUDA,
            where torch adds up the gradients of scaled and rotated images in any order: no two runs are the same.

    Raises:
        InputError: a class has fewer training images than ``recipe.ipc``, or the images are too small for a network.
        DivergedError: the loss left the finite numbers, or the images those of any image; what was before is kept.
        CheckpointError: the state to go on from is of something else.
        WriteError: a checkpoint cannot be written.
    """
    # Dropout in a network of the user's draws from torch's own generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _Condensation(dataset, recipe, course or Course(), seed, device, precision).run(iterate, on_iteration)


class _Condensation:
    """The images, what has been done for them so far, and what is done beside it."""

    def __init__(
        self, dataset: ImageDataset, recipe: Condenser, course: Course, seed: int, device: torch.device, precision: str
    ) -> None:
        self._recipe, self._course, self._kept = recipe, course, course.checkpoints
        self._losses = list(course.start.losses) if course.start else []
        self._evaluations = list(course.start.evaluations) if course.start else []
        self._seconds = course.start.seconds if course.start else 0.0
        self._evaluation = None
        if course.evaluate_every:
            self._evaluation = Evaluation(dataset, recipe, seed=seed, device=device, precision=precision)
        self._material = material = _material(dataset, recipe, course, seed, device, precision)
        self._networks = fresh_networks(dataset, recipe, material.generator, device)
        self._optimizer = torch.optim.SGD(
            [material.images], lr=recipe.image_learning_rate, momentum=recipe.image_momentum
        )
        self._moving = Moving(material.images, self._optimizer, material.generator, self._networks)
        self._restore()

    def run(self, iterate: Iterate, on_iteration: Callable[[int, float], None] | None) -> Condensed:
        """Iterates until the end, or until the course stops it."""
        self._since = time.perf_counter()  # not what comes before: estimates multiply the time of an iteration
        try:
            self._evaluate_in_turn()  # a state that was kept before its evaluation
            while not self._is_over():
                self._advance(iterate)
                self._evaluate_in_turn()
                if on_iteration is not None:
                    on_iteration(len(self._losses), self._losses[-1])
                if self._course.is_spent():
                    break
            if self._kept is not None and not self._is_over():
                self._kept.keep()
            if self._evaluation is not None:
                self._evaluate(self._evaluation, keep=False)  # where it was stopped, an undisturbed run has none
        except BaseException:
            if self._kept is not None:
                self._kept.rescue()
            raise
        return self._condensed()

    def _is_over(self) -> bool:
        return len(self._losses) >= self._recipe.iterations or has_converged(self._losses, self._recipe.patience)

    def _advance(self, iterate: Iterate) -> None:
        with self._networks.fresh() as network:
            loss = iterate(network, self._material, self._optimizer)
        # The last step's images are in no loss yet. No number that is not one lies within these bounds.
        if not math.isfinite(loss) or not bool((self._material.images.abs() < _FARTHEST).all()):
            raise self._diverged(loss)
        now = time.perf_counter()
        self._losses.append(loss)
        self._seconds, self._since = self._seconds + now - self._since, now
        self._see()

    def _evaluate_in_turn(self) -> None:
        if self._evaluation is not None and self._losses and len(self._losses) % self._course.evaluate_every == 0:
            self._evaluate(self._evaluation, keep=True)

    def _evaluate(self, evaluation: Evaluation, *, keep: bool) -> None:
        """Unless the present images have been."""
        number = len(self._losses)
        if self._evaluations and self._evaluations[-1][0] == number:
            return
        images, soft_labels = self._material.images, self._course.soft_labels
        accuracy = evaluation.accuracy(images, self._material.labels, soft_labels(images) if soft_labels else None)
        self._evaluations.append((number, accuracy))
        if keep:
            self._see()
        if self._course.on_evaluation is not None:
            self._course.on_evaluation(number, accuracy)
        self._since = time.perf_counter()  # watching is no part of the cost

    def _see(self) -> None:
        if self._kept is not None:
            tensors, losses, evaluations = self._moving.tensors(), tuple(self._losses), tuple(self._evaluations)
            self._kept.see(State(tensors, losses, evaluations, self._seconds))

    def _restore(self) -> None:
        if self._course.start is None:
            return
        try:
            self._moving.restore(self._course.start.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if self._kept is None:
                raise
            raise self._kept.unusable(str(error)) from error

    def _diverged(self, loss: float) -> DivergedError:
        recipe, done = self._recipe, len(self._losses)
        where = f"in outer iteration {done + 1} of {recipe.iterations}."
        if math.isfinite(loss) and bool(torch.isfinite(self._material.images).all()):
            message = f"Pixels went beyond ±{_FARTHEST:,.0f} standard deviations of real ones, at a loss of {loss:.4g},"
            message += f" {where}"
        else:
            message = f"The matching loss became {math.nan if math.isfinite(loss) else loss} {where}"
        hint = (
            f"Lower the image learning rate (now {recipe.image_learning_rate}) or the network's, or use another"
            " --network or --precision float32."
        )
        if self._kept is not None and self._kept.rescue():
            message += f" The images of iteration {done} are kept in {self._kept.path}."
        return DivergedError(message, hint)

    def _condensed(self) -> Condensed:
        return Condensed(
            images=self._material.images.detach().cpu(),
            labels=self._material.labels.cpu(),
            losses=tuple(self._losses),
            seconds=self._seconds,
            evaluations=tuple(self._evaluations),
            finished=self._is_over(),
        )


def _material(
    dataset: ImageDataset, recipe: Condenser, course: Course, seed: int, device: torch.device, precision: str
) -> Material:
    generator = torch.Generator().manual_seed(seed)
    images, labels = _initial_images(dataset, recipe, generator)
    return Material(
        real=normalised_on(device, dataset.train.images, dataset.normalisation),
        by_class=[indices.to(device) for indices in dataset.train.indices_by_class(dataset.num_classes)],
        images=images.to(device).requires_grad_(),
        labels=labels.to(device),
        augmentations=recipe.augmentations(dataset),
        generator=generator,
        precision=precision,
        on_part=course.on_part,
    )


def _initial_images(
    dataset: ImageDataset, recipe: Condenser, generator: torch.Generator
) -> tuple[Float[Tensor, "m c h w"], Int64[Tensor, " m"]]:
    positions = draw_per_class(dataset, recipe.ipc, generator)
    labels = dataset.train.labels[positions]
    if recipe.initial == "real":
        return dataset.normalisation.apply(dataset.train.images[positions]), labels
    return torch.randn(len(labels), dataset.channels, *dataset.image_size, generator=generator), labels
