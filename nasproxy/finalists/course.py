"""A long training, epoch by epoch, that goes on after any interruption as if there had been none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from nasproxy.finalists.checkpoint import Checkpoint, Epoch, finite
from nasproxy.training.augmentation import augment
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.step import PlainStep
from nasproxy.training.tally import Tally
from nasproxy.training.train import Images, evaluate, in_batches


def course(
    model: nn.Module,
    data: Images,
    recipe: TrainingRecipe,
    validation: Images,
    *,
    seed_of: Callable[[int], int],
    precision: str,
    done: Checkpoint,
) -> Iterator[Checkpoint]:
    """Trains ``model`` in place and yields ``done`` after each epoch that is added to it.

    Order, augmentation and whatever the network draws depend on the epoch's own seed, so that nothing of a random
    generator need be kept.

    Args:
        model: on the device of ``data``, with the weights that the training begins with.
        data: all training images.
        recipe: the optimiser's settings.
        validation: images that each epoch is scored on.
        seed_of: the seed of an epoch, counted from 1.
        precision: ``bfloat16`` or ``float32``.
        done: what an earlier invocation finished. Where that is nothing, epoch 0 is the weights as they are.
    """
    step, tally = PlainStep(model, recipe, precision, data.labels.device), Tally(data.labels)
    if done.history:
        done.restore(model, step.optimizer)
    else:
        score = evaluate(model, validation, epoch=0, precision=precision)
        first = Epoch(0, recipe.learning_rate, None, None, finite(score.cross_entropy), score.accuracy, 0.0)
        done.take(first, model, step.optimizer)
        yield done
    while len(done.history) <= recipe.epochs and not done.history[-1].diverged:
        began, number = time.perf_counter(), len(done.history)
        rate = recipe.learning_rate_at(number - 1)
        step.set_rate(rate)
        _train_epoch(step, data, recipe, seed_of(number), tally)
        loss, accuracy = tally.take()
        score = evaluate(model, validation, epoch=number, precision=precision)
        seconds = time.perf_counter() - began
        epoch = Epoch(number, rate, finite(loss), accuracy, finite(score.cross_entropy), score.accuracy, seconds)
        done.take(epoch, model, step.optimizer)
        yield done


def _train_epoch(step: PlainStep, data: Images, recipe: TrainingRecipe, seed: int, tally: Tally) -> None:
    """Visits all images once."""
    generator, device = torch.Generator().manual_seed(seed), data.labels.device
    torch.manual_seed(seed)  # of what the network draws, as dropout does
    step.model.train()
    for picked in in_batches(torch.randperm(len(data), generator=generator), recipe.batch_size):
        positions = picked.to(device, non_blocking=device.type == "cuda")
        images = augment(data.images[positions], recipe.augmentation, generator)
        tally(positions, *step(images, data.labels[positions]))
