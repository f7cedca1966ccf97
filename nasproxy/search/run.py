"""A whole search, from the dataset's name to the winner's folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import nn

from nasproxy.analysis.report import write_report
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import InputError, NasproxyError, SpaceError, nearest
from nasproxy.files import write_atomically
from nasproxy.networks.materialise import materialise
from nasproxy.progress import Progress, Silent
from nasproxy.proxies.make import PROXIES, condensed_proxy, load_matching_proxy, random_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.search.bench import Payload
from nasproxy.search.campaign import Campaign
from nasproxy.search.candidate import Candidate
from nasproxy.search.costs import Cost, measure_cost
from nasproxy.search.devices import check_workers, default_workers, resolve_device
from nasproxy.search.inline import run_inline
from nasproxy.search.results import results_table, summarise
from nasproxy.search.run_directory import default_directory, open_run, write_json
from nasproxy.search.settings import SearchSettings
from nasproxy.search.space import SearchSpace
from nasproxy.search.space_source import SpaceSource
from nasproxy.search.study import Study, open_storage
from nasproxy.search.task import Outcome
from nasproxy.search.winner import WinnerError, write_winner
from nasproxy.training.precision import resolve_precision
from nasproxy.training.process import prepare_process
from nasproxy.versions import library_versions, machine_facts, usable_cores


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        summary: the document that ``nasproxy search --json`` prints.
        table: ``results.csv``: one row a candidate, best first.
        directory: the run's.
    """

    summary: dict[str, Any]
    table: pd.DataFrame
    directory: Path


@dataclass(frozen=True)
class _Plan:
    """What is known before anything is computed or written."""

    settings: SearchSettings
    dataset: ImageDataset
    source: SpaceSource
    space: SearchSpace
    candidates: list[Candidate]
    device: torch.device
    workers: int
    given_proxy: ProxySet | None
    invalid: int


