"""Everything the user named, loaded and checked before anything is computed or written."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nasproxy.analysis.event_file import check_tensorboard
from nasproxy.condensation.checkpoints import Checkpoints
from nasproxy.condensation.condenser import Condenser
from nasproxy.coresets.whole_training import WholeRecipe
from nasproxy.credentials import without_password
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.datasets.per_class import check_class_sizes
from nasproxy.errors import InputError, RunError, nearest
from nasproxy.files import facts_of
from nasproxy.proxies.make import load_matching_proxy, open_checkpoints
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.procedure import Procedure
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.proxies.registry import proxy_names
from nasproxy.proxies.soft_labels import teacher_facts
from nasproxy.search.cluster import find_nodes, find_precision
from nasproxy.search.devices import check_workers, cluster_workers, default_workers, resolve_device
from nasproxy.search.import_path import check_folder
from nasproxy.search.run_directory import check_run, default_directory, token_of
from nasproxy.search.settings import SearchSettings
from nasproxy.search.study import of_another_run, studies_in
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.known import text_digest
from nasproxy.spaces.sampling import choose_candidates
from nasproxy.spaces.source import SpaceSource
from nasproxy.spaces.space import SearchSpace
from nasproxy.training.precision import resolve_precision
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.strategy import AUTO, NONE, parse_strategy, siamese_kinds, training_with
from nasproxy.versions import library_versions, machine_facts

HALF_MADE = "condensing.safetensors"
"""The file of a run's directory that a proxy is gone on with from, until it is made."""


@dataclass(frozen=True)
class Plan:
    """What a search will do.

    Args:
        settings: with what presets and the machine decide filled in.
        dataset: loaded, split.
        source: where workers find the search space.
        space: the search space.
        candidates: the valid ones that take part.
        device: that this process computes on; the workers' is ``settings.device``.
        precision: of what this process computes; the workers' is ``settings.precision``.
        workers: processes of Ray.
        given_proxy: the proxy, where a file was given.
        method: how the proxy is made, where it is made.
        procedure: how candidates are trained on real images instead, where they are.
        invalid: how many configurations are left out because they make no sense, by the reason that the space gives; of
            a space that is too large to be listed, those that were met.
        directory: of the run.
    """

    settings: SearchSettings
    dataset: ImageDataset
    source: SpaceSource
    space: SearchSpace
    candidates: list[Candidate]
    device: torch.device
    precision: str
    workers: int
    given_proxy: ProxySet | None
    method: ProxyMethod | None
    invalid: Counter[str]
    directory: Path
    procedure: Procedure | None = None

    @property
    def valid(self) -> int:
        """Configurations of the space that make sense, as far as is known."""
        return len(self.space) - self.invalid.total()

    @property
    def proxy_recipe(self) -> TrainingRecipe:
        """How a candidate is trained to be ranked."""
        if self.procedure is None:
            return replace(self.settings.proxy_recipe(), augmentation=self.augmentation)
        return self.procedure.recipe(self.dataset, self.settings.finalist_recipe(len(self.dataset.train)))

    @property
    def teacher_recipe(self) -> WholeRecipe | None:
        """How the network is trained that gives the proxy soft labels; None where it gets none, or has its own."""
        given = self.given_proxy if self.method is None else None
        if not self.settings.soft_labels or (given is not None and given.soft_labels is not None):
            return None
        return WholeRecipe.preset(self.settings.preset)

    @property
    def augmentation(self) -> str:
        """Of the training on a proxy set, with what ``auto`` and the dataset decide."""
        asked = self.settings.augmentation
        if asked != AUTO:
            kinds = siamese_kinds(asked, self.dataset.name)
            return asked if kinds is None else training_with(kinds)
        return training_with(self._condensed_with() or parse_strategy(AUTO, self.dataset.name))

    def _condensed_with(self) -> tuple[str, ...]:
        """The kinds of augmentation that the proxy's images were condensed with."""
        if isinstance(self.method, Condenser):
            return self.method.augmentations(self.dataset)
        said = self.given_proxy.recipe.get("augmentation") if self.given_proxy else None
        try:
            return parse_strategy(str(said or NONE), self.dataset.name)
        except InputError:  # a file of a method that means something else by the word
            return ()

    def checkpoints(self) -> Checkpoints | None:
        """Where the state of making the proxy is kept until it is made; None where it cannot be gone on with."""
        if self.method is None:
            return None
        where: Any = {"seed": self.settings.seed, "device": self.device, "precision": self.precision}
        teacher = None if self.teacher_recipe is None else teacher_facts(self.teacher_recipe, **where)
        return open_checkpoints(self.directory / HALF_MADE, self.dataset, self.method, **where, teacher=teacher)

    def by(self, method: ProxyMethod | Procedure | None) -> Plan:
        """The same plan with another way to rank; None is the given file, or no ranking at all."""
        if not isinstance(method, Procedure):
            return replace(self, method=method, procedure=None)
        plan = replace(self, method=None, procedure=method)
        return replace(plan, settings=replace(self.settings, epochs=plan.proxy_recipe.epochs))


