"""A configuration that remembers which of its values were looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nasproxy.spaces.space import Config

_MISSING = object()


class WatchedConfig(dict[str, Any]):
    """A dict like any other; ``read`` has the names that were asked for, all of them once it is copied or iterated.

    Args:
        config: what it holds.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.read.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As a dict's."""
        self.read.add(name)
        return super().get(name, default)

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        """As a dict's."""
        self.read.add(name)
        return super().pop(name) if default is _MISSING else super().pop(name, default)

    def is_still(self, config: Config) -> bool:
        """Whether it holds what ``config`` holds, without a look at it."""
        return dict.__eq__(self, config)


def _reading_all(name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any) -> Any:
        self.read.update(dict.keys(self))
        return getattr(dict, name)(self, *arguments)

    return method


# What copies a dict goes by one of these, where they are not the dict's own.
for _name in ("__iter__", "__or__", "__ror__", "__eq__", "__ne__", "__reversed__", "keys", "values", "items", "copy"):
    setattr(WatchedConfig, _name, _reading_all(_name))
