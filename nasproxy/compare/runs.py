"""The runs that a comparison consists of: one for each proxy, and one on the whole data, each with its own study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from nasproxy.compare.names import first_of
from nasproxy.compare.plan import ComparePlan
from nasproxy.datasets.image_dataset import ImageDataset, Split
from nasproxy.errors import WriteError
from nasproxy.progress import Progress
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.procedure import Procedure
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.search.bench import Payload
from nasproxy.search.campaign import Campaign
from nasproxy.search.plan import Plan, run_facts, study_name
from nasproxy.search.run import execute, kept_proxy, payload_of
from nasproxy.search.run_directory import open_run
from nasproxy.search.settings import SearchSettings
from nasproxy.search.stopwatch import Stopwatch
from nasproxy.search.study import Measurement, Study, open_storage
from nasproxy.search.task import PROXY, WHOLE
from nasproxy.spaces.candidate import Candidate


@dataclass(frozen=True)
class ProxyRun:
    """What ranking all candidates by one proxy came to.

    Args:
        measurements: of each candidate, by id, one for each repeat; a failure has no scores.
        making: seconds that making its images took.
        images: that it keeps, or a training looks at; 0 for a score that looks at none.
        reason: why it could not be made, or None.
    """

    measurements: dict[str, list[Measurement]]
    making: float
    images: int
    reason: str | None = None


def accuracy_of(measurement: Measurement) -> float:
    """The last score's; NaN where there is none."""
    return measurement.scores[-1].accuracy if measurement.scores else math.nan


def run_proxy(plan: ComparePlan, name: str, progress: Progress) -> ProxyRun:
    """Ranks all candidates by one proxy; what an earlier run finished is read from its study.

    A proxy whose images cannot be made is a result, not an exception.

    Raises:
        NasproxyError: what would stop the other proxies too, such as a full disk.
    """
    one, method = plan.of_proxy(name), plan.proxies[name]
    with open_run(one.directory, run_facts(one), resume=True):
        if isinstance(method, CandidateScore):
            one = replace(one, settings=_placed(method, one.settings))
            payload = payload_of(one, _batch(one.dataset, method, one.settings.seed), method)
            making, images = 0.0, len(payload.splits[PROXY][1]) if method.looks_at_images else 0
        elif isinstance(method, Procedure):
            seed, whole = one.settings.seed, one.settings.finalist_recipe(len(one.dataset.train))
            payload = payload_of(one, method.images(one.dataset, seed=seed))
            making, images = 0.0, method.images_seen(one.dataset, whole, seed=seed)
        else:
            try:
                proxy = kept_proxy(one, progress, Stopwatch())
            except WriteError:
                raise
            except Exception as error:  # a stranger's method may raise anything
                return ProxyRun({}, 0.0, 0, f"{type(error).__name__}: {error}")
            payload, making, images = payload_of(one, proxy), proxy.seconds, len(proxy)
            if isinstance(method, ProxySet) and name != first_of(name):
                making, images = 0.0, 0  # the images of a file are there, however often they are trained on
        study = _run(one, plan, payload, progress, finalists=(), rank=True, title=name)
        return ProxyRun(_measured(study, plan.candidates, PROXY, one.settings.epochs, one), making, images)


def run_whole(plan: ComparePlan, chosen: Sequence[Candidate], progress: Progress) -> dict[str, list[Measurement]]:
    """Trains candidates on the whole data, each once for each repeat; returns their measurements by id."""
    one = plan.of_whole()
    with open_run(one.directory, run_facts(one), resume=True):
        study = _run(one, plan, payload_of(one, None), progress, finalists=chosen, rank=False, title="Whole data")
        return _measured(study, chosen, WHOLE, one.settings.finalist_epochs or 1, one)


def _run(
    one: Plan,
    plan: ComparePlan,
    payload: Payload,
    progress: Progress,
    *,
    finalists: Sequence[Candidate],
    rank: bool,
    title: str,
) -> Study:
    storage, name = open_storage(one.directory, None), study_name(one.settings, one.directory)
    study = Study(storage, name, one.space.choices, one.space.distributions)
    campaign = Campaign(
        one.settings,
        plan.candidates,
        plan.costs,
        study,
        train_images=len(one.dataset.train),
        proxy_recipe=one.proxy_recipe,
        finalists=finalists,
        rank=rank,
        title=title,
        accuracies=payload.score is None,
        keep_weights=lambda _: None,
        has_weights=lambda _: True,
        progress=progress,
    )
    execute(one, campaign, payload)
    return study


def _placed(score: CandidateScore, settings: SearchSettings) -> SearchSettings:
    """Where a score without training is worked out."""
    if settings.device == "mps":
        settings = replace(settings, device="cpu")  # several need float64, which MPS lacks
    # Without images it takes less time than starting workers does.
    inline = not score.looks_at_images and settings.address is None
    return replace(settings, executor="inline") if inline else settings


def _batch(dataset: ImageDataset, score: CandidateScore, seed: int) -> Split:
    """The random training images that a score looks at, or two for their shape."""
    count = score.batch if score.looks_at_images else 2
    picked = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(seed))[:count]
    return dataset.train.take(picked)


def _measured(
    study: Study, candidates: Sequence[Candidate], data: str, epochs: int, one: Plan
) -> dict[str, list[Measurement]]:
    missing = Measurement((), math.nan, failure="the network could not be built")
    repeats = range(one.settings.repeats or 1)
    return {
        candidate.id: [study.measurements.get((candidate.id, data, epochs, repeat), missing) for repeat in repeats]
        for candidate in candidates
    }
