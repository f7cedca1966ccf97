"""What ``--proxies`` names: registered proxies, proxy files, and mixtures of these."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nasproxy.errors import InputError, nearest
from nasproxy.seeds import seed_from

WHOLE = "whole"
"""The name of the ground truth."""
MIXED = "+"
"""What stands between the parts of a mixture's name."""
_AGAIN = "#"
_TAKEN = ("test",)  # in scores.csv, test.0 is no proxy's score
_STEM = re.compile(r"\w[\w. -]*")


@dataclass(frozen=True)
class ProxyNames:
    """What a comparison is of.

    Args:
        names: as the table has them, in the order given; a file is called by its stem.
        files: the proxy files, by name.
    """

    names: tuple[str, ...]
    files: dict[str, Path]

    @property
    def rows(self) -> tuple[str, ...]:
        """All that are compared, the parts of a mixture before it where they were not named themselves."""
        return tuple(dict.fromkeys(one for name in self.names for one in (*self._unnamed(name), name)))

    @property
    def members(self) -> tuple[str, ...]:
        """All that candidates are scored by: the rows but for mixtures, then what mixtures hold again."""
        single = [name for name in self.rows if parts_of(name) == (name,)]
        return tuple(dict.fromkeys([*single, *(member for name in self.names for member in members_of(name))]))

    def _unnamed(self, name: str) -> list[str]:
        return [part for part in parts_of(name) if part not in self.names]


def read_names(texts: Sequence[str], known: Sequence[str]) -> ProxyNames:
    """What the user named.

    Args:
        texts: names, paths of proxy files, or several of them joined by ``+``.
        known: names of registered proxies.

    Raises:
        InputError: one is none of these, is named twice, or is a file whose name cannot be a proxy's.
    """
    if not texts:
        raise InputError("There is no proxy to compare.", "Example: --proxies condensed,random,parameters")
    files: dict[str, Path] = {}
    names = [_read(text, known, files) for text in texts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--proxies names {', '.join(twice)} more than once.", "Name each proxy once.")
    return ProxyNames(tuple(names), files)


def parts_of(name: str) -> tuple[str, ...]:
    """The names that a mixture consists of; of another proxy its own."""
    return tuple(name.split(MIXED))


def members_of(name: str) -> tuple[str, ...]:
    """The same with what it holds again told apart: ``random#2`` is the second, independent ``random`` of a mixture."""
    parts = parts_of(name)
    counts = [parts[: position + 1].count(part) for position, part in enumerate(parts)]
    return tuple(part if count == 1 else f"{part}{_AGAIN}{count}" for part, count in zip(parts, counts, strict=True))


def first_of(member: str) -> str:
    """The proxy that a member of a mixture is, or is once more."""
    return member.partition(_AGAIN)[0]


def seed_of(member: str, seed: int) -> int:
    """The run's seed; for what a mixture holds again, another one that follows from it."""
    _, _, number = member.partition(_AGAIN)
    if not number:
        return seed
    return seed_from(f"{seed}{_AGAIN}{number}")


def _read(text: str, known: Sequence[str], files: dict[str, Path]) -> str:
    """The name that a text stands for; files are added to ``files``."""
    whole_is_file = text not in known and os.path.isfile(text)  # noqa: PTH113, Path.is_file raises for long names
    parts = [text] if whole_is_file else text.split(MIXED)
    names = [part if part in known else _file_name(part, known, files) for part in parts]
    if len(names) > 1 and WHOLE in names:
        raise InputError(f"{WHOLE} is what proxies are compared with, and no part of a mixture.", "Leave it out.")
    return MIXED.join(names)


def _file_name(text: str, known: Sequence[str], files: dict[str, Path]) -> str:
    if not os.path.isfile(text):  # noqa: PTH113, as above
        raise InputError(f"No proxy is called {text!r}, and there is no file of that name.", nearest(text, known))
    path = Path(text)
    name = path.stem
    hint = "Give the file another name; the table calls it by its name without the suffix."
    if name in known or name in _TAKEN:
        raise InputError(f"The proxy file {path} would be called {name!r} in the table, which is taken.", hint)
    if not _STEM.fullmatch(name):
        raise InputError(f"The proxy file {path} would be called {name!r}: expected letters, digits, '-', '_'.", hint)
    if files.setdefault(name, path).resolve() != path.resolve():
        raise InputError(f"The proxy files {files[name]} and {path} would both be called {name!r}.", hint)
    return name