def make_plan(settings: SearchSettings, *, resume: bool, makes_images: bool = True) -> Plan:
    """Loads and checks everything the user named; makes no run directory and changes none.

    Args:
        settings: of the search.
        resume: whether a run in ``settings.out`` is gone on with.
        makes_images: whether a method of the settings makes its images, so that each class must have enough of them.
    """
    if settings.tensorboard:
        check_tensorboard()
    if settings.out is not None:
        # Of any identity: what takes no dataset to know is said before one is loaded.
        check_run(settings.out, {}, resume=resume)
        _check_same_storage(settings, settings.out)
    elif resume:
        raise InputError("--resume needs the --out directory of the run to resume.", "Pass --out DIR.")
    settings = settings.resolved()
    settings, device, precision, workers = _place(settings)
    source = SpaceSource.parse(settings.space)
    method = _method(settings)
    dataset = load_dataset(
        settings.dataset, data_dir=settings.data_dir, image_size=settings.image_size, skip_broken=settings.skip_broken
    )
    given = load_matching_proxy(Path(settings.proxy), dataset) if method is None else None
    if makes_images and isinstance(method, ProxyMethod):
        check_class_sizes(dataset, settings.ipc)
    if settings.soft_labels and isinstance(method, Procedure):
        raise InputError(
            f"--soft-labels are of a proxy's images, and {settings.proxy} makes none.", "Leave out --soft-labels."
        )
    space = source.load()
    candidates, invalid = choose_candidates(space, dataset.image_size, limit=settings.limit, seed=settings.seed)
    _check_counts(settings, len(candidates))
    directory = settings.out or default_directory(space.name, settings.proxy)
    _check_storage(settings, directory)
    plan = Plan(
        settings, dataset, source, space, candidates, device, precision, workers, given, None, invalid, directory
    )
    return plan.by(method)


def _place(settings: SearchSettings) -> tuple[SearchSettings, torch.device, str, int]:
    """The settings with the workers' device and precision, those of this process, and the number of workers."""
    if settings.executor == "tune":
        check_folder()
    address, precision = settings.address, settings.precision
    nodes = None if address is None else find_nodes(address)
    device = here = resolve_device(settings.device, nodes)
    threads, share = settings.threads_per_worker, settings.gpus_per_worker
    if address is None or nodes is None:
        workers = settings.workers or default_workers(device, threads, share)
        if settings.executor == "tune":
            check_workers(workers, device, threads, share)
        else:
            check_workers(1, device, threads, min(1.0, share))
    else:
        workers = cluster_workers(settings.workers, nodes, device, threads, share)
        # The machine that a cluster's search is started on need not have what its nodes have.
        if device.type == "cuda" and not torch.cuda.is_available():
            here = torch.device("cpu")
        if device.type == "cuda" and precision == "auto":
            precision = find_precision(address)
    placed = replace(settings, device=device.type, precision=resolve_precision(precision, device))
    own = placed.precision if here.type == device.type else resolve_precision(settings.precision, here)
    return placed, here, own, workers


def _check_counts(settings: SearchSettings, candidates: int) -> None:
    ranked = min(settings.trials or candidates, candidates)
    for option, asked in {"--top-k": settings.top_k, "--calibrate": settings.calibrate or 0}.items():
        if asked > ranked:
            raise InputError(
                f"{option} {asked} is more than the {ranked} candidates.", f"Use {option} {ranked} or less."
            )


