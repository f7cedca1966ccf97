"""Ctrl-C and SIGTERM: the first lets what is being written be written, the second ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# timeout(1) and some launchers send the same signal to a process and to its group: that is one request.
_ECHO = 0.5  # seconds
_SHOW_CURSOR = "\x1b[?25h"


@dataclass
class _State:
    received: int = 0
    at: float = 0.0
    depth: int = 0


_state = _State()


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Makes the first SIGINT or SIGTERM a ``KeyboardInterrupt``, and the second the end of the process.

    A signal within half a second of the first counts as the same. One that was ignored before, as by ``nohup`` or a
    shell script's ``&``, stays ignored. Outside the main thread this does nothing: Python handles signals there only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.received = _state.depth = 0
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heeded = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for number in heeded:
        signal.signal(number, _on_signal)
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """A block that the first signal does not break: it counts where the outermost such block ends.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal came in it, or before it and was swallowed by somebody.
    """
    _state.depth += 1
    try:
        yield
    finally:
        _state.depth -= 1
    if _state.received and not _state.depth:
        raise KeyboardInterrupt


def received() -> int:
    """The signal that came; SIGINT where a ``KeyboardInterrupt`` came from elsewhere."""
    return _state.received or signal.SIGINT


def is_ending() -> bool:
    """Whether a signal came that this process ends for, by :func:`end_if_signalled`: what dies with it may be left."""
    return bool(_state.received)


def end_if_signalled(code: int) -> None:
    """Ends the process with ``code`` if a signal has come, without what others would do at its end.

    Ray ends the process with a code of its own where it finds that the signal went to its processes too.
    """
    if is_ending():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(code)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if _state.received:
        if now - _state.at > _ECHO:
            _end_at_once(number)
        return
    _state.received, _state.at = number, now
    if not _state.depth:
        raise KeyboardInterrupt


def _end_at_once(number: int) -> None:
    """Leaves without clean-up; what Ray has started dies with the process that started it."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        os.write(sys.__stderr__.fileno(), _SHOW_CURSOR.encode())
    os._exit(128 + number)
