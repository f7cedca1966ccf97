"""What a comparison is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nasproxy.compare.names import ProxyNames, read_names
from nasproxy.errors import InputError
from nasproxy.files import facts_of
from nasproxy.proxies.registry import proxy_names
from nasproxy.search.settings import SearchSettings, read_fields

QUICK_LIMIT = 30
"""Candidates of the quick preset: what two cores rank by five sets of images in about a quarter of an hour."""
DEFAULT_SAMPLE = 40
DEFAULT_PROXIES = ("condensed", "random", "parameters", "multiply-adds", "synflow", "naswot")


@dataclass(frozen=True)
class CompareSettings:
    """Everything that decides what a comparison computes, and where.

    Args:
        search: what all proxies have in common; its ``proxy`` is not looked at, and every candidate trains in full.
        proxies: names of methods, procedures and scores without training, and proxy files, each once; several joined
            by ``+`` are a mixture, whose parts are compared too. What a mixture names twice is made and trained twice,
            independently.
        sample: random candidates that are trained on the whole data, for the figures free of selection; None takes 40,
            or all where there are fewer.
    """

    search: SearchSettings
    proxies: tuple[str, ...] = DEFAULT_PROXIES
    sample: int | None = None

    def __post_init__(self) -> None:
        read_fields(self)
        _ = self.named  # raises what is wrong with the names
        if self.sample is not None and self.sample < 3:
            raise InputError(f"--sample must be 3 or more, got {self.sample}.", "A correlation needs 3 candidates.")
        if self.search.scheduler not in (None, "none") or self.search.sampler != "grid":
            raise InputError("A comparison trains every candidate in full.", "Use scheduler none and sampler grid.")
        if self.search.time_budget is not None:
            raise InputError("A comparison has no time budget.", "Leave out time_budget, or use a smaller limit.")
        if self.search.calibrate is not None:
            raise InputError("A comparison trains a random sample of its own.", "Use sample in place of calibrate.")
        if self.search.objectives != ("accuracy",):
            raise InputError("A comparison ranks by accuracy alone.", "Leave out objectives.")
        if self.search.storage is not None:
            raise InputError("A comparison keeps the studies of its proxies in its directory.", "Leave out storage.")
        if self.search.tensorboard:
            raise InputError("A comparison writes no curves for TensorBoard.", "Leave out tensorboard.")

    @cached_property
    def named(self) -> ProxyNames:
        """What ``proxies`` stand for."""
        return read_names(self.proxies, proxy_names())

    def resolved(self) -> CompareSettings:
        """The same with what the preset says in place of None."""
        return replace(self, search=replace(self.search, scheduler="none").resolved())

    def identity(self) -> dict[str, Any]:
        """What a resumed comparison must share with the one it resumes, besides its search's; proxies may differ."""
        return {"sample": self.sample}


def asked_before(directory: Path) -> tuple[str, ...] | None:
    """The proxies that the comparison in ``directory`` was last asked for; None where it holds none."""
    facts = facts_of(directory)
    try:
        return tuple(map(str, facts.get("proxies") or facts["identity"]["proxies"]))
    except (KeyError, TypeError):
        return None
