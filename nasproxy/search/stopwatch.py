"""How long a run has taken, however often it was interrupted."""

from __future__ import annotations

import contextlib
import json
import math
import time
from pathlib import Path

from nasproxy.errors import WriteError
from nasproxy.files import write_atomically

_STAGES = ("condense", "search", "finalists")
_ALL = ("condense", "search", "calibration", "finalists", "total")  # a calibration is not in every run
_EVERY = 5.0  # seconds between two writes: as much is lost of an invocation that is killed


class Stopwatch:
    """Wall time of a run's stages, with that of earlier invocations, also of those that were killed.

    Args:
        file: of the run directory, where times are kept as they pass; None keeps them nowhere.
        began: reading of ``time.perf_counter`` from which the total counts; by default now.
    """

    def __init__(self, file: Path | None = None, began: float | None = None) -> None:
        self._file = file
        self._seconds = dict.fromkeys((*_STAGES, "total"), 0.0) | (_read(file) if file is not None else {})
        self._stage = ""
        self._since = self._kept = time.perf_counter() if began is None else began

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage, and ``total``."""
        self._pass()
        return {name: self._seconds[name] for name in _ALL if name in self._seconds}

    def begin(self, stage: str = "") -> None:
        """Ends the stage that runs, and begins another, or none."""
        self._pass()
        self._stage = stage

    def tick(self) -> None:
        """Keeps the times if that was not done for some seconds; to be called while a stage runs."""
        if time.perf_counter() - self._kept >= _EVERY:
            self.keep()

    def keep(self) -> None:
        """Writes the times; on a full disk the next who writes will say so."""
        self._kept = time.perf_counter()
        if self._file is not None:
            with contextlib.suppress(WriteError):
                write_atomically(self._file, json.dumps(self.seconds).encode())

    def _pass(self) -> None:
        now = time.perf_counter()
        for name in {self._stage, "total"} - {""}:
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


def _read(file: Path) -> dict[str, float]:
    """What an earlier invocation kept; nothing where the file is missing or damaged, as no result depends on it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        kept = {name: float(found[name]) for name in _ALL if name in found or name != "calibration"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return kept if all(0 <= value < math.inf for value in kept.values()) else {}