def _method(settings: SearchSettings) -> ProxyMethod | Procedure | None:
    """How the proxy is made, or what is trained on instead; None where it names a file."""
    names = proxy_names()
    if settings.proxy in names:
        return settings.proxy_method()
    reason = "there is no file of that name"
    try:
        is_file = Path(settings.proxy).is_file()
    except OSError as error:
        is_file, reason = False, f"no file of that name can be looked at: {error.strerror}"
    if not is_file:
        raise InputError(f"No proxy is called {settings.proxy!r}, and {reason}.", nearest(settings.proxy, names))
    return None


def _check_same_storage(settings: SearchSettings, directory: Path) -> None:
    """Makes sure that a run goes on with the study it began: another one would have none of its results.

    Raises:
        RunError: its study is in a database and none was named, or the other way round.
    """
    if (was := _storage_of(directory)) is None and settings.storage is None:
        return
    if was is not None and settings.storage is None:
        raise RunError(
            f"The study of the run in {directory} is in a database, {was}.",
            "Repeat --storage, with the password if there is one.",
        )
    if was is None and (directory / "run.json").exists():
        raise RunError(f"The study of the run in {directory} is its study.log.", "Leave out --storage.")


def _storage_of(directory: Path) -> str | None:
    """The storage that a run was begun with, without its password; None is the journal in its directory, or no run."""
    settings = facts_of(directory).get("settings")
    storage = settings.get("storage") if isinstance(settings, dict) else None
    return without_password(storage) if isinstance(storage, str) else None


def _check_storage(settings: SearchSettings, directory: Path) -> None:
    """Makes sure that a storage of the user's opens, and that it holds this run's study and no other's of its name."""
    if settings.storage is None:
        return
    name, was = study_name(settings, directory), _storage_of(directory)
    studies = studies_in(settings.storage)
    taken = name in studies
    if taken and not (directory / "run.json").exists():
        raise RunError(
            f"The storage holds a study {name} already, and {directory} no run to go with it.",
            "Choose an --out of another name.",
        )
    if taken and studies[name] not in (None, token_of(directory)):
        raise of_another_run(name)
    if not taken and was not in (None, without_password(settings.storage)):
        raise RunError(
            f"The storage holds no study {name}; the run in {directory} was begun with {was}.",
            "Repeat that --storage, or copy the study first.",
        )


def run_facts(plan: Plan) -> dict[str, Any]:
    """The content of ``run.json``."""
    dataset, space = plan.dataset, plan.space
    described = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "test": len(dataset.test),
        "channels": dataset.channels,
        "image_size": list(dataset.image_size),
        "class_names": list(dataset.class_names),
        "notes": list(dataset.notes),
    }
    choices = {name: list(values) for name, values in space.choices.items()}
    proxy = {"proxy_fingerprint": _proxy_digest(plan.given_proxy)} if plan.given_proxy else {}
    return {
        "schema": 1,
        "identity": {
            **plan.settings.identity(),
            # Resolved; None where there is none, as runs begun before this option existed have it.
            "augmentation": None if plan.procedure or plan.augmentation == NONE else plan.augmentation,
            "fingerprint": dataset.fingerprint,
            "choices": choices,
            "space_text": text_digest(plan.source),
            **proxy,
        },
        "settings": plan.settings.as_json(),
        "dataset": described,
        "space": {"name": space.name, "size": len(space), "choices": choices},
        "versions": library_versions(),
        "machine": machine_facts(plan.device.type),
    }


def _proxy_digest(proxy: ProxySet) -> str:
    tensors = [proxy.images, proxy.labels, *([] if proxy.soft_labels is None else [proxy.soft_labels])]
    return hashlib.blake2b(b"".join(tensor.numpy().tobytes() for tensor in tensors), digest_size=8).hexdigest()


def study_name(settings: SearchSettings, directory: Path) -> str:
    """What the study is called in its storage."""
    # In a storage of the user's, several runs may live side by side.
    return "nasproxy" if settings.storage is None else f"nasproxy-{directory.name}"
