"""The methods that packages have registered, ours among them."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint

from nasproxy.entry_points import by_package
from nasproxy.errors import InputError, nearest
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.procedure import Procedure

CONDENSED = "condensed"
"""The name under which ``--proxy`` knows the default condensation method."""
DEFAULT_CONDENSER = "dc"
CONDENSERS, PROXIES = "nasproxy.condensers", "nasproxy.proxies"


def condenser_names() -> list[str]:
    """What ``condense --method`` can name, sorted; nothing is imported."""
    return sorted(importlib.metadata.entry_points(group=CONDENSERS).names)


def proxy_names() -> list[str]:
    """What ``--proxy`` can name, besides a file; nothing is imported."""
    return [CONDENSED, *condenser_names(), *sorted(importlib.metadata.entry_points(group=PROXIES).names)]


def find_method(name: str) -> type[ProxyMethod]:
    """The method that is registered under ``name``.

    Raises:
        InputError: none is, two packages register it, or what is registered cannot be loaded or is no
            :class:`ProxyMethod`.
    """
    found = find_proxy(name)
    if issubclass(found, Procedure):
        raise InputError(
            f"{name!r} makes no images: it trains networks on real ones.", "nasproxy search --proxy takes it."
        )
    if issubclass(found, CandidateScore):
        raise InputError(
            f"{name!r} makes no images: it scores networks without training them.",
            "nasproxy compare --proxies takes it.",
        )
    return found


def find_proxy(name: str) -> type[ProxyMethod | Procedure | CandidateScore]:
    """What is registered under ``name``: a way to make images, one to train on real ones, or a score without training.

    Raises:
        InputError: nothing is, two packages register it, or what is registered cannot be loaded or is none of them.
    """
    entry = _entry_point(DEFAULT_CONDENSER if name == CONDENSED else name)
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The proxy {name!r} is registered as {entry.value}, which cannot be loaded: {error}.",
            "Install the package that registers it again.",
        ) from error
    except (Exception, SystemExit) as error:  # of the package's own code
        from nasproxy.spaces.source import code_location, error_text  # it loads torch

        raise InputError(
            f"The proxy {name!r} is registered as {entry.value}, which cannot be loaded:"
            f" {error_text(error, code_location(error, entry.module))}.",
            "With --debug the whole traceback is shown.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, (ProxyMethod, Procedure, CandidateScore))):
        raise InputError(
            f"{name!r} ranks no networks: {found!r} is no subclass of ProxyMethod, Procedure or CandidateScore."
        )
    return found


def _entry_point(name: str) -> EntryPoint:
    registered = importlib.metadata.entry_points()
    both = [*registered.select(group=CONDENSERS, name=name), *registered.select(group=PROXIES, name=name)]
    packages = by_package(both)
    if not packages:
        raise InputError(f"No proxy is called {name!r}.", nearest(name, proxy_names()))
    if len(packages) > 1:
        raise InputError(
            f"The packages {' and '.join(packages)} both register a proxy {name!r}.", "Uninstall one of them."
        )
    (entry,) = packages.values()
    return entry
