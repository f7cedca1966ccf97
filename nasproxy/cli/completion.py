"""The names to which a shell completes what is typed; where none fits, it completes files itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Completer = Callable[[str], list[str]]
"""From what is typed to all that it can become. Typer finds the argument by its name, ``incomplete``."""


def among(*names: str) -> Completer:
    """Completes to fixed names."""
    return _completer(lambda: names)


def _completer(names: Callable[[], Iterable[str]]) -> Completer:
    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _spaces() -> Iterable[str]:
    from nasproxy.spaces.source import registered_spaces

    return registered_spaces()


def _datasets() -> Iterable[str]:
    from nasproxy.datasets.catalogue import available_datasets

    return [info.name for info in available_datasets()]


def _proxies() -> Iterable[str]:
    from nasproxy.proxies.registry import proxy_names

    return proxy_names()


def _condensers() -> Iterable[str]:
    from nasproxy.proxies.registry import condenser_names

    return condenser_names()


space_names = _completer(_spaces)
dataset_names = _completer(_datasets)
proxy_names = _completer(_proxies)
method_names = _completer(_condensers)


def several_proxies(incomplete: str) -> list[str]:
    """Completes the last of several names with commas between them."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in proxy_names(last)]
