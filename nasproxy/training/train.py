"""Train one network, and see how good it is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nasproxy.training.augmentation import augment
from nasproxy.training.on_demand import ImagesOnDemand
from nasproxy.training.precision import autocast
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.recorded import RECORDED, RecordedStep
from nasproxy.training.step import PlainStep, Step, Targets

_EVALUATION_BATCH = {"cpu": 100, "mps": 500}  # on a CPU, what keeps the activations in cache
_PIXELS = 1000 * 32 * 32  # of an evaluation batch on a GPU: a map of 256 channels takes 1 GiB
_STATISTICS_BATCH = 256

OnBatch = Callable[[Int64[Tensor, " batch"], Float[Tensor, "batch classes"], Float[Tensor, ""]], None]


@dataclass(frozen=True)
class Images:
    """Normalised images and labels on one device; images perhaps only when they are picked.

    Args:
        images: normalised.
        labels: their classes, which accuracies are measured by.
        soft_labels: class probabilities that a training aims at; None aims at ``labels``.
    """

    images: Float[Tensor, "n c h w"] | ImagesOnDemand
    labels: Int64[Tensor, " n"]
    soft_labels: Float[Tensor, "n classes"] | None = None

    @property
    def targets(self) -> Targets:
        """What a training aims at."""
        return self.labels if self.soft_labels is None else self.soft_labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Score:
    """How a network does on images that it was not trained on.

    Args:
        epoch: after how many epochs.
        accuracy: fraction classified rightly; 0 for a network that diverged.
        cross_entropy: mean over the images in nats; infinite for a network that diverged.
    """

    epoch: int
    accuracy: float
    cross_entropy: float

    @property
    def diverged(self) -> bool:
        """Whether training left the finite numbers."""
        return not math.isfinite(self.cross_entropy)


def train(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    validation: Images | None,
    *,
    seed: int,
    precision: str,
    epochs: int | None = None,
    evaluate_at: Sequence[int] = (),
    statistics: Images | None = None,
    on_batch: OnBatch | None = None,
) -> list[Score]:
    """Trains ``model`` in place, from beginning to end.

    Returns:
        The scores of :func:`training`, whose arguments these are.
    """
    return list(
        training(
            model,
            data,
            recipe,
            validation,
            seed=seed,
            precision=precision,
            epochs=epochs,
            evaluate_at=evaluate_at,
            statistics=statistics,
            on_batch=on_batch,
        )
    )


def training(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    validation: Images | None,
    *,
    seed: int,
    precision: str,
    epochs: int | None = None,
    evaluate_at: Sequence[int] = (),
    statistics: Images | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[Score]:
    """Trains ``model`` in place from score to score; whoever stops asking stops the training.

    Args:
        model: on the device of ``data``.
        data: training images; each epoch visits all of them, or ``recipe.images``, in a new order.
        recipe: the optimiser's settings.
        validation: images the scores are measured on; None measures none.
        seed: of the order and the augmentation.
        precision: ``bfloat16`` or ``float32``.
        epochs: stop after this many epochs of the recipe; all of them by default.
        evaluate_at: epochs, counted from 1, after which to score; the last one always is.
        statistics: images, in any order that mixes the classes, of which batch-norm statistics are estimated anew for
            every score, see ``settled_statistics``; no labels are looked at. None leaves the training's own.
        on_batch: called after each step with the batch's positions in ``data``, on its device, its logits and its mean
            loss, both of before the step; the next step may overwrite them.

    Yields:
        The scores in the order of epochs. A training that diverges ends at the score that shows it. Without
        ``statistics``, those for a score before the recipe's last epoch are estimated anew of ``data``.
    """
    generator = torch.Generator().manual_seed(seed)
    turns = _Turns(len(data), generator)
    last = recipe.epochs if epochs is None else epochs
    steps = last * -(-(recipe.images or len(data)) // recipe.batch_size)
    step = step_of(model, recipe, precision, data.images.device, steps)
    stops = {*evaluate_at, last}
    for epoch in range(last):
        step.set_rate(recipe.learning_rate_at(epoch))
        _train_epoch(model, data, recipe, step, turns, on_batch)
        if validation is not None and epoch + 1 in stops:
            seen = statistics
            if seen is None and epoch + 1 < recipe.epochs:
                seen = _spread(data, recipe.images)
            with contextlib.nullcontext() if seen is None else settled_statistics(model, seen, precision):
                score = evaluate(model, validation, epoch=epoch + 1, precision=precision)
            yield score
            if score.diverged:
                return


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Its layers that normalise over the images of a batch."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def goes_by_its_batch(model: nn.Module) -> bool:
    """Whether what it makes of an image depends on the others of the batch.

    Layers that keep no moving averages (``track_running_stats=False``) go by the batch in evaluation mode, too.
    """
    return any(norm.training or (norm.running_mean is None and norm.running_var is None) for norm in batch_norms(model))


@contextlib.contextmanager
def settled_statistics(model: nn.Module, data: Images, precision: str) -> Iterator[None]:
    """Evaluation mode by batch-norm statistics of ``data`` under the present weights, for the length of the context.

    A proxy is so small that an epoch is a step or two, and moving averages (a tenth of the new in each step) lag far
    behind the weights: after 6 steps of 100 a network that will be the best scores as by chance. Successive halving
    must not cut it for that. Nothing else of the model changes but that it stays in evaluation mode, and its moving
    averages are put back. Means and variances are averaged over batches of 256.
    """
    norms = [norm for norm in batch_norms(model) if norm.track_running_stats]
    kept = [(norm.momentum, {name: buffer.clone() for name, buffer in norm.named_buffers()}) for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a plain average
        norm.train()
    if norms:
        with torch.no_grad(), autocast(precision, data.images.device):
            positions = torch.arange(len(data), device=data.images.device)
            for picked in in_batches(positions, _STATISTICS_BATCH):
                model(data.images[picked])
    model.eval()
    try:
        yield
    finally:
        for norm, (momentum, buffers) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])


def step_of(model: nn.Module, recipe: TrainingRecipe, precision: str, device: torch.device, steps: int) -> Step:
    """Takes the steps of a training, of which there will be so many: on a GPU recorded, where that pays."""
    step = PlainStep(model, recipe, precision, device)
    return RecordedStep(step) if device.type == "cuda" and steps >= RECORDED else step


def _train_epoch(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    step: Step,
    turns: _Turns,
    on_batch: OnBatch | None,
) -> None:
    model.train()
    device = data.images.device
    for picked in _batches(turns, recipe.images or len(data), recipe.batch_size):
        if picked is None:
            positions, images, targets = None, data.images[:], data.targets
        else:
            # A GPU's host would wait here for all that it has asked for.
            positions = picked.to(device, non_blocking=device.type == "cuda")
            images, targets = data.images[positions], data.targets[positions]
        logits, loss = step(augment(images, recipe.augmentation, turns.generator), targets)
        if on_batch is not None:
            on_batch(torch.arange(len(data), device=device) if positions is None else positions, logits, loss)


def _spread(data: Images, count: int | None) -> Images:
    """As many of ``data`` at equal distances, or all: what an epoch's worth of statistics is estimated on."""
    if count is None or count >= len(data):
        return data
    positions = torch.arange(count, device=data.images.device) * len(data) // count
    return Images(data.images[positions], data.labels[positions])


