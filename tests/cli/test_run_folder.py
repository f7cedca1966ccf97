"""The run directory of a command: who may have it, and what is said when the command is interrupted."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disturbed_search import lines_of, wait_until
from tiny_search import finish, invoke, search_words, start, write_space

from nasproxy.cli.run_folder import run_folder, saying_how_to_resume
from nasproxy.errors import WriteError
from nasproxy.files import write_json

COMMANDS = (["search"], ["search", "--dry-run"], ["compare"])
NO_DATA = ["--dataset", "nowhere"]
"""What is said without a look at the dataset is said although there is none."""

STEP = 0.1
"""Seconds that a training step takes: the search is far from its end when it is met."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_that_is_taken_is_refused_before_data_are_loaded(command: list[str], folder: Path):
    (folder / "run").mkdir()
    write_json(folder / "run" / "run.json", {"identity": {}})
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("precious")
    for words, reason in (
        (["--out", "run"], "run already holds a run"),
        (["--out", "thesis"], "thesis holds files, but no run"),
        (["--out", "thesis", "--resume"], "thesis holds files, but no run"),
        (["--resume"], "--resume needs the --out directory"),
    ):
        said = invoke(*command, *NO_DATA, *words, "--json")
        assert said.code == 2
        assert reason in said.json["error"]["message"]


@pytest.mark.parametrize("more", [[], ["--resume"]])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_that_cannot_be_looked_at_is_refused_before_data_are_loaded(
    command: list[str], more: list[str], folder: Path
):
    error = invoke(*command, *NO_DATA, *more, "--out", "a" * 300, "--json").json["error"]
    assert error["kind"] in ("run", "write")
    assert "File name too long" in error["message"]
    assert "--out" in error["hint"]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["a" * 300, "file/proxy.safetensors"])
def test_a_proxy_file_that_cannot_be_looked_at_is_none(name: str, folder: Path):
    (folder / "file").touch()
    error = invoke("search", "--proxy", name, "--json").json["error"]
    assert error["kind"] == "input"
    assert error["message"].startswith(f"No proxy is called {name!r}, and no file of that name can be looked at") == (
        name != "file/proxy.safetensors"
    )
    assert "random" in error["hint"]


@pytest.mark.parametrize("command", ["search", "compare"])
def test_while_another_process_works_in_it_it_is_refused_before_data_are_loaded(command: str, folder: Path):
    space = write_space(folder)
    words = [command, "--space", str(space), "--out", "run", "--executor", "inline", "--epochs", "1", "--top-k", "2"]
    where = {"search": "run", "compare": "run/proxies/random"}[command]
    images = ["--proxy" if command == "search" else "--proxies", "random", "--ipc", "2"]
    process = start([*words, *images], seconds=STEP, cwd=folder)
    try:
        wait_until(lambda: lines_of(folder / where) >= 2, process)
        process.send_signal(signal.SIGSTOP)
        said = invoke(*words, *images, *NO_DATA, "--resume", "--json")
    finally:
        process.kill()
        finish(process)
    assert said.code == 2
    assert "Another process is working in run" in said.json["error"]["message"]
    after = invoke(*words, *images, *NO_DATA, "--resume", "--json")
    assert "nowhere" in after.json["error"]["message"]


def test_what_is_left_to_do_can_be_asked_while_another_process_does_it(folder: Path):
    words = search_words(write_space(folder), folder / "run")
    process = start(words, seconds=STEP)
    try:
        wait_until(lambda: lines_of(folder / "run") >= 4, process)
        process.send_signal(signal.SIGSTOP)
        said = invoke(*words, "--dry-run", "--resume", "--json")
    finally:
        process.kill()
        finish(process)
    assert said.code == 0, said.err
    assert said.json["rungs"][0]["done"] > 0


def test_who_is_interrupted_hears_how_to_go_on_with_what_has_begun(folder: Path, capsys: pytest.CaptureFixture[str]):
    for begun in (False, True):
        if begun:
            write_json(folder / "run.json", {})
        with pytest.raises(KeyboardInterrupt), saying_how_to_resume(folder):
            raise KeyboardInterrupt
        assert (f"--out {folder} --resume" in capsys.readouterr().err) == begun
    with pytest.raises(ZeroDivisionError), saying_how_to_resume(folder):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), saying_how_to_resume(None):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("given", [["--storage", "{}"], ["--storage={}"]])
