"""The exceptions nasproxy raises on purpose; anything else is a defect.

Each carries a message (what was expected, what came) and a hint (what to do next). The command line prints both and
turns ``exit_code`` into its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class NasproxyError(Exception):
    """Base of all intended errors."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(NasproxyError, ValueError):
    """What the user gave cannot be used: a wrong name, value, file or combination."""

    kind = "input"
    exit_code = 2


class DatasetError(InputError):
    """A dataset is missing, broken, or too small for what was asked."""

    kind = "dataset"


class SpaceError(InputError):
    """A search space cannot be found, loaded, or does not keep the contract."""

    kind = "space"


class ProxyError(InputError):
    """A proxy file is truncated, foreign, or does not belong to the dataset in use."""

    kind = "proxy"


class CheckpointError(InputError):
    """A checkpoint is truncated, foreign, or of another condensation."""

    kind = "checkpoint"


class RunError(InputError):
    """A run directory cannot be used for what was asked."""

    kind = "run"


class ClusterError(InputError):
    """A Ray cluster cannot be joined, cannot hold the workers, or has lost the nodes that did."""

    kind = "cluster"


class ScoreError(NasproxyError):
    """A score without training is not defined for a network."""

    kind = "score"


class DivergedError(NasproxyError):
    """An optimisation left the finite numbers."""

    kind = "diverged"


class BudgetError(NasproxyError):
    """A time budget was spent before there was anything to show for it."""

    kind = "budget"


class ExportError(NasproxyError):
    """A trained network cannot be written in the form that was asked for."""

    kind = "export"


class MissingPackageError(InputError):
    """What was asked for takes an optional package that is not installed."""

    kind = "package"


class WriteError(NasproxyError):
    """A file could not be written: a full disk, a missing permission."""

    kind = "write"
    exit_code = 2


def nearest(name: str, available: Iterable[str]) -> str:
    """A hint that names the closest of ``available``, and all of them.

    Example:
        >>> nearest("digit", ["digits", "mnist"])
        'Did you mean digits? Available: digits, mnist.'
    """
    names = list(available)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {close[0]}? " if close else ""
    return f"{guess}Available: {', '.join(names)}."


def some(names: Sequence[object], most: int = 10, between: str = ", ") -> str:
    """The first names, and an ellipsis in place of those beyond ``most``.

    Example:
        >>> some(["a", "b", "c"], 2)
        'a, b, …'
    """
    return between.join([*map(str, names[:most]), *(["…"] if len(names) > most else [])])
