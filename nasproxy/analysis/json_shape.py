"""Reading JSON that others wrote: parsed, and of the shape that the code behind it expects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any

NUMBER = (int, float, NoneType)
TEXT = (str, NoneType)
SCALAR = (bool, int, float, str, NoneType)
EVERY = "*"
ANY_OBJECT: dict[str, Any] = {}


@dataclass(frozen=True)
class Maybe:
    """A shape, or null."""

    shape: Shape


Shape = dict[str, Any] | list[Any] | tuple[type, ...] | Maybe
"""An object with these members (of ``EVERY``: with all members so; others may be there), a list of one shape, or one
of these types. An absent member counts as null.
"""


def parse_object(text: str, shape: Shape) -> dict[str, Any]:
    """The object of schema 1 in ``text``; numbers that are not finite are read as null.

    Raises:
        ValueError: it is not JSON, another schema's, or of another shape; the message says where.
    """
    try:
        data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is truncated or not JSON") from error
    if isinstance(data, dict) and data.get("schema") != 1:
        raise ValueError(f"expected schema 1, got {data.get('schema')!r} (another version of nasproxy wrote it)")
    wrong = _mismatch(data, shape, "the document")
    if wrong:
        raise ValueError(wrong)
    checked: dict[str, Any] = data
    return checked


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _mismatch(value: Any, shape: Shape, name: str) -> str | None:
    """What about ``value`` is not as ``shape`` says; None where nothing is."""
    if isinstance(shape, Maybe):
        return None if value is None else _mismatch(value, shape.shape, name)
    if isinstance(shape, tuple):
        fits = isinstance(value, shape) and not (isinstance(value, bool) and bool not in shape)
        expected = " or ".join("null" if kind is NoneType else kind.__name__ for kind in shape)
        return None if fits else f"expected {name} to be {expected}, got {value!r:.60}"
    kind = type(shape)
    if not isinstance(value, kind):
        return f"expected {name} to be {'an object' if kind is dict else 'a list'}, got {value!r:.60}"
    return next(filter(None, (_mismatch(*part) for part in _parts(value, shape, name))), None)


def _parts(value: Any, shape: dict[str, Any] | list[Any], name: str) -> Iterator[tuple[Any, Shape, str]]:
    """What ``value`` consists of, the shape of each, and how a message names it."""
    if isinstance(shape, list):
        yield from ((item, shape[0], f"{name}[{index}]") for index, item in enumerate(value))
        return
    for key, part in shape.items():
        for member in value if key == EVERY else (key,):
            yield value.get(member), part, f"{name}.{member}"