def test_who_is_interrupted_hears_no_password(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: list[str]
):
    address = "postgresql://me:se/cret@host/db?password=secret"
    words = [word.format(address) for word in given]
    monkeypatch.setattr(sys, "argv", ["nasproxy", "search", *words, "--dataset", "data?/a@b"])
    write_json(folder / "run.json", {})
    with pytest.raises(KeyboardInterrupt), saying_how_to_resume(folder):
        raise KeyboardInterrupt
    said = capsys.readouterr().err
    masked = shlex.join([word.format("postgresql://***@host/db?***") for word in given])
    assert f"nasproxy search {masked} --dataset 'data?/a@b' --out {folder} --resume" in said
    assert "cret" not in said


def test_a_new_folder_is_kept_and_told_only_if_the_run_has_begun(folder: Path, capsys: pytest.CaptureFixture[str]):
    for begun in (False, True):
        with contextlib.suppress(KeyboardInterrupt), run_folder(None, "tiny", "random", resume=False) as directory:
            assert directory is not None
            assert directory.is_dir()
            if begun:
                write_json(directory / "run.json", {})
            raise KeyboardInterrupt
        assert directory.exists() == begun
        assert (f"--out {directory} --resume" in capsys.readouterr().err) == begun


def run_out_of_space(out: Path | None, hint: str) -> None:
    with run_folder(out, "tiny", "random", resume=False) as directory:
        assert directory is not None
        write_json(directory / "run.json", {})
        raise WriteError("The disk is full.", hint)


@pytest.mark.parametrize("hint", ["Go on with --resume.", "Use fewer --workers."])
def test_an_error_names_a_new_folder_where_resuming_goes_on(folder: Path, hint: str):
    with pytest.raises(WriteError) as caught:
        run_out_of_space(None, hint)
    (run,) = (folder / "runs").iterdir()
    assert caught.value.hint.startswith(hint)
    assert caught.value.hint.endswith(f"--out runs/{run.name} --resume") == ("--resume" in hint)
    (folder / "named").mkdir()
    with pytest.raises(WriteError) as caught:
        run_out_of_space(folder / "named", hint)
    assert caught.value.hint == hint


def test_a_search_whose_budget_condensing_spends_names_its_new_folder(folder: Path):
    words = search_words(write_space(folder), folder / "run", "--time-budget", "0.0001", "--json")
    out = words.index("--out")
    said = invoke(*words[:out], *words[out + 2 :], "--proxy", "condensed")
    (run,) = (folder / "runs").iterdir()
    assert said.json["error"]["kind"] == "budget"
    assert f"--out runs/{run.name} --resume" in said.json["error"]["hint"]


DYING = """
import os, sys
from nasproxy.cli.main import run
from nasproxy.errors import NasproxyError
from nasproxy.search import run as searching
from nasproxy.search.last_words import last_words
from nasproxy.files import write_json

def die(settings, **_):
    write_json(settings.out / "run.json", {})
    with last_words("nowhere", NasproxyError("Ray stopped.", "Go on with --resume.")):
        os._exit(1)

searching.run_search = die
run(sys.argv[1:])
"""


def test_a_search_that_ray_ends_says_so_as_of_any_error(folder: Path):
    words = [sys.executable, "-c", DYING, "search", "--top-k", "2"]
    plain = subprocess.run(words, capture_output=True, text=True, check=False)
    (run,) = (folder / "runs").iterdir()
    command = f"The run is in runs/{run.name}: nasproxy search --top-k 2 --out runs/{run.name} --resume"
    said = f"Error: Ray stopped.\n  Go on with --resume. {command}\n"
    assert (plain.returncode, plain.stdout, plain.stderr) == (1, "", said)
    named = subprocess.run([*words, "--out", run, "--json"], capture_output=True, text=True, check=False)
    error = {"kind": "error", "message": "Ray stopped.", "hint": "Go on with --resume."}
    assert json.loads(named.stdout) == {"schema": 1, "error": error}
    assert named.stderr == "Error: Ray stopped.\n  Go on with --resume.\n"


def test_a_folder_that_is_named_is_left_for_the_run_to_make(folder: Path):
    with run_folder(folder / "mine", "tiny", "random", resume=False) as directory:
        assert directory == folder / "mine"
    with run_folder(None, "tiny", "random", resume=True) as directory:
        assert directory is None
    assert not list(folder.iterdir())
