"""What is said where Ray ends the process of a search: it does so in native code, at once and without an exception.

A small process beside the search, this file, speaks for it. It needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nasproxy.errors import NasproxyError

Wording = Callable[["NasproxyError"], tuple[str, str]]
"""How an error is told: what goes to stdout, and what to stderr."""

_PATIENCE = 5.0  # seconds in which the head of a cluster answers


def _plainly(error: NasproxyError) -> tuple[str, str]:
    return "", f"{error}\n"


_wording: Wording = _plainly


@contextlib.contextmanager
def worded(change: Callable[[Wording], Wording]) -> Iterator[None]:
    """Within, last words are told as ``change`` of how they were told before says."""
    global _wording
    before, _wording = _wording, change(_wording)
    try:
        yield
    finally:
        _wording = before


@contextlib.contextmanager
def last_words(
    raylet: str, if_raylet: NasproxyError, head: str | None = None, if_head: NasproxyError | None = None
) -> Iterator[None]:
    """Sees to it that an end of this process within the block is explained, if Ray had a reason to end it.

    A signal that the user sends is none, nor is whatever ends the process while all of Ray lives.

    Args:
        raylet: the address of this node's raylet: the path of a socket, or ``tcp://host:port``.
        if_raylet: what is said if the raylet died before this process.
        head: ``host:port`` of a cluster's head, which outlives this process as the raylet does; None for a Ray that
            dies with it.
        if_head: what is said if the head does not answer when this process is gone.
    """
    show_cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    told = [[out, show_cursor + err] for out, err in map(_wording, (if_raylet, if_head or if_raylet))]
    facts = {"driver": os.getpid(), "raylet": raylet, "head": head, "told": told}
    words = [sys.executable, "-I", "-S", __file__, json.dumps(facts)]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as speaker:  # noqa: S603, this very file
        try:
            yield
        finally:
            speaker.communicate(b"farewell")


def _speak(driver: int, raylet: str, head: str | None, told: list[list[str]]) -> None:
    """Waits for the end of the process at the other end of stdin, and tells what Ray did to it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if (dead := _dead_first(driver, raylet, outlives=head is not None)) is None:
        return
    # A raylet ends by itself some time after its head.
    headless = head is not None and not _answers(head)
    if not dead and not headless:
        return
    for stream, text in enumerate(told[1 if headless else 0], start=1):
        # A folder's name need not be text.
        with (
            contextlib.suppress(OSError),
            os.fdopen(stream, "w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(text)


def _dead_first(driver: int, raylet: str, *, outlives: bool) -> bool | None:
    """Whether the raylet was dead when the process ended; None where that took its leave."""
    with contextlib.suppress(OSError), _connected(raylet) as connection:
        while True:
            ready = select.select([0, connection.fileno()], [], [])[0]
            if 0 in ready:
                # A Ray that dies with the process may be dead by now because of that.
                return None if os.read(0, 1) else outlives and len(ready) == 2
            if not connection.recv(4096):
                if not outlives and _is_ending(driver):
                    return None
                break
    return None if os.read(0, 1) else True


def _is_ending(driver: int) -> bool:
    """Whether the parent process has begun to end: what dies with its first thread does so before its pipes close."""
    if os.getppid() != driver:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{driver}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    return False


def _connected(address: str) -> socket.socket:
    if address.startswith("tcp://"):
        return socket.create_connection(_host_and_port(address.removeprefix("tcp://")))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_PATIENCE)
    connection.connect(address)
    connection.settimeout(None)
    return connection


def _answers(head: str) -> bool:
    try:
        socket.create_connection(_host_and_port(head), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    _speak(**json.loads(sys.argv[1]))
