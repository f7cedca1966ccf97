"""What keeps a local Ray to itself: its folder, its ports, its processes, and whose signals the driver's are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout

_PREFIX = "nasproxy-ray-"
# A socket's path has 103 bytes on macOS, 107 on Linux; Ray puts 64 behind the folder, and this prefix takes 22.
_LONGEST = 17
_NEW = 60.0  # seconds in which a folder may be there without its lock


@contextlib.contextmanager
def ray_folder() -> Iterator[Path]:
    """A folder for all of Ray's files, removed at the end; those that killed runs left are removed too."""
    base = Path(tempfile.gettempdir())
    base = base if len(os.fsencode(base)) <= _LONGEST else Path("/tmp")  # noqa: S108
    _sweep(base)
    # Processes that are going down may still write a last line.
    with (
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=base, ignore_cleanup_errors=True) as folder,
        FileLock(Path(folder) / ".lock"),
    ):
        yield Path(folder)


def _sweep(base: Path) -> None:
    """Removes folders of this user that no living process holds."""
    for folder in base.glob(f"{_PREFIX}*"):
        # A link could lead anywhere, and what is another user's is not ours.
        with contextlib.suppress(OSError, Timeout):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or time.time() - found.st_mtime < _NEW:
                continue
            with FileLock(folder / ".lock", timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Within, ``ray.init(_node_ip_address="127.0.0.1")`` means it.

    Ray takes the machine's own address instead, and then listens on all, unless it is sure that it will never be a
    cluster: as it is on macOS, where each port raises a question of the firewall.
    """
    with _replaced(ray._private.ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield


@contextlib.contextmanager
def keeping_signals() -> Iterator[None]:
    """Within, ``ray.init`` leaves SIGTERM to whom it belongs.

    Ray would exit the driver with a code of its own, and its C++ part prints a stack trace and aborts.
    """
    with _replaced(ray._private.utils, "set_sigterm_handler", lambda _: None):
        yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def dead_process() -> str | None:
    """The name of the process of the local Ray that died, if one did without which it cannot go on.

    Ray itself ends the driver, without a word, some seconds after its raylet died.
    """
    node = ray._private.worker._global_node
    if node is None:
        return None
    return next((name for name, _ in node.dead_processes() if name in ("raylet", "gcs_server")), None)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
