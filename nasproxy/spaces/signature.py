"""Whether a user's function takes what it will be given, and the line that it is in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nasproxy.errors import SpaceError


def defined_at(function: Callable[..., Any]) -> str:
    """Its name and, where it is of Python, its line: ``build (my_space.py:12)``."""
    name, code = getattr(function, "__name__", repr(function)), getattr(inspect.unwrap(function), "__code__", None)
    return name if code is None else f"{name} ({Path(code.co_filename).name}:{code.co_firstlineno})"


def check_call(function: Callable[..., Any], owner: str, written: str, *given: object, **named: object) -> None:
    """Makes sure that ``function`` can be called with these values; calls nothing.

    Args:
        function: a function or method.
        owner: whose it is, for the message.
        written: how it should begin.
        given: by position.
        named: by name.

    Raises:
        SpaceError: it cannot; the message names its line.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # not of Python, and says nothing of what it takes
        return
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        where = f"{defined_at(function)} of {owner}"
        raise SpaceError(f"{where} takes {signature}, which does not fit: {error}.", f"Write {written}.") from error
