"""The folder of a local Ray: whose it is, how long its name may be, what becomes of those left behind."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("ray")

from nasproxy.search import local_ray
from nasproxy.search.local_ray import ray_folder

SOCKET = "session_2026-11-22_18-27-18_013962_4194304/sockets/plasma_store"
LONGEST = 103
"""Bytes of a socket's path on macOS, without the end."""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="x") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)


def old_folder(base: Path, name: str) -> Path:
    folder = base / f"nasproxy-ray-{name}"
    folder.mkdir()
    (folder / "logs").touch()
    os.utime(folder, (0, time.time() - 3600))
    return folder


def test_it_is_removed_with_all_that_is_in_it(base: Path):
    with ray_folder() as folder:
        assert folder.parent == base
        (folder / "session" / "logs").mkdir(parents=True)
    assert list(base.iterdir()) == []


def test_sockets_fit_into_it_however_long_the_path_of_temporary_files_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    long = tmp_path / ("long" * 10)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with ray_folder() as folder:
        assert len(str(folder / SOCKET)) <= LONGEST


def test_a_killed_run_s_folder_is_removed_and_a_living_one_s_is_not(base: Path):
    left = old_folder(base, "killed")
    with ray_folder() as held:
        os.utime(held, (0, time.time() - 3600))
        with ray_folder():
            assert held.exists()
            assert not left.exists()


def test_what_is_new_is_left_alone(base: Path):
    new = base / "nasproxy-ray-new"
    new.mkdir()
    with ray_folder():
        pass
    assert new.exists()


def test_what_is_no_folder_of_ours_is_left_alone(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "precious"
    target.mkdir()
    (target / "file").touch()
    link = base / "nasproxy-ray-link"
    link.symlink_to(target)
    os.utime(link, (0, time.time() - 3600), follow_symlinks=False)
    with ray_folder():
        pass
    assert [path.name for path in target.iterdir()] == ["file"]
    somebodys = old_folder(base, "somebodys")
    monkeypatch.setattr(local_ray.os, "getuid", lambda: os.geteuid() + 1)
    with ray_folder():
        pass
    assert somebodys.exists()
