"""Optuna's journal file, with writes that belong together flushed to the disk together."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class Journal(JournalStorage):
    """The storage that Optuna keeps in one file; any Optuna opens what this one writes.

    Args:
        path: of the file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._file = _File(path)
        super().__init__(self._file)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """The writes of the body take the lock once and wait for the disk once, at its end.

        Killed in between, the process loses none of them; only the machine can, if it goes down.
        """
        return self._file.together()


class _File(JournalFileBackend):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._own_lock = JournalFileSymlinkLock(str(path))
        self._open: BinaryIO | None = None
        super().__init__(str(path), self._own_lock)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        self._own_lock.acquire()
        try:
            with self._path.open("ab") as self._open:
                yield
                os.fsync(self._open.fileno())
        finally:
            self._open = None
            self._own_lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._open is None:
            super().append_logs(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._open.write(lines.encode())
        # Optuna reads back what it wrote, through the file.
        self._open.flush()
