"""What the first and the second signal do to a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from nasproxy import interruption
from nasproxy.interruption import heeding_signals, received, unbroken

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    interruption._state.received = 0


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_an_exception_and_its_echo_is_nothing(number: int):
    before = signal.getsignal(number)
    with heeding_signals():
        assert received() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(number)
        assert received() == number
        send(number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_block_that_is_writing_ends_first(number: int):
    done = []

    def write() -> None:
        with unbroken():
            with unbroken():
                send(number)
                done.append("inner")
            done.append("outer")

    with heeding_signals():
        with pytest.raises(KeyboardInterrupt):
            write()
        assert done == ["inner", "outer"]


def test_an_interruption_that_somebody_swallowed_comes_back():
    with heeding_signals():
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), unbroken():
            pass


def test_an_error_in_the_block_is_the_one_that_is_seen():
    def fail() -> None:
        with unbroken():
            send(signal.SIGINT)
            raise OSError("full")

    with heeding_signals(), pytest.raises(OSError, match="full"):
        fail()


def test_without_signals_a_block_is_a_block():
    with unbroken():
        pass
    with heeding_signals(), unbroken():
        pass


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heeding_signals(), unbroken():
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


STUBBORN = """
import time
from nasproxy.interruption import heeding_signals
with heeding_signals():
    try:
        print("ready", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("first", flush=True)
        time.sleep(600)
"""


LAST_WORD = """
import atexit, os
from nasproxy.interruption import end_if_signalled, heeding_signals
atexit.register(os._exit, 1)
with heeding_signals():
    try:
        os.kill(os.getpid(), {number})
    except KeyboardInterrupt:
        print("kept")
    end_if_signalled(128 + {number})
"""


@pytest.mark.parametrize("number", [0, signal.SIGTERM])
def test_a_process_that_ends_for_a_signal_ends_with_its_code_whatever_others_do_at_the_end(number: int):
    words = [sys.executable, "-c", LAST_WORD.format(number=int(number))]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == ((143, "kept\n") if number else (1, "")), said.stderr


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_ends_the_process_at_once(second: int):
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        for word in ("ready\n", "first\n"):
            assert process.stdout.readline() == word
            if word == "ready\n":
                process.send_signal(signal.SIGINT)
        time.sleep(interruption._ECHO)
        process.send_signal(second)
        assert process.wait(timeout=60) == 128 + second
