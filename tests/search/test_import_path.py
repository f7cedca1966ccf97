"""Sources of nasproxy in the present folder, which are not what is installed, are no reason to run two versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import ray
from tiny_search import invoke, search_words, write_space

import nasproxy


def test_another_nasproxy_in_the_present_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nasproxy").mkdir()
    shutil.copy(nasproxy.__file__, tmp_path / "nasproxy")
    words = search_words(write_space(tmp_path), tmp_path / "run", "--executor", "tune")
    said = invoke(*words)
    assert said.code == 2
    assert f"{tmp_path.resolve()} holds another nasproxy" in said.err
    assert not (tmp_path / "run").exists()
    assert invoke(*search_words(write_space(tmp_path), tmp_path / "run")).code == 0  # in this process there is but one


def test_a_ray_that_runs_in_this_process_already_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    said = invoke(*search_words(write_space(tmp_path), tmp_path / "run", "--executor", "tune"))
    assert said.code == 2
    assert "Ray is already running in this process." in said.err
    assert not (tmp_path / "run").exists()
    compared = ["--limit", "3", "--top-k", "2", "--epochs", "1", "--proxies", "random", "--executor", "tune"]
    said = invoke("compare", "--space", str(write_space(tmp_path)), "--out", str(tmp_path / "run"), *compared)
    assert "Ray is already running in this process." in said.err
    assert not (tmp_path / "run").exists()
    words = search_words(write_space(tmp_path), tmp_path / "run", "--executor", "tune", "--dry-run")
    assert invoke(*words).code == 0  # starts none
    assert invoke(*search_words(write_space(tmp_path), tmp_path / "run")).code == 0


def test_its_own_folder_is_as_good_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(Path(nasproxy.__file__).parents[1])
    said = invoke(*search_words(write_space(tmp_path), tmp_path / "run", "--executor", "tune", "--dry-run"))
    assert said.code == 0, said.err
