"""nasproxy: neural architecture search on a condensed proxy of the data, and how far to trust it.

Example:
    >>> from nasproxy import SearchSettings, run_search
    >>> result = run_search(SearchSettings(dataset="digits", limit=60))  # doctest: +SKIP
    >>> result.summary["winner"]["config"]  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nasproxy.analysis.results import load_run
    from nasproxy.compare.run import run_compare
    from nasproxy.compare.scores import load_scores
    from nasproxy.compare.settings import CompareSettings
    from nasproxy.condensation.recipe import MatchingRecipe
    from nasproxy.datasets.load import load_dataset
    from nasproxy.errors import NasproxyError
    from nasproxy.proxies.candidate_score import CandidateScore
    from nasproxy.proxies.condensed import Condensed
    from nasproxy.proxies.make import make_proxy, random_proxy
    from nasproxy.proxies.method import ProxyMethod
    from nasproxy.proxies.procedure import Procedure
    from nasproxy.proxies.proxy_file import load_proxy, save_proxy
    from nasproxy.search.run import run_search
    from nasproxy.search.settings import SearchSettings
    from nasproxy.spaces.space import SearchSpace

_HOMES = {
    "NasproxyError": "nasproxy.errors",
    "SearchSettings": "nasproxy.search.settings",
    "SearchSpace": "nasproxy.spaces.space",
    "CandidateScore": "nasproxy.proxies.candidate_score",
    "CompareSettings": "nasproxy.compare.settings",
    "Condensed": "nasproxy.proxies.condensed",
    "load_scores": "nasproxy.compare.scores",
    "run_compare": "nasproxy.compare.run",
    "load_dataset": "nasproxy.datasets.load",
    "load_proxy": "nasproxy.proxies.proxy_file",
    "load_run": "nasproxy.analysis.results",
    "make_proxy": "nasproxy.proxies.make",
    "random_proxy": "nasproxy.proxies.make",
    "Procedure": "nasproxy.proxies.procedure",
    "ProxyMethod": "nasproxy.proxies.method",
    "MatchingRecipe": "nasproxy.condensation.recipe",
    "run_search": "nasproxy.search.run",
    "save_proxy": "nasproxy.proxies.proxy_file",
}

__all__ = [
    "CandidateScore",
    "CompareSettings",
    "Condensed",
    "MatchingRecipe",
    "NasproxyError",
    "Procedure",
    "ProxyMethod",
    "SearchSettings",
    "SearchSpace",
    "load_dataset",
    "load_proxy",
    "load_run",
    "load_scores",
    "make_proxy",
    "random_proxy",
    "run_compare",
    "run_search",
    "save_proxy",
]


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])


def __getattr__(name: str) -> Any:
    # Loaded when first used: importing nasproxy must load neither torch nor Ray.
    if name not in _HOMES:
        raise AttributeError(f"module 'nasproxy' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
