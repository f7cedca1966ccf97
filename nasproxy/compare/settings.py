"""What a comparison is asked to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nasproxy.errors import InputError, nearest
from nasproxy.proxies.registry import proxy_names
from nasproxy.search.settings import SearchSettings

QUICK_LIMIT = 30
"""Candidates of the quick preset: what two cores rank by five sets of images in about a quarter of an hour."""
DEFAULT_SAMPLE = 40
WHOLE = "whole"
"""The name of the ground truth."""
MIXED = "+"
"""What stands between the parts of a mixture's name."""
DEFAULT_PROXIES = ("condensed", "random", "parameters", "multiply-adds", "synflow", "naswot")


@dataclass(frozen=True)
class CompareSettings:
    """Everything that decides what a comparison computes, and where.

    Args:
        search: what all proxies have in common; its ``proxy`` is not looked at, and every candidate trains in full.
        proxies: names of methods, procedures, and scores without training, each once; several joined by ``+`` are a
            mixture, whose parts are compared too.
        sample: random candidates that are trained on the whole data, for the figures free of selection; None takes 40,
            or all where there are fewer.
    """

    search: SearchSettings
    proxies: tuple[str, ...] = DEFAULT_PROXIES
    sample: int | None = None

    def __post_init__(self) -> None:
        known = proxy_names()
        if not self.proxies:
            raise InputError("There is no proxy to compare.", "Example: --proxies condensed,random,parameters")
        for name in self.proxies:
            _check_name(name, known)
        twice = sorted({name for name in self.proxies if self.proxies.count(name) > 1})
        if twice:
            raise InputError(f"--proxies names {', '.join(twice)} more than once.", "Name each proxy once.")
        if self.sample is not None and self.sample < 3:
            raise InputError(f"--sample must be 3 or more, got {self.sample}.", "A correlation needs 3 candidates.")
        if self.search.scheduler == "halving" or self.search.sampler != "grid":
            raise InputError("A comparison trains every candidate in full.", "Use scheduler none and sampler grid.")

    @property
    def rows(self) -> tuple[str, ...]:
        """All that are compared, the parts of a mixture before it where they were not named themselves."""
        spelt = (part for name in self.proxies for part in (*_unnamed(name, self.proxies), name))
        return tuple(dict.fromkeys(spelt))

    def resolved(self) -> CompareSettings:
        """The same with what the preset says in place of None."""
        return replace(self, search=replace(self.search, scheduler="none").resolved())

    def identity(self) -> dict[str, Any]:
        """What a resumed comparison must share with the one it resumes, besides its search's."""
        return {"proxies": list(self.proxies), "sample": self.sample}


def parts_of(name: str) -> tuple[str, ...]:
    """The names that a mixture consists of; of another proxy its own."""
    return tuple(name.split(MIXED))


def _unnamed(name: str, named: Sequence[str]) -> Iterator[str]:
    return (part for part in parts_of(name) if part not in named)


def _check_name(name: str, known: Sequence[str]) -> None:
    parts = parts_of(name)
    for part in parts:
        if part not in known:
            raise InputError(f"No proxy is called {part!r}.", nearest(part, known))
    if len(parts) > len(set(parts)):
        raise InputError(f"The mixture {name} holds a proxy more than once.", "Use --repeats to train more than once.")
    if len(parts) > 1 and WHOLE in parts:
        raise InputError(f"{WHOLE} is what proxies are compared with, and no part of a mixture.", "Leave it out.")
