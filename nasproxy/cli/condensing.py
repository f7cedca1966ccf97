"""What ``nasproxy condense`` does with its options, and what it says of the result."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nasproxy.cli.screen import open_screen
from nasproxy.condensation.condenser import Condenser
from nasproxy.errors import InputError
from nasproxy.lock import held
from nasproxy.progress import within_step_of
from nasproxy.proxies.method import ProxyMethod
from nasproxy.text import duration, percent

if TYPE_CHECKING:  # torch is loaded when the work begins
    from collections.abc import Mapping

    from nasproxy.datasets.image_dataset import ImageDataset
    from nasproxy.progress import Progress
    from nasproxy.proxies.proxy_set import ProxySet
    from nasproxy.proxies.soft_labels import Teacher


@dataclass(frozen=True)
class Order:
    """What the user asked for, checked; the names are those of the options.

    ``teacher_preset`` is that of the training which gives soft labels; None gives none.
    Without ``threads`` all cores are used, or as many as ``OMP_NUM_THREADS`` says.
    """

    dataset: str
    data_dir: Path | None
    image_size: tuple[int, int] | None
    skip_broken: bool
    recipe: ProxyMethod
    device: str
    precision: str
    seed: int
    out: Path
    resume: bool
    time_budget: float | None
    evaluate_every: int
    checkpoint_every: float
    teacher_preset: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.recipe, Condenser):
            return
        asked = {
            "--resume": self.resume,
            "--time-budget": self.time_budget,
            "--evaluate-every": self.evaluate_every,
        }
        for name, value in asked.items():
            if value:
                raise InputError(f"The method {self.recipe.name} cannot be stopped on its way.", f"Leave out {name}.")

    @property
    def checkpoint(self) -> Path:
        """The file from which ``--resume`` goes on."""
        return self.out.with_name(f"{self.out.stem}.checkpoint.safetensors")

    @property
    def picture(self) -> Path:
        """Of the images."""
        return self.out.with_suffix(".png")


def carry_out(order: Order) -> dict[str, Any]:
    """Condenses, writes the proxy and its picture; returns the document that ``--json`` prints.

    Raises:
        InputError: another process is at work on the same files.
        NasproxyError: with what is wrong and what to do about it.
    """
    busy = InputError(f"Another process is condensing to {order.out}.", "Wait for it, or choose another --out.")
    lock = order.out.with_name(f".{order.out.stem}.lock")
    with held(lock, busy):
        try:
            return _condense(order)
        finally:
            with contextlib.suppress(OSError):  # some systems remove no file that is open
                lock.unlink()


def _condense(order: Order) -> dict[str, Any]:
    from nasproxy.analysis.canvas import is_figure
    from nasproxy.analysis.proxy_images import save_proxy_grid
    from nasproxy.condensation.checkpoints import check_checkpoint_replaceable
    from nasproxy.condensation.course import Course
    from nasproxy.condensation.networks import check_networks
    from nasproxy.datasets.load import load_dataset
    from nasproxy.datasets.per_class import check_class_sizes
    from nasproxy.kernels.library import why_none
    from nasproxy.proxies.make import cached_proxy, make_proxy, open_checkpoints
    from nasproxy.proxies.proxy_file import check_replaceable, save_proxy
    from nasproxy.proxies.soft_labels import softness
    from nasproxy.search.budget import Budget
    from nasproxy.search.devices import resolve_device
    from nasproxy.training.precision import resolve_precision
    from nasproxy.training.process import default_threads, peak_memory_bytes, prepare_process

    check_replaceable(order.out)
    if order.picture.exists() and not (order.out.exists() and is_figure(order.picture)):
        raise InputError(
            f"{order.picture} would be overwritten by a picture of the images, and is not that of a proxy {order.out}.",
            "Choose another --out, or move it away.",
        )
    if not order.resume:
        check_checkpoint_replaceable(order.checkpoint)
    device = resolve_device(order.device)
    dataset = load_dataset(
        order.dataset, data_dir=order.data_dir, image_size=order.image_size, skip_broken=order.skip_broken
    )
    where: Any = {"seed": order.seed, "device": device, "precision": resolve_precision(order.precision, device)}
    prepare_process(order.threads or default_threads())
    if isinstance(order.recipe, Condenser):  # what it would refuse is said before a teacher is trained
        check_class_sizes(dataset, order.recipe.ipc)
        check_networks(dataset, order.recipe)
    with open_screen() as screen:
        teacher = _teacher(order.teacher_preset, dataset, where, screen)
        kept = open_checkpoints(
            order.checkpoint,
            dataset,
            order.recipe,
            **where,
            every=order.checkpoint_every,
            teacher=None if teacher is None else teacher.facts,
        )
        start = kept.load() if kept is not None and order.resume else None
        budget, done, iterations = Budget(order.time_budget), len(start.losses) if start else 0, 0

        def advance(_: int, loss: float) -> None:
            nonlocal iterations
            iterations += 1
            screen.advance(f"{order.recipe.loss_name} {loss:.2f}")

        def evaluated(iteration: int, accuracy: float) -> None:
            screen.note(f"Iteration {iteration}: test accuracy {percent(accuracy)}")

        for note in dataset.notes:
            screen.note(note)
        if device.type == "cpu" and (slower := why_none()):
            screen.note(slower)
        if not order.resume and order.checkpoint.exists():
            screen.note(
                f"{order.checkpoint} is of an unfinished condensation, with which --resume would go on; it is"
                f" overwritten after {duration(order.checkpoint_every)}."
            )
        cached = cached_proxy(dataset, order.recipe, **where).exists()
        screen.stage(order.recipe.verb, order.recipe.steps, done=done)
        proxy = make_proxy(
            dataset,
            order.recipe,
            **where,
            on_iteration=advance,
            use_cache=not order.evaluate_every,
            course=Course(
                kept,
                start,
                lambda: budget.left <= 0,
                order.evaluate_every,
                evaluated,
                on_part=within_step_of(screen),
            ),
            teacher=teacher,
        )
        if doubt := order.recipe.doubt(proxy.history):
            screen.note(doubt)
    save_proxy(proxy, order.out)
    if kept is not None and proxy.finished:
        kept.discard()
    from_cache = cached and not iterations and not order.evaluate_every
    condensing = proxy.seconds - (teacher.training.seconds if teacher is not None else 0.0)
    return {
        "schema": 1,
        "proxy": str(order.out),
        "png": str(save_proxy_grid(proxy, order.picture)),
        "dataset": dataset.name,
        "images": len(proxy),
        "method": proxy.method,
        "ipc": order.recipe.ipc,
        "soft_labels": softness(proxy),
        "iterations": len(proxy.history),
        "planned_iterations": order.recipe.steps,
        "ended_by": _end(proxy, order.recipe),
        "resumed_from": 0 if from_cache else done,
        "loss": proxy.history[-1] if proxy.history else None,
        "evaluations": [{"iteration": number, "test_accuracy": found} for number, found in proxy.evaluations],
        "seconds": proxy.seconds,
        "seconds_per_iteration": condensing / max(1, len(proxy.history)),
        "peak_memory_bytes": peak_memory_bytes(device),
        "cached": from_cache,
    }


def _teacher(preset: str | None, dataset: ImageDataset, where: Mapping[str, Any], screen: Progress) -> Teacher | None:
    """Who gives soft labels; None where nobody does."""
    if preset is None:
        return None
    from nasproxy.coresets.whole_training import WholeRecipe
    from nasproxy.proxies.soft_labels import Teacher

    recipe = WholeRecipe.preset(preset)
    screen.stage("Training the teacher of soft labels", recipe.epochs)
    return Teacher.of(dataset, recipe, **where, on_epoch=lambda _, loss: screen.advance(f"training loss {loss:.2f}"))


def print_words(summary: dict[str, Any], recipe: ProxyMethod) -> None:
    """The same for a reader."""
    origin = "from the cache, made in" if summary["cached"] else "in"
    loss = "" if summary["loss"] is None else f", {recipe.loss_name} {summary['loss']:.2f}"
    typer.echo(
        f"{summary['proxy']}: {summary['images']} images of {summary['dataset']}, {origin}"
        f" {duration(summary['seconds'])}{loss}, peak memory {summary['peak_memory_bytes'] / 2**30:.1f} GiB; drawn in"
        f" {summary['png']}"
    )
    if summary["soft_labels"]:
        typer.echo(words_of_softness(summary["soft_labels"]))
    if summary["evaluations"]:
        last = summary["evaluations"][-1]
        typer.echo(f"Test accuracy of the default ConvNet trained on them: {percent(last['test_accuracy'])}")
    if summary["ended_by"] == "time-budget":
        typer.echo(
            f"The time budget ended it after {summary['iterations']} of {summary['planned_iterations']} iterations;"
            " --resume goes on to the full number."
        )
    elif summary["ended_by"] == "convergence":
        typer.echo(f"It converged after {summary['iterations']} of {summary['planned_iterations']} iterations.")


def words_of_softness(found: Mapping[str, float]) -> str:
    """What a reader is told of soft labels."""
    return (
        f"Soft labels: entropy {found['entropy']:.2f} nats on average, the most probable class is the image's in"
        f" {percent(found['agreement'])}"
    )


def _end(proxy: ProxySet, recipe: ProxyMethod) -> str:
    if not proxy.finished:
        return "time-budget"
    return "convergence" if len(proxy.history) < recipe.steps else "iterations"
