"""What keeps a local Ray to itself: its folder, its ports, its processes, and whose signals the driver's are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
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


class Vitals:
    """Whether the processes of Ray live on this machine without which a search cannot go on.

    Ray itself ends the driver when that next calls a raylet that died: who looks before can still end in good order. A
    driver that has joined a cluster did not start the raylet: it knocks at its socket. Of the head it does not know.
    """

    def __init__(self) -> None:
        self._looked = time.monotonic()

    def dead_process(self) -> str | None:
        """The name of one that died; None where none did."""
        node = ray._private.worker._global_node
        if node is None:
            return None
        if node.all_processes:
            return next((name for name, _ in node.dead_processes() if name in ("raylet", "gcs_server")), None)
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return None
        self._looked = now
        return None if _is_listened_to(node.raylet_socket_name) else "raylet"


_LOOK = 0.5  # seconds between two looks


def _is_listened_to(path: str) -> bool:
    """Whether a process listens at a socket; one that is too busy to let us in does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(1.0)
        try:
            knocking.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