def run_search(settings: SearchSettings, *, resume: bool = False, progress: Progress | None = None) -> SearchResult:
    """Condenses, ranks all candidates, trains the best on the whole data, and writes the winner and a report.

    Everything the user gave is checked before a directory is made.

    Args:
        settings: what to do.
        resume: finish the run in ``settings.out``, or start it where there is none.
        progress: told what goes on.

    Raises:
        NasproxyError: with what is wrong and what to do about it.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    plan = _plan(settings, resume=resume)
    for note in plan.dataset.notes:
        progress.note(note)
    if plan.invalid:
        progress.note(f"{plan.invalid} configurations make no sense at this image size and are left out.")
    prepare_process(usable_cores())
    directory = plan.settings.out
    assert directory is not None
    with open_run(directory, _facts(plan), resume=resume):
        proxy, condense_seconds = _proxy(plan, directory, progress)
        storage = open_storage(directory, plan.settings.storage)
        study = Study(storage, _study_name(plan.settings, directory), plan.space.choices)
        costs = _costs(plan, progress)
        campaign = _campaign(plan, directory, study, costs, progress)
        try:
            _execute(plan, campaign, proxy)
        finally:
            # Also when interrupted: what is there can be looked at.
            table = results_table(plan.candidates, costs, study, campaign.ranking)
            with contextlib.suppress(NasproxyError):
                write_atomically(directory / "results.csv", table.to_csv(index=False).encode())
        seconds = {"condense": condense_seconds, **campaign.stage_seconds}
        summary = _summary(plan, campaign, table, study, directory, seconds)
        summary["winner_directory"] = _hand_over(plan, summary, directory, progress)
        summary["seconds"]["total"] = time.perf_counter() - began
        write_json(directory / "summary.json", summary)
        write_report(directory)
    return SearchResult(summary, table, directory)


def _plan(settings: SearchSettings, *, resume: bool) -> _Plan:
    """Loads and checks everything the user named; writes nothing."""
    settings = settings.resolved()
    device = resolve_device(settings.device)
    settings = replace(settings, device=device.type, precision=resolve_precision(settings.precision, device))
    workers = settings.workers or default_workers(device, settings.threads_per_worker, settings.gpus_per_worker)
    check_workers(workers if settings.executor == "tune" else 1, device, settings.threads_per_worker)
    source = SpaceSource.parse(settings.space)
    _check_proxy_name(settings.proxy)
    dataset = load_dataset(
        settings.dataset, data_dir=settings.data_dir, image_size=settings.image_size, skip_broken=settings.skip_broken
    )
    given = load_matching_proxy(Path(settings.proxy), dataset) if settings.proxy not in PROXIES else None
    if given is None:
        _check_class_sizes(dataset, settings.ipc)
    space = source.load()
    candidates, invalid = _candidates(space, settings, dataset.image_size)
    if settings.top_k > len(candidates):
        raise InputError(
            f"--top-k {settings.top_k} is more than the {len(candidates)} candidates.",
            f"Use --top-k {len(candidates)} or less.",
        )
    if settings.out is None:
        if resume:
            raise InputError("--resume needs the --out directory of the run to resume.", "Pass --out DIR.")
        settings = replace(settings, out=default_directory(space.name, settings.proxy))
    return _Plan(settings, dataset, source, space, candidates, device, workers, given, invalid)


def _check_proxy_name(name: str) -> None:
    if name not in PROXIES and not Path(name).is_file():
        raise InputError(f"No proxy is called {name!r}, and there is no file of that name.", nearest(name, PROXIES))


def _check_class_sizes(dataset: ImageDataset, ipc: int) -> None:
    for name, members in zip(dataset.class_names, dataset.train.indices_by_class(dataset.num_classes), strict=True):
        if len(members) < ipc:
            raise InputError(
                f"--ipc {ipc} was asked for, but class {name!r} has {len(members)} training images.",
                f"Use --ipc {len(members)} or less, or add images to that class.",
            )


def _candidates(
    space: SearchSpace, settings: SearchSettings, image_size: tuple[int, int]
) -> tuple[list[Candidate], int]:
    limit = settings.limit
    if limit is not None and limit > len(space):
        raise InputError(f"--limit {limit} is more than the {len(space)} candidates of {space.name}.", "Leave it out.")
    configs = list(space) if limit is None else space.sample(limit, settings.seed)
    answers = [space.is_valid(config, image_size) for config in configs]
    valid = [Candidate.of(config) for config, answer in zip(configs, answers, strict=True) if answer is True]
    if not valid:
        reason = next((answer for answer in answers if isinstance(answer, str)), "is_valid returned False")
        raise SpaceError(
            f"No candidate of {space.name} is valid at {image_size[0]}×{image_size[1]} pixels: {reason}.",
            "Choose a larger --image-size.",
        )
    return valid, len(configs) - len(valid)


def _facts(plan: _Plan) -> dict[str, Any]:
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
        "identity": {**plan.settings.identity(), "fingerprint": dataset.fingerprint, "choices": choices, **proxy},
        "settings": plan.settings.as_json(),
        "dataset": described,
        "space": {"name": space.name, "size": len(space), "choices": choices},
        "versions": library_versions(),
        "machine": machine_facts(plan.device.type),
    }


def _proxy(plan: _Plan, directory: Path, progress: Progress) -> tuple[ProxySet, float]:
    """The proxy, from the run directory if it is resumed, and the seconds that getting it took."""
    began = time.perf_counter()
    kept = directory / "proxy.safetensors"
    settings = plan.settings
    if kept.exists():
        proxy = load_proxy(kept)
        proxy.check_matches(plan.dataset)
        return proxy, 0.0
    if plan.given_proxy is not None:
        proxy = plan.given_proxy
    elif settings.proxy == "random":
        proxy = random_proxy(plan.dataset, settings.ipc, seed=settings.seed)
    else:
        recipe = settings.matching_recipe()
        progress.stage("Condensing", recipe.iterations)
        proxy = condensed_proxy(
            plan.dataset,
            recipe,
            seed=settings.seed,
            device=plan.device,
            precision=settings.precision,
            on_iteration=lambda _, loss: progress.advance(f"matching loss {loss:.2f}"),
        )
    save_proxy(proxy, kept)
    return proxy, time.perf_counter() - began


def _costs(plan: _Plan, progress: Progress) -> dict[str, Cost]:
    progress.stage("Measuring candidates", len(plan.candidates))
    costs = {}
    for candidate in plan.candidates:
        costs[candidate.id] = measure_cost(
            plan.space,
            candidate,
            channels=plan.dataset.channels,
            image_size=plan.dataset.image_size,
            num_classes=plan.dataset.num_classes,
        )
        progress.advance()
    return costs


def _campaign(plan: _Plan, directory: Path, study: Study, costs: Mapping[str, Cost], progress: Progress) -> Campaign:
    def keep_weights(outcome: Outcome) -> None:
        (directory / "finalists").mkdir(exist_ok=True)
        # Tied tensors share memory, which safetensors refuses: each is written by itself.
        tensors = {name: value.clone().contiguous() for name, value in outcome.weights.items()}
        write_atomically(_weights_file(directory, outcome.task.candidate.id, outcome.task.repeat), save(tensors))

    return Campaign(
        plan.settings,
        plan.candidates,
        costs,
        study,
        train_images=len(plan.dataset.train),
        keep_weights=keep_weights,
        progress=progress,
    )


def _execute(plan: _Plan, campaign: Campaign, proxy: ProxySet) -> None:
    payload = Payload.of(
        plan.source,
        plan.dataset,
        proxy,
        device=plan.device.type,
        precision=plan.settings.precision,
        threads=plan.settings.threads_per_worker,
    )
    if plan.settings.executor == "inline":
        run_inline(campaign, payload)
        return
    from nasproxy.search.tune import run_on_tune

    gpus = plan.settings.gpus_per_worker if plan.device.type == "cuda" else 0.0
    run_on_tune(campaign, payload, workers=plan.workers, gpus_per_worker=gpus)


def _summary(
    plan: _Plan,
    campaign: Campaign,
    table: pd.DataFrame,
    study: Study,
    directory: Path,
    seconds: dict[str, float],
) -> dict[str, Any]:
    return {
        "schema": 1,
        "space": plan.space.name,
        "dataset": plan.dataset.name,
        "proxy": plan.settings.proxy,
        **summarise(campaign, plan.candidates, table, study),
        "seconds": seconds,
        "run": str(directory),
    }


def _hand_over(plan: _Plan, summary: Mapping[str, Any], directory: Path, progress: Progress) -> str | None:
    """Writes ``winner/``; returns its path, or None where no finalist could be trained."""
    winner = summary["winner"]
    if winner is None:
        return None
    weights = load_file(_weights_file(directory, winner["id"], 0))
    model = _rebuilt(plan, winner["config"])
    model.load_state_dict(weights)
    try:
        write_winner(
            directory / "winner",
            model=model,
            config=winner["config"],
            candidate_id=winner["id"],
            space=plan.space.name,
            dataset=plan.dataset,
            scores={name: winner[name] for name in ("proxy_accuracy", "whole_accuracy", "test_accuracy")},
            versions=library_versions(),
        )
    except WinnerError as error:
        progress.note(str(error))
    return str(directory / "winner")


def _rebuilt(plan: _Plan, config: Mapping[str, Any]) -> nn.Module:
    dataset = plan.dataset
    model = plan.space.build(
        dict(config),
        in_channels=dataset.channels,
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
    )
    return materialise(model, torch.zeros(2, dataset.channels, *dataset.image_size), dataset.num_classes)


def _weights_file(directory: Path, candidate_id: str, repeat: int) -> Path:
    return directory / "finalists" / f"{candidate_id}-{repeat}.safetensors"


def _proxy_digest(proxy: ProxySet) -> str:
    import hashlib

    return hashlib.blake2b(proxy.images.numpy().tobytes() + proxy.labels.numpy().tobytes(), digest_size=8).hexdigest()


def _study_name(settings: SearchSettings, directory: Path) -> str:
    # In a storage of the user's, several runs may live side by side.
    return "nasproxy" if settings.storage is None else f"nasproxy-{directory.name}"
