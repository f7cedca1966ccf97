"""One training on the whole training part, watched and kept: what coresets are chosen by."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nasproxy.coresets.forgetting_events import ForgettingEvents
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import DivergedError
from nasproxy.files import cached_file, make_folder
from nasproxy.networks.convnet import ConvNet
from nasproxy.tensor_file import read_tensors, write_tensors
from nasproxy.training.on_demand import normalised_on
from nasproxy.training.recipe import TrainingRecipe, whole_batch_size
from nasproxy.training.recorded import timed_epochs
from nasproxy.training.train import Images, train
from nasproxy.versions import deciding_versions

# The paper says no more than "models trained on the whole dataset"; its preset trains finalists for 100 epochs, too.
EPOCHS = {"quick": 20, "paper": 100}
"""Of the training, by preset."""
_TIMED = 4  # batches, by which the time of a training is told
_KEY = "nasproxy"  # of the one metadata entry, a JSON document
_FORGETTING = "forgetting"  # the tensor beside the weights


@dataclass(frozen=True)
class WholeTraining:
    """What came of a training.

    Args:
        network: trained, on the device it was trained on.
        forgetting: forgetting events of each training image; infinite for those never learnt.
        losses: mean training loss of each epoch.
        seconds: wall time.
    """

    network: ConvNet
    forgetting: Float[Tensor, " n"]
    losses: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class WholeRecipe:
    """What a training depends on besides the data, the seed and the machine.

    Args:
        epochs: passes over the training part; the rest is the toolkit's recipe for finalists.
        width: filters of the default ConvNet.
        depth: its number of blocks.
    """

    epochs: int
    width: int = 128
    depth: int = 3

    @classmethod
    def preset(cls, preset: str) -> WholeRecipe:
        """20 epochs for ``quick``, 100 for ``paper``."""
        return cls(EPOCHS[preset])


def kept_training(
    dataset: ImageDataset, recipe: WholeRecipe, *, seed: int, device: torch.device, precision: str
) -> Path:
    """Where the cache keeps this training, if it has been done by these versions."""
    facts = {"fingerprint": dataset.fingerprint, "seed": seed, "device": device.type, "precision": precision}
    return cached_file("trainings", "whole", {**asdict(recipe), **facts, **deciding_versions()})


def trained_on_whole(
    dataset: ImageDataset,
    recipe: WholeRecipe,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_epoch: Callable[[int, float], None] | None = None,
) -> WholeTraining:
    """The ConvNet of ``recipe`` trained on the training part, from the cache if that was done before.

    Weights are kept rather than features, which are one forward pass away and, of a large dataset, far larger.

    Args:
        dataset: whose training part is trained on, without augmentation.
        recipe: how.
        seed: of the initial weights and the batches.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_epoch: called with the number (from 1) and the mean loss of each epoch, of a kept training as well.

    Raises:
        InputError: the images are too small for this depth.
        DivergedError: the loss left the finite numbers.
        WriteError: the cache cannot be written.
    """
    kept = kept_training(dataset, recipe, seed=seed, device=device, precision=precision)
    found = _load(kept, _network(dataset, recipe, seed, device), len(dataset.train), recipe.epochs)
    if found is not None:
        if on_epoch is not None:
            for number, loss in enumerate(found.losses, start=1):
                on_epoch(number, loss)
        return found
    make_folder(kept.parent)  # before the work, which would be lost without it
    pixels = normalised_on(device, dataset.train.images, dataset.normalisation)
    images = Images(pixels, dataset.train.labels.to(device))
    network, size = _network(dataset, recipe, seed, device), whole_batch_size(len(images))
    trained = watched_training(
        network, images, recipe.epochs, batch_size=size, seed=seed, precision=precision, on_epoch=on_epoch
    )
    _save(trained, kept)
    return trained


def watched_training(
    network: ConvNet,
    images: Images,
    epochs: int,
    *,
    batch_size: int,
    seed: int,
    precision: str,
    on_epoch: Callable[[int, float], None] | None = None,
) -> WholeTraining:
    """Trains ``network`` in place and counts what it forgets; see :func:`trained_on_whole`."""
    began = time.perf_counter()
    device = images.images.device
    events, losses = ForgettingEvents(len(images), device), list[float]()
    seen, total = 0, torch.zeros((), device=device)

    def watch(
        positions: Int64[Tensor, " batch"], logits: Float[Tensor, "batch classes"], loss: Float[Tensor, ""]
    ) -> None:
        nonlocal seen, total
        events.see(positions, logits.argmax(1) == images.labels[positions])
        seen, total = seen + len(positions), total + loss * len(positions)
        if seen == len(images):
            losses.append(_finite(float(total) / seen, len(losses) + 1))
            seen, total = 0, torch.zeros_like(total)
            if on_epoch is not None:
                on_epoch(len(losses), losses[-1])

    recipe = TrainingRecipe(epochs=epochs, batch_size=batch_size)
    train(network, images, recipe, None, seed=seed, precision=precision, on_batch=watch)
    return WholeTraining(network.eval(), events.counts(), tuple(losses), time.perf_counter() - began)


def expected_seconds(dataset: ImageDataset, recipe: WholeRecipe, *, device: torch.device, precision: str) -> float:
    """Of a training, by a few of its batches; on a GPU that records its steps, by replayed ones."""
    size = whole_batch_size(len(dataset.train))
    pixels, labels = (rows[: _TIMED * size].to(device) for rows in (dataset.train.images, dataset.train.labels))
    images, share = Images(dataset.normalisation.apply(pixels), labels), len(dataset.train) / len(labels)
    batches = -(-len(labels) // size)
    # The first also compiles kernels, or records.
    epochs = max(2, timed_epochs(device, int(recipe.epochs * share), batches))
    ends = list[float]()
    watched_training(
        _network(dataset, recipe, 0, device),
        images,
        epochs,
        batch_size=size,
        seed=0,
        precision=precision,
        on_epoch=lambda *_: ends.append(time.perf_counter()),
    )
    return recipe.epochs * share * (ends[-1] - ends[0]) / (epochs - 1)


def _network(dataset: ImageDataset, recipe: WholeRecipe, seed: int, device: torch.device) -> ConvNet:
    """Freshly initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvNet(
            dataset.channels, dataset.num_classes, dataset.image_size, width=recipe.width, depth=recipe.depth
        )
    return network.to(device)


def _finite(loss: float, epoch: int) -> float:
    if not math.isfinite(loss):
        raise DivergedError(
            f"The training on the whole data diverged: its loss became {loss} in epoch {epoch}.",
            "Use --precision float32, or another --proxy.",
        )
    return loss


def _save(trained: WholeTraining, path: Path) -> None:
    tensors = {**trained.network.state_dict(), _FORGETTING: trained.forgetting}
    write_tensors(path, tensors, _KEY, {"losses": trained.losses, "seconds": trained.seconds})


def _load(path: Path, network: ConvNet, images: int, epochs: int) -> WholeTraining | None:
    """What was kept, with its weights in ``network``; None if nothing was, or it is damaged and to be made again."""
    if not path.exists():
        return None
    try:
        facts, tensors = read_tensors(path, _KEY)
        forgetting, losses = tensors.pop(_FORGETTING), tuple(map(float, facts["losses"]))
        if forgetting.shape != (images,) or forgetting.dtype != torch.float32 or len(losses) != epochs:
            return None
        network.load_state_dict(tensors)
        return WholeTraining(network.eval(), forgetting, losses, float(facts["seconds"]))
    except (KeyError, TypeError, ValueError, RuntimeError):
        return None