class _Turns:
    """Positions in random order, none again before all have had their turn."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self._waiting = torch.empty(0, dtype=torch.int64)

    def take(self, number: int) -> Int64[Tensor, " number"]:
        """The next ``number``."""
        while len(self._waiting) < number:
            self._waiting = torch.cat([self._waiting, torch.randperm(self.count, generator=self.generator)])
        taken: Int64[Tensor, " number"] = self._waiting[:number]
        self._waiting = self._waiting[number:]
        return taken


def _batches(turns: _Turns, count: int, size: int) -> Sequence[Tensor | None]:
    """The positions of each batch of an epoch in random order; None is all images, whose order is immaterial."""
    if count == turns.count and count <= size:
        return [None]
    return in_batches(turns.take(count), size)


def in_batches(rows: Shaped[Tensor, "n ..."], size: int) -> list[Tensor]:
    """Consecutive parts of ``size`` rows; batch normalisation cannot take a single one, so it joins those before."""
    batches = list(rows.split(size))
    if len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


@torch.no_grad()
def evaluate(model: nn.Module, data: Images, *, epoch: int, precision: str) -> Score:
    """Accuracy and mean cross-entropy of ``model`` on ``data``."""
    model.eval()
    device = data.images.device
    right = torch.zeros((), device=device)
    loss = torch.zeros((), device=device)
    size = _EVALUATION_BATCH.get(device.type, max(1, _PIXELS // math.prod(data.images.shape[2:])))
    for images, labels in zip(data.images.split(size), data.labels.split(size), strict=True):
        with autocast(precision, device):
            logits = model(images).float()
        right += (logits.argmax(1) == labels).sum()
        loss += F.cross_entropy(logits, labels, reduction="sum")
    found, total = torch.stack([right, loss]).tolist()  # only here does the host wait for the device
    cross_entropy = total / len(data)
    if not math.isfinite(cross_entropy):
        return Score(epoch, 0.0, math.inf)
    return Score(epoch, found / len(data), cross_entropy)
