"""Everything a comparison was given, loaded and checked before anything is computed or written."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nasproxy.compare.names import first_of, seed_of
from nasproxy.compare.settings import DEFAULT_SAMPLE, QUICK_LIMIT, CompareSettings
from nasproxy.errors import InputError
from nasproxy.progress import Progress
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.make import load_matching_proxy
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.procedure import Procedure
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.proxies.registry import find_proxy
from nasproxy.search.constraints import measure_candidates
from nasproxy.search.costs import Costs
from nasproxy.search.plan import Plan, make_plan, run_facts
from nasproxy.spaces.candidate import Candidate
from nasproxy.spaces.sampling import stratified
from nasproxy.text import counted
from nasproxy.training.strategy import NONE

Ranker = ProxyMethod | Procedure | CandidateScore | ProxySet
"""How candidates are ranked: on images that a method makes, by training on real ones, without training, on a file's."""


@dataclass(frozen=True)
class ComparePlan:
    """What a comparison will do.

    Args:
        settings: with what presets decide filled in.
        common: data, space and machine, which all proxies share.
        candidates: those that every proxy scores.
        costs: of each, by id.
        sample: those trained on the whole data whatever a proxy says of them.
        proxies: how each ranks, by name; mixtures apart, but with what they hold again.
        notes: what the user should know of how candidates were chosen.
    """

    settings: CompareSettings
    common: Plan
    candidates: list[Candidate]
    costs: Costs
    sample: list[Candidate]
    proxies: dict[str, Ranker]
    notes: list[str]

    def of_proxy(self, name: str) -> Plan:
        """The plan of a run that ranks the candidates by one proxy."""
        method, common = self.proxies[name], self.common.settings
        settings = replace(common, proxy=first_of(name), seed=seed_of(name, common.seed))
        one = replace(self.common, settings=settings, directory=self.common.directory / "proxies" / name)
        if isinstance(method, CandidateScore):
            return replace(one.by(None), settings=replace(settings, epochs=1))
        if isinstance(method, ProxySet):
            return replace(one, given_proxy=method).by(None)
        return one.by(method)

    def of_whole(self) -> Plan:
        """The plan of the run that trains on the whole data."""
        settings = replace(self.common.settings, proxy="whole")
        return replace(self.common, settings=settings, directory=self.common.directory / "whole").by(None)

    def facts(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        facts = run_facts(self.common)
        identity = {**facts["identity"], **self.settings.identity()}
        return {**facts, "identity": identity, "proxies": list(self.settings.proxies)}


def plan_comparison(settings: CompareSettings, *, resume: bool, progress: Progress) -> ComparePlan:
    """Loads and checks everything the user named; writes nothing.

    Raises:
        InputError: what is wrong with it.
    """
    settings = settings.resolved()
    named = settings.named
    proxies = {name: _proxy(settings, first_of(name)) for name in named.members if first_of(name) not in named.files}
    # The images of a proxy are made later; any name with images stands for all.
    makes_images = any(isinstance(proxy, ProxyMethod) for proxy in proxies.values())
    common = make_plan(replace(settings.search, proxy="random"), resume=resume, makes_images=makes_images)
    given = {name: load_matching_proxy(path, common.dataset) for name, path in named.files.items()}
    rankers = {name: given[first_of(name)] if name not in proxies else proxies[name] for name in named.members}
    notes = [*common.dataset.notes, *(f"{name}: {proxy.doubt}" for name, proxy in given.items() if proxy.doubt)]
    candidates = _candidates(settings, common, notes)
    common = replace(common, candidates=candidates)
    candidates, costs = measure_candidates(common, progress)
    if left_out := len(common.candidates) - len(candidates):
        are = "is" if left_out == 1 else "are"
        notes.append(f"{counted(left_out, 'candidate')} {are} larger than asked for and left out.")
    sample = _sample(settings, candidates)
    if added := [name for name in named.rows if name not in named.names]:
        notes.append(f"The mixtures' parts are compared too: {', '.join(added)}.")
    if settings.search.soft_labels:
        notes.append(_about_soft_labels(rankers))
    if len(sample) < len(candidates):
        notes.append(f"The overall figures are of {len(sample)} candidates drawn at random from these.")
    plan = ComparePlan(settings, common, candidates, costs, sample, rankers, notes)
    notes += _training_notes(plan)
    return plan


def _training_notes(plan: ComparePlan) -> list[str]:
    """How trainings on the proxies' images differ from plain ones."""
    sets = _with_images(plan.proxies)
    alike: dict[str, list[str]] = {}
    for name in sets:
        alike.setdefault(plan.of_proxy(name).augmentation, []).append(name)
    notes = [
        f"Trainings on the images of {', '.join(names)} are augmented: {augmentation}."
        for augmentation, names in alike.items()
        if augmentation != NONE
    ]
    if sets and plan.common.settings.norm_statistics == "real":
        notes.append("Trainings on a proxy's images are scored under batch-norm statistics of real ones.")
    return notes


def _with_images(rankers: Mapping[str, Ranker]) -> list[str]:
    return [name for name, ranker in rankers.items() if isinstance(ranker, ProxyMethod | ProxySet)]


def _about_soft_labels(rankers: Mapping[str, Ranker]) -> str:
    images = _with_images(rankers)
    if not images:
        raise InputError(
            f"--soft-labels are of a proxy's images, and none of {', '.join(rankers)} makes any.",
            "Leave it out, or compare condensed or random images too.",
        )
    return (
        f"On {', '.join(images)}, candidates aim at soft labels: the class probabilities that a network trained on the"
        " whole training part gives to the images. Its training is in the minutes of each."
    )


def _proxy(settings: CompareSettings, name: str) -> ProxyMethod | Procedure | CandidateScore:
    found = find_proxy(name)
    if issubclass(found, CandidateScore):
        return found()
    return replace(settings.search, proxy=name).proxy_method()


def _candidates(settings: CompareSettings, common: Plan, notes: list[str]) -> list[Candidate]:
    """Those of the plan; of the quick preset's, a stratified sample where nobody said how many."""
    every, size = common.candidates, common.valid
    quick = settings.search.preset == "quick" and settings.search.limit is None and len(every) > QUICK_LIMIT
    if quick:
        configs = stratified(common.space, [c.config for c in every], QUICK_LIMIT, settings.search.seed)
        every = [Candidate.of(config) for config in configs]
        if settings.search.top_k > len(every):
            raise InputError(
                f"--top-k {settings.search.top_k} is more than the {len(every)} candidates of the quick preset.",
                "Use --limit for more candidates, or a smaller --top-k.",
            )
    if quick or settings.search.limit is not None:
        whose = " of the quick preset; --limit takes more" if quick else ""
        notes.append(
            f"{len(every)} of the {size} candidates of {common.space.name} take part: a stratified sample{whose}."
        )
    return every


def _sample(settings: CompareSettings, candidates: Sequence[Candidate]) -> list[Candidate]:
    if settings.sample is not None and settings.sample > len(candidates):
        raise InputError(
            f"--sample {settings.sample} is more than the {len(candidates)} candidates.",
            f"Use --sample {len(candidates)} or less.",
        )
    count = min(settings.sample or DEFAULT_SAMPLE, len(candidates))
    drawn = random.Random(f"sample {settings.search.seed}").sample(range(len(candidates)), count)
    return [candidates[position] for position in sorted(drawn)]
