"""One process at a time where two would overwrite each other's files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nasproxy.errors import NasproxyError, WriteError


@contextlib.contextmanager
def held(lock: Path, busy: NasproxyError) -> Iterator[None]:
    """Holds a lock file against other processes as long as the context lasts, or this process.

    Args:
        lock: in a folder that exists.
        busy: raised if another process holds it.

    Raises:
        WriteError: the folder cannot be written.
    """
    try:
        lease = FileLock(lock, timeout=0).acquire()
    except Timeout as error:
        raise busy from error
    except OSError as error:
        raise WriteError(f"{lock.parent} cannot be written: {error.strerror}.", "Choose another --out.") from error
    with lease:
        yield
