"""Which candidates are small enough to take part."""

from __future__ import annotations

import math
from pathlib import Path

from nasproxy.errors import InputError
from nasproxy.files import read_rows
from nasproxy.progress import Progress
from nasproxy.search.costs import Cost, Costs
from nasproxy.search.plan import Plan
from nasproxy.search.settings import SearchSettings
from nasproxy.spaces.candidate import Candidate
from nasproxy.text import count, counted


def measure_candidates(plan: Plan, progress: Progress) -> tuple[list[Candidate], Costs]:
    """The candidates within ``--max-parameters`` and ``--max-multiply-adds``, and the costs of all.

    Without limits, a sampler's candidates are measured as they are proposed.

    Raises:
        InputError: fewer are within the limits than become finalists.
    """
    dataset, settings = plan.dataset, plan.settings
    costs = Costs(
        plan.space,
        plan.candidates,
        channels=dataset.channels,
        image_size=dataset.image_size,
        num_classes=dataset.num_classes,
        known=_recorded(plan.directory / "results.csv"),
    )
    limits = {"parameters": settings.max_parameters, "multiply_adds": settings.max_multiply_adds}
    if settings.sampler != "grid" and not any(limits.values()):
        _say_if_all_are_proposed(settings, len(costs), progress)
        return plan.candidates, costs
    progress.stage("Measuring candidates", len(plan.candidates))
    small = []
    for candidate in plan.candidates:
        cost = costs[candidate.id]
        if all(getattr(cost, name) <= (most or math.inf) for name, most in limits.items()):
            small.append(candidate)
        progress.advance()
    if len(small) < settings.top_k:
        raise InputError(
            f"{len(small)} of {len(costs)} candidates are within {_asked(settings)}, and {settings.top_k} are to become"
            " finalists.",
            _sizes(costs),
        )
    if left_out := len(costs) - len(small):
        progress.note(f"{left_out} candidates are larger than {_asked(settings)} and are left out.")
        if (settings.calibrate or 0) > len(small):
            few = f"all {len(small)} candidates that are within {_asked(settings)}"
            progress.note(f"--calibrate {settings.calibrate} takes {few}.")
    _say_if_all_are_proposed(settings, len(small), progress)
    return small, costs


def _recorded(path: Path) -> dict[str, Cost]:
    """The costs that the table of a run has, which goes on; of none that may not have been built, or is damaged."""
    try:
        header, *rows = read_rows(path)
        columns = [header.index(name) for name in ("id", "parameters", "multiply_adds")]
        found = [tuple(row[column] for column in columns) for row in rows]
        costs = {name: Cost(int(parameters), int(multiply_adds)) for name, parameters, multiply_adds in found}
    except (ValueError, IndexError):  # a run that just begins has none
        return {}
    return {name: cost for name, cost in costs.items() if cost.parameters > 0 and cost.multiply_adds >= 0}


def _say_if_all_are_proposed(settings: SearchSettings, candidates: int, progress: Progress) -> None:
    if (settings.trials or 0) > candidates:
        progress.note(
            f"--trials {settings.trials} is more than there are: the sampler proposes each of the"
            f" {counted(candidates, 'candidate')} once."
        )


def _asked(settings: SearchSettings) -> str:
    limits = {"--max-parameters": settings.max_parameters, "--max-multiply-adds": settings.max_multiply_adds}
    return " and ".join(f"{option} {most}" for option, most in limits.items() if most is not None)


def _sizes(costs: Costs) -> str:
    built = [cost for cost in costs.values() if cost.failure is None]
    parameters, multiply_adds = ([getattr(c, name) for c in built] for name in ("parameters", "multiply_adds"))
    if not built:
        return "None of them could be built."
    return (
        f"Candidates have {count(min(parameters))} to {count(max(parameters))} parameters and take"
        f" {count(min(multiply_adds))} to {count(max(multiply_adds))} multiply-adds an image."
    )
