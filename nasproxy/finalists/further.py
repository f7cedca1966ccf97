"""Trains a finalist further on the whole dataset, or anew; can be killed at any moment and resumed."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nasproxy.analysis.canvas import save_figure
from nasproxy.analysis.event_file import EventFile, check_tensorboard
from nasproxy.datasets.image_dataset import ImageDataset, Split
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import DatasetError, DivergedError, ExportError, InputError, nearest
from nasproxy.export.card import Origin, model_card
from nasproxy.export.description import Description
from nasproxy.export.standalone import write_standalone
from nasproxy.files import write_atomically, write_json
from nasproxy.finalists.checkpoint import Checkpoint, Epoch, read_checkpoint
from nasproxy.finalists.course import course
from nasproxy.finalists.curves import add_epoch, curves_csv, curves_figure
from nasproxy.finalists.load import Finalist
from nasproxy.interruption import unbroken
from nasproxy.progress import Progress
from nasproxy.search.devices import resolve_device
from nasproxy.search.run_directory import check_run, check_unused, open_run
from nasproxy.search.settings import check_seed
from nasproxy.text import counted
from nasproxy.training.on_demand import normalised_on
from nasproxy.training.precision import resolve_precision
from nasproxy.training.process import alone, default_threads, prepare_process
from nasproxy.training.recipe import AUGMENTATIONS, TrainingRecipe, whole_batch_size
from nasproxy.training.train import Images, evaluate
from nasproxy.versions import library_versions, machine_facts


@dataclass(frozen=True)
class FurtherSettings:
    """How a finalist is trained after the search.

    Args:
        epochs: passes over the training part.
        learning_rate: of the first half; a tenth of it in the second.
        batch_size: images a step; None takes a sixteenth of the images, between 16 and 256.
        augmentation: ``none``, ``crop`` or ``crop-flip``.
        anew: begin with fresh weights instead of those of the search.
        seed: of order, augmentation and fresh weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``auto``, ``bfloat16`` or ``float32``.
        threads: of PyTorch; None is all cores, or as many as ``OMP_NUM_THREADS`` says.
        tensorboard: whether to write TensorBoard's event files too.
        dataset: where the data are now; None is where the search found them.
        data_dir: where torchvision's datasets are; None likewise.
    """

    epochs: int
    learning_rate: float = 0.01
    batch_size: int | None = None
    augmentation: str = "none"
    anew: bool = False
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    tensorboard: bool = False
    dataset: str | None = None
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.augmentation not in AUGMENTATIONS:
            raise InputError(
                f"No augmentation is called {self.augmentation!r}.", nearest(self.augmentation, AUGMENTATIONS)
            )
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be 1 or more, got {self.threads}.")
        self.recipe(1000)

    def recipe(self, images: int) -> TrainingRecipe:
        """The recipe for a training part of ``images`` images."""
        return TrainingRecipe(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch_size=whole_batch_size(images) if self.batch_size is None else self.batch_size,
            augmentation=self.augmentation,
        )


@alone()
def train_further(
    finalist: Finalist, settings: FurtherSettings, out: Path, *, resume: bool = False, progress: Progress
) -> dict[str, Any]:
    """Trains ``finalist`` and writes curves and, as folders that need no nasproxy, its best and its last weights.

    The best are those of the epoch with the highest validation accuracy; what the training begins with counts as epoch
    0. Test accuracy is reported of both, and chooses neither.

    Args:
        finalist: of a search.
        settings: how to train.
        out: the folder to write.
        resume: finish the training in ``out``, or begin it where there is none.
        progress: told what goes on.

    Returns:
        The document that ``nasproxy train --json`` prints.

    Raises:
        DatasetError: the dataset is not there, or not the one of the search.
        DivergedError: the weights that the training begins with give no finite numbers.
        RunError: ``out`` holds something else, its checkpoint is damaged, or the finalist diverged in the search and
            is not trained anew.
        WriteError: the disk is full, or the place not writable.
    """
    if settings.tensorboard:
        check_tensorboard()
    device = resolve_device(settings.device)
    threads = settings.threads or default_threads()
    settings = replace(
        settings, device=device.type, precision=resolve_precision(settings.precision, device), threads=threads
    )
    facts = _facts(finalist, settings, out, device)
    check_run(out, facts["identity"], resume=resume)  # what takes no data to know is said before they are loaded
    check_unused(out)
    anew = finalist.candidate.seed(settings.seed, 0, "anew")
    model = finalist.fresh(anew) if settings.anew else finalist.model()
    dataset = dataset_of(finalist, settings)
    with open_run(out, facts, resume=resume):
        prepare_process(threads)
        done = _train(model, finalist, settings, dataset, device, out, progress)
        write_atomically(out / "curves.csv", curves_csv(done.history))
        best = done.best_epoch
        save_figure(curves_figure(done.history, None if best is None else best.epoch), out / "curves.png")
        if best is None:
            raise DivergedError(
                f"The weights that the training of {finalist.description.id} begins with give no finite numbers.",
                f"Use {'another --seed' if settings.anew else '--anew'} and another --out.",
            )
        summary = _hand_over(finalist, settings, dataset, device, done, out, progress)
        write_json(out / "summary.json", summary)
    return summary


def dataset_of(finalist: Finalist, settings: FurtherSettings) -> ImageDataset:
    """The dataset of the search, unchanged.

    Raises:
        DatasetError: it is not there, or another.
    """
    asked, about = finalist.run.run["settings"], finalist.description
    name = settings.dataset or str(asked["dataset"])
    data_dir = settings.data_dir or (Path(asked["data_dir"]) if asked.get("data_dir") else None)
    size, skip = asked.get("image_size"), bool(asked.get("skip_broken"))
    try:
        dataset = load_dataset(name, data_dir=data_dir, image_size=tuple(size) if size else None, skip_broken=skip)
    except DatasetError as error:
        if settings.dataset:
            raise
        raise DatasetError(error.message, "The search used it; say where it is now: --dataset FOLDER.") from error
    if dataset.fingerprint != about.fingerprint:
        raise DatasetError(
            f"{name} is not what the search was given: its fingerprint was {about.fingerprint[:12]}…, now it is"
            f" {dataset.fingerprint[:12]}…, so images, labels or their split have changed.",
            "Bring the data back as they were, or search again on the new ones.",
        )
    return dataset


def _facts(finalist: Finalist, settings: FurtherSettings, out: Path, device: torch.device) -> dict[str, Any]:
    """The content of the folder's own ``run.json``."""
    about = finalist.description
    apart = ("tensorboard", "dataset", "data_dir")
    asked = {name: value for name, value in asdict(settings).items() if name not in apart}
    return {
        "schema": 1,
        "identity": {"id": about.id, "repeat": finalist.repeat, "fingerprint": about.fingerprint, **asked},
        # As the way from here, which leads through no links: both may be moved together.
        "training": {
            "run": os.path.relpath(finalist.run.directory.resolve(), out.resolve()),
            "rank": finalist.entry["rank"],
        },
        "versions": library_versions(),
        "machine": machine_facts(device.type),
    }


