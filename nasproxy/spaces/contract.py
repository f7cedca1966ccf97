"""What a search space must be like before anything is built from it."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence

from nasproxy.errors import SpaceError
from nasproxy.spaces.signature import check_call
from nasproxy.spaces.space import Scalar, SearchSpace


def check_contract(space: SearchSpace, label: str) -> None:
    """Makes sure that a space has a name, choices that a study can hold, and methods that can be called; calls none.

    Values are compared by their texts, since Python takes ``1`` and ``True`` for equal.

    Raises:
        SpaceError: it has not; the message calls the space ``label``.
    """
    owner = type(space).__name__
    name = getattr(space, "name", None)
    if name is None:
        raise SpaceError(f"The search space {label} has no name.", f'Add a line to {owner}: name = "{owner.lower()}"')
    _check_word(name, f"The name of the search space {label}")
    choices = getattr(space, "choices", None)
    if not isinstance(choices, Mapping) or not choices:
        hint = f'Write in {owner}: choices = {{"width": [32, 64], "depth": [1, 2, 3]}}'
        raise SpaceError(f"The search space {label} needs a non-empty mapping of choices, got {choices!r}.", hint)
    for choice, values in choices.items():
        _check_word(choice, f"The name of a choice of {label}")
        check_values(values, f"The choice {choice} of {label}")
    size = math.prod(len(values) for values in choices.values())
    if size > sys.maxsize:
        raise SpaceError(f"The search space {label} has {size:.1e} candidates, more than can be numbered.", "Split it.")
    images = {"in_channels": 1, "num_classes": 2, "image_size": (8, 8)}
    check_call(space.build, label, "def build(self, config, *, in_channels, num_classes, image_size): …", {}, **images)
    check_call(space.is_valid, label, "def is_valid(self, config, image_size): …", {}, (8, 8))


def why_no_answer(answer: object) -> str | None:
    """What is wrong with what ``is_valid`` returned; None where it is a bool, or the reason why not."""
    if isinstance(answer, bool) or (isinstance(answer, str) and answer):
        return None
    return f"{answer!r} instead of True, False or the reason why not"


def _check_word(word: object, what: str) -> None:
    if not isinstance(word, str) or not re.fullmatch(r"\w[\w.-]*", word):
        raise SpaceError(
            f"{what} is {word!r}.", "Use letters, digits, '_', '-' and '.', for it becomes a column or a folder."
        )


def check_values(values: object, what: str) -> None:
    """Makes sure that ``what`` has values that JSON and an Optuna categorical can hold, none of them twice.

    Nor may tables have one text for two of them: ``results.csv`` and ``scores.csv`` are read back.

    Raises:
        SpaceError: it has not.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise SpaceError(f"{what} needs a list of values, got {values!r}.", "Write a list or a tuple.")
    if not values:
        raise SpaceError(f"{what} has no values.", "Give it at least one, or leave the choice out.")
    seen: set[str] = set()
    for value in values:
        finite = not isinstance(value, float) or math.isfinite(value)
        if type(value) not in (bool, int, float, str, type(None)) or not finite:
            hint = "A value is None, a bool, an int, a finite float or a str; let build turn it into anything else."
            raise SpaceError(f"{what} holds {value!r} of type {type(value).__name__}.", hint)
        text = json.dumps(value)
        if text in seen:
            raise SpaceError(f"{what} holds {value!r} twice.", "Candidates are distinct; remove one.")
        seen.add(text)
    written: dict[str | float, object] = {}
    # Strings come last: among themselves they are told apart whatever they look like.
    for value in sorted(values, key=lambda value: isinstance(value, str)):
        cells = _cells(value)
        if (other := next((written[cell] for cell in cells if cell in written), value)) is not value:
            raise SpaceError(
                f"{what} holds {other!r} and {value!r}, which tables do not tell apart.",
                "Remove one, or write one in another way, as a word.",
            )
        if not isinstance(value, str):
            written.update(dict.fromkeys(cells, value))


def _cells(value: Scalar) -> tuple[str | float, ...]:
    """All that a value may be in a table; numbers are read without regard to how they are written."""
    if value is None:
        return "", "None", "null"
    if isinstance(value, bool):
        return str(value), str(value).lower()
    texts = (value,) if isinstance(value, str) else ()
    try:
        return *texts, float(str(value))
    except ValueError:
        return texts
