"""From the name of a proxy, or the path of a proxy file, to the images; made once and kept."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from nasproxy.condensation.checkpoints import CHECKPOINT_EVERY, Checkpoints
from nasproxy.condensation.condenser import Condenser
from nasproxy.condensation.course import Course
from nasproxy.coresets.random import RandomImages
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import ProxyError
from nasproxy.files import cached_file, make_folder
from nasproxy.proxies.condensed import Condensed
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.proxies.soft_labels import Teacher
from nasproxy.training.process import alone
from nasproxy.versions import deciding_versions, library_versions


def make_proxy(
    dataset: ImageDataset,
    method: ProxyMethod,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    on_iteration: Callable[[int, float], None] | None = None,
    use_cache: bool = True,
    course: Course | None = None,
    teacher: Teacher | None = None,
) -> ProxySet:
    """The proxy that ``method`` makes of ``dataset``, from the cache if it was made before.

    The cache keeps images and their classes, never soft labels: these follow from the images and the teacher.

    Args:
        dataset: what to stand for.
        method: with its settings.
        seed: of everything drawn at random.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.
        on_iteration: called after each of ``method.steps`` with its number (from 1) and a loss.
        use_cache: False makes it in any case; what is made is kept either way.
        course: where to go on from, what to keep, and when to stop, for a method that is a :class:`Condenser`; others
            take no notice. The checkpoint is the caller's to discard, once the finished proxy is where it is to be.
        teacher: gives the images soft labels; None leaves them without.

    Raises:
        DatasetError: a class has too few images.
        DivergedError: a loss left the finite numbers.
        ProxyError: what the method made is no proxy of the dataset.
        CheckpointError: the state to go on from is of something else.
        RunError: another thread of this process trains.
        WriteError: the cache, or a checkpoint, cannot be written.
    """
    method = method.for_dataset(dataset)
    settings = _settings(method, seed, device, precision)
    kept = cached_proxy(dataset, method, seed=seed, device=device, precision=precision)
    if use_cache and kept.exists():
        try:
            found = load_matching_proxy(kept, dataset)
        except ProxyError:
            # A damaged cache entry is no error of the user's: it is made again.
            kept.unlink(missing_ok=True)
        else:
            # What was measured on the way was measured without the teacher.
            return found if teacher is None else teacher.label(replace(found, evaluations=()))
    make_folder(kept.parent)  # before the work, which would be lost without it
    where: Any = {"seed": seed, "device": device, "precision": precision}
    if course is not None and teacher is not None:
        course = replace(course, soft_labels=teacher.soft_labels)
    with alone():
        if isinstance(method, Condenser):
            made = method.make(dataset, **where, on_iteration=on_iteration, course=course)
        else:
            made = method.make(dataset, **where, on_iteration=on_iteration)
    _check_made(made, method, dataset)
    proxy = ProxySet(
        images=made.images.detach(),
        labels=made.labels,
        method=method.name,
        recipe=settings,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        class_names=dataset.class_names,
        normalisation=dataset.normalisation,
        seconds=float(made.seconds),
        history=tuple(map(float, made.losses)),
        versions=library_versions(),
        evaluations=made.evaluations,
        finished=made.finished,
    )
    if _is_kept(method) and proxy.finished:
        save_proxy(proxy if teacher is None else replace(proxy, evaluations=()), kept)
    return proxy if teacher is None else teacher.label(proxy)


def _check_made(made: object, method: ProxyMethod, dataset: ImageDataset) -> None:
    """Makes sure that what a stranger's method has made can be trained on, and kept.

    Raises:
        ProxyError: it cannot.
    """
    if wrong := _what_is_wrong(made, dataset):
        raise ProxyError(
            f"The method {method.name} made no proxy of {dataset.name}: {wrong}.",
            f"Mend {type(method).__module__}.{type(method).__qualname__}.make, which the tests of"
            " nasproxy.testing.ProxyMethodTests help with.",
        )


def _what_is_wrong(made: object, dataset: ImageDataset) -> str | None:
    if not isinstance(made, Condensed):
        return f"expected a Condensed, got a {type(made).__name__}"
    images, labels = made.images, made.labels
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, torch.Tensor):
            return f"expected {name} that are a Tensor, got a {type(value).__name__}"
        if value.device.type != "cpu":
            return f"expected {name} on the CPU, got them on {value.device}"
    expected = (dataset.channels, *dataset.image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected or len(images) == 0:
        return f"expected images of shape (n, {', '.join(map(str, expected))}), got {tuple(images.shape)}"
    if labels.shape != (len(images),):
        return f"expected {len(images)} labels, one for each image, got labels of shape {tuple(labels.shape)}"
    if not images.is_floating_point() or labels.dtype != torch.int64:
        return f"expected images of a floating-point type and labels of int64, got {images.dtype} and {labels.dtype}"
    if not bool(images.float().isfinite().all()):
        return "some pixels are infinite or not a number"
    if int(labels.min()) < 0 or int(labels.max()) >= dataset.num_classes:
        outside = f"{int(labels.min())} to {int(labels.max())}"
        return f"expected labels from 0 to {dataset.num_classes - 1}, one for each class, got {outside}"
    numbers = (made.seconds, *made.losses) if isinstance(made.losses, Sequence) else (made.losses,)
    if not all(isinstance(number, Real) and math.isfinite(number) for number in numbers):
        return f"expected seconds and losses that are finite numbers, got {made.seconds!r} and {made.losses!r}"
    return None


def open_checkpoints(
    path: Path,
    dataset: ImageDataset,
    method: ProxyMethod,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    every: float = CHECKPOINT_EVERY,
    teacher: Mapping[str, Any] | None = None,
) -> Checkpoints | None:
    """Where the state of making this proxy is kept while it is made; None where ``method`` cannot be gone on with.

    The file of a condensation of fewer or more iterations can be gone on with; all else must be the same.

    Args:
        path: of the file.
        dataset: what the proxy stands for.
        method: how it is made.
        seed: of everything drawn at random.
        device: where it is computed.
        precision: ``bfloat16`` or ``float32``.
        every: seconds between two writes.
        teacher: facts of the one that the proxy gets soft labels from; None where it gets none.
    """
    if not isinstance(method, Condenser):
        return None
    settings = _settings(method.for_dataset(dataset), seed, device, precision)
    del settings["iterations"]
    facts = {"method": method.name, "fingerprint": dataset.fingerprint, **settings, **deciding_versions()}
    if teacher is not None:  # by which the images are evaluated
        facts["soft_labels"] = teacher
    return Checkpoints(path, facts, iterations=method.iterations, every=every)


def _is_kept(method: ProxyMethod) -> bool:
    # nasproxy's own that take no steps make a proxy again as fast as it is read; how long a stranger's takes is not
    # known. Of a class that was typed into an interpreter nobody can tell whether it is still the same.
    return method.steps > 0 if _is_own(method) else _code(method) is not None


def _is_own(method: ProxyMethod) -> bool:
    return type(method).__module__.startswith("nasproxy.")


def _code(method: ProxyMethod) -> str | None:
    """A digest of the file that a method's class is written in; None where there is none."""
    try:
        return hashlib.sha256(Path(inspect.getfile(type(method))).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return None


def _settings(method: ProxyMethod, seed: int, device: torch.device, precision: str) -> dict[str, Any]:
    if not method.steps:
        return {**asdict(method), "seed": seed}
    return {**asdict(method), "seed": seed, "precision": precision, "device": device.type}


def random_proxy(dataset: ImageDataset, ipc: int, *, seed: int) -> ProxySet:
    """``ipc`` random real training images of each class.

    Raises:
        DatasetError: a class has too few images.
    """
    return make_proxy(dataset, RandomImages(ipc), seed=seed, device=torch.device("cpu"), precision="float32")


def load_matching_proxy(path: Path, dataset: ImageDataset) -> ProxySet:
    """A proxy that was made before, checked against ``dataset``.

    Raises:
        ProxyError: the file is unusable, or was made from another dataset.
    """
    proxy = load_proxy(path)
    proxy.check_matches(dataset)
    return proxy


def cached_proxy(
    dataset: ImageDataset, method: ProxyMethod, *, seed: int, device: torch.device, precision: str
) -> Path:
    """Where the cache keeps this proxy, if it has been made, as these versions make it."""
    method = method.for_dataset(dataset)
    settings = _settings(method, seed, device, precision)
    more = {} if _is_own(method) else {"precision": precision, "device": device.type, "code": _code(method)}
    facts = {"method": method.name, "fingerprint": dataset.fingerprint, **settings, **deciding_versions(), **more}
    return cached_file("proxies", method.name, facts)
