"""What is said where a process is ended from within, as Ray ends that of a search."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SEARCH = """
import ctypes, os, subprocess, sys, threading, time
from nasproxy.errors import NasproxyError
from nasproxy.search import last_words

class Watched(subprocess.Popen):
    def __init__(self, *more, **named):
        super().__init__(*more, **named)
        print(self.pid, flush=True)

last_words.subprocess.Popen = Watched
raylet, *head = sys.argv[1:]
to_json = lambda tell: lambda error: (f"{{{error.message}}}\\n", tell(error)[1])
with last_words.worded(to_json):
    words = NasproxyError(os.environ["DIED"], "Go on."), *head, *[NasproxyError("The head is gone.") for _ in head]
    with last_words.last_words(raylet, *words):
        how = sys.stdin.read(1)
        if how == "x":
            os._exit(3)
        if how == "t":  # the first thread ends alone
            threading.Thread(target=time.sleep, args=(300,)).start()
            ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
print("in good order")
"""


class Ray:
    """A raylet that lets in whoever knocks, and a head, both of which can die."""

    def __init__(self, folder: str) -> None:
        self._raylet = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection = socket.socket()
        self._raylet.bind(f"{folder}/raylet")
        self._raylet.listen()
        self._head = socket.create_server(("127.0.0.1", 0))
        self.raylet, self.head = f"{folder}/raylet", f"127.0.0.1:{self._head.getsockname()[1]}"

    def let_in(self) -> None:
        self._connection.close()
        self._connection, _ = self._raylet.accept()

    def raylet_dies(self) -> None:
        self._raylet.close()
        self._connection.close()

    def raylet_dies_and_is_seen_to(self) -> None:
        self._raylet.close()
        self._connection.shutdown(socket.SHUT_WR)
        assert self._connection.recv(1) == b""  # the other side has hung up

    def head_dies(self) -> None:
        self._head.close()

    def close(self) -> None:
        self.raylet_dies()
        self.head_dies()


class Search:
    """A process that waits within the block."""

    def __init__(self, *addresses: str, died: str = "The raylet died.") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SEARCH, *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "DIED": died},
        )
        self.speaker = int(self.process.stdout.readline())

    def leaves(self, how: str) -> tuple[int, str, str]:
        """``x`` ends the process from within, ``.`` the block."""
        out, err = self.process.communicate(how, timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def ray() -> Iterator[Ray]:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        found = Ray(short)
        yield found
        found.close()


def test_a_raylet_that_died_first_is_named(ray: Ray):
    search = Search(ray.raylet)
    ray.let_in()
    ray.raylet_dies_and_is_seen_to()
    assert search.leaves("x") == (3, "{The raylet died.}\n", "The raylet died. Go on.\n")


def test_a_raylet_that_died_before_anybody_looked_is_named(tmp_path: Path):
    assert Search(str(tmp_path / "raylet")).leaves("x")[1] == "{The raylet died.}\n"


def test_a_name_that_is_no_text_silences_nothing(tmp_path: Path):
    search = Search(str(tmp_path / "raylet"), died="The raylet of r\udcff died.")
    assert search.leaves("x") == (3, "{The raylet of r\\udcff died.}\n", "The raylet of r\\udcff died. Go on.\n")


def test_a_head_that_does_not_answer_is_named(ray: Ray):
    search = Search(ray.raylet, ray.head)
    ray.let_in()
    ray.head_dies()
    assert search.leaves("x") == (3, "{The head is gone.}\n", "The head is gone.\n")


def test_an_end_while_all_live_is_not_explained(ray: Ray):
    for addresses in ((ray.raylet,), (ray.raylet, ray.head)):
        search = Search(*addresses)
        ray.let_in()
        assert search.leaves("x") == (3, "", "")


@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "not yet noticed"])
def test_who_leaves_in_good_order_speaks_for_himself(ray: Ray, noticed: bool):
    search = Search(ray.raylet, ray.head)
    ray.let_in()
    if noticed:
        ray.raylet_dies_and_is_seen_to()
        assert search.leaves(".") == (0, "in good order\n", "")
        return
    os.kill(search.speaker, signal.SIGSTOP)
    ray.raylet_dies()
    search.process.stdin.write(".")
    search.process.stdin.close()
    search.process.stdin = None
    time.sleep(0.2)  # so that both are there when it looks again; whichever it sees first, it is silent
    os.kill(search.speaker, signal.SIGCONT)
    assert search.leaves("") == (0, "in good order\n", "")


@pytest.mark.parametrize("joined", [False, True], ids=["its own Ray", "a cluster"])
def test_a_ray_of_its_own_dies_with_a_killed_process_and_a_cluster_does_not(ray: Ray, joined: bool):
    search = Search(ray.raylet, *([ray.head] if joined else []))
    ray.let_in()
    os.kill(search.speaker, signal.SIGSTOP)  # finds both dead when it looks again
    search.process.kill()
    search.process.wait()
    ray.raylet_dies()
    os.kill(search.speaker, signal.SIGCONT)
    assert search.leaves("")[1:] == (("{The raylet died.}\n", "The raylet died. Go on.\n") if joined else ("", ""))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a raylet looks for its parent")
def test_a_ray_of_its_own_that_dies_with_the_first_thread_is_no_reason(ray: Ray):
    search = Search(ray.raylet)
    ray.let_in()
    search.process.stdin.write("t")
    search.process.stdin.flush()
    state = Path(f"/proc/{search.process.pid}/stat")
    while state.read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    ray.raylet_dies_and_is_seen_to()
    search.process.kill()
    assert search.leaves("")[1:] == ("", "")


def test_a_head_that_is_gone_explains_a_dead_raylet(ray: Ray):
    search = Search(ray.raylet, ray.head)
    ray.let_in()
    ray.head_dies()
    ray.raylet_dies_and_is_seen_to()
    assert search.leaves("x") == (3, "{The head is gone.}\n", "The head is gone.\n")


def test_a_signal_to_all_processes_is_no_matter_of_ray(ray: Ray):
    search = Search(ray.raylet)
    ray.let_in()
    os.killpg(search.process.pid, signal.SIGINT)
    ray.raylet_dies()
    code, out, err = search.leaves("")
    assert (code, out) == (-signal.SIGINT, "")
    assert "KeyboardInterrupt" in err
    assert "raylet" not in err
