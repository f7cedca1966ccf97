"""Which siamese augmentations a step can draw from: how they are written, and which suit a dataset."""

from __future__ import annotations

import re

from nasproxy.errors import InputError, nearest

AUGMENTATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""Those of Zhao & Bilen (2021)."""
AUTO, NONE, SIAMESE = "auto", "none", "siamese"
_GLYPHS = re.compile("(?<![a-z])(digits?|[ekq]?mnist|svhn|usps)(?![a-z])")


def parse_strategy(text: str, dataset: str) -> tuple[str, ...]:
    """The kinds that ``text`` lists.

    Args:
        text: ``color-crop-cutout-flip-scale-rotate`` or fewer of these, ``none``, or ``auto``: all, but no flip for
            a dataset of digits or letters, which mean something else in the mirror.
        dataset: its name, in which ``auto`` looks for the words digit, digits, mnist (emnist, kmnist, qmnist), svhn and
            usps; but fashion-mnist is clothing.

    Raises:
        InputError: a word is unknown.
    """
    if text == NONE:
        return ()
    if text == AUTO:
        name = dataset.lower()
        glyphs = _GLYPHS.search(name) and "fashion" not in name
        return tuple(kind for kind in AUGMENTATIONS if kind != "flip" or not glyphs)
    kinds = tuple(text.split("-"))
    for kind in kinds:
        if kind not in AUGMENTATIONS:
            raise InputError(
                f"No augmentation is called {kind!r}.",
                f"{nearest(kind, AUGMENTATIONS)} Join several by hyphens, or say {AUTO} or {NONE}.",
            )
    return kinds


def strategy_of(kinds: tuple[str, ...]) -> str:
    """The text that lists ``kinds``."""
    return "-".join(kinds) or NONE


def siamese_kinds(text: str, dataset: str = "") -> tuple[str, ...] | None:
    """The kinds that a training's augmentation draws from; None where it is none of these.

    Args:
        text: ``siamese``, or ``siamese:`` and what :func:`parse_strategy` takes.
        dataset: its name, see there.

    Raises:
        InputError: a word behind the colon is unknown.
    """
    name, colon, kinds = text.partition(":")
    if name != SIAMESE:
        return None
    return parse_strategy(kinds if colon else AUTO, dataset)


def training_with(kinds: tuple[str, ...]) -> str:
    """The text of the training's augmentation that draws from ``kinds``, of which there may be none."""
    return f"{SIAMESE}:{strategy_of(kinds)}" if kinds else NONE