def _train(
    model: nn.Module,
    finalist: Finalist,
    settings: FurtherSettings,
    dataset: ImageDataset,
    device: torch.device,
    out: Path,
    progress: Progress,
) -> Checkpoint:
    file = out / "checkpoint.safetensors"
    done = read_checkpoint(file, model)
    candidate, recipe = finalist.candidate, settings.recipe(len(dataset.train))
    events = EventFile(out / "tensorboard", candidate.config) if settings.tensorboard else None
    if events is not None:  # anew from the beginning: a resumed training has no gap and no double
        at = time.time() - sum(epoch.seconds for epoch in done.history)
        for epoch in done.history:
            at += epoch.seconds
            add_epoch(events, epoch, at)
    before = max(0, len(done.history) - 1)
    progress.stage(f"Training {candidate.id}, whole data", recipe.epochs, done=before)
    for state in course(
        model.to(device),
        _images(dataset, dataset.train, device),
        recipe,
        _images(dataset, dataset.validation, device),
        seed_of=lambda epoch: candidate.seed(settings.seed, epoch, "further"),
        precision=settings.precision,
        done=done,
    ):
        with unbroken():
            state.write(file)
        latest, best = state.history[-1], state.best_epoch
        if events is not None:
            add_epoch(events, latest)
        if latest.epoch:
            progress.advance("" if best is None else f"best {best.validation_accuracy:.1%}")
        if latest.diverged:
            progress.note(f"The training left the finite numbers in epoch {latest.epoch}, and ends there.")
    if events is not None:
        events.close()
    return done


def _hand_over(
    finalist: Finalist,
    settings: FurtherSettings,
    dataset: ImageDataset,
    device: torch.device,
    done: Checkpoint,
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    best, last = done.best_epoch, done.history[-1]
    assert best is not None
    test = _images(dataset, dataset.test, device)
    found: dict[str, dict[str, Any]] = {}
    for name, epoch, weights in (("best", best, done.best), ("last", last, done.model)):
        model = finalist.fresh().to(device)
        model.load_state_dict(dict(weights))
        score = evaluate(model, test, epoch=epoch.epoch, precision=settings.precision)
        found[name] = {
            "epoch": epoch.epoch,
            "validation_accuracy": epoch.validation_accuracy,
            "validation_loss": epoch.validation_loss,
            "test_accuracy": score.accuracy,
            "directory": str(out / name),
        }
        try:
            _write(out / name, model, finalist, _sentences(settings, epoch, name), found[name])
        except ExportError as error:
            progress.note(str(error))
    before = {name: finalist.entry[name] for name in ("whole_accuracy", "test_accuracy")}
    return {
        "schema": 1,
        "run": str(finalist.run.directory),
        "rank": finalist.entry["rank"],
        "id": finalist.description.id,
        "config": finalist.entry["config"],
        "epochs": settings.epochs,
        "anew": settings.anew,
        "diverged": last.diverged,
        "before": before,
        **found,
        "further": _sentences(settings, best, "best"),
        "seconds": sum(epoch.seconds for epoch in done.history),
        "out": str(out),
    }


def _sentences(settings: FurtherSettings, epoch: Epoch, name: str) -> str:
    """How these weights came about, for a card."""
    start = "anew" if settings.anew else "further, from the search's weights"
    batch = "" if settings.batch_size is None else f", batch size {settings.batch_size}"
    chosen = (
        "the epoch with the highest validation accuracy, so that figure flatters"
        if name == "best"
        else "the last epoch"
    )
    return (
        f"After the search it was trained {start}: {counted(settings.epochs, 'epoch')}, learning rate"
        f" {settings.learning_rate}{batch}, augmentation {settings.augmentation}, precision {settings.precision},"
        f" seed {settings.seed}. These are the weights of epoch {epoch.epoch}, {chosen}."
    )


def _write(folder: Path, model: nn.Module, finalist: Finalist, further: str, found: dict[str, Any]) -> None:
    entry = dict(finalist.entry) | {
        "whole_accuracy": found["validation_accuracy"],
        "test_accuracy": found["test_accuracy"],
    }
    about: Description = replace(finalist.description.of_entry(entry), versions=library_versions())
    origin = Origin(finalist.run.run, finalist.run.summary, entry, further)
    write_standalone(folder, model=model, description=about, images=finalist.images(), card=model_card(about, origin))


def _images(dataset: ImageDataset, part: Split, device: torch.device) -> Images:
    return Images(normalised_on(device, part.images, dataset.normalisation), part.labels.to(device))
