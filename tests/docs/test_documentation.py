"""What the documentation says can be typed, and does what it says."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from documentation_pages import PAGES, ROOT, Block, blocks_of, commands_of

from nasproxy.cli.main import app

_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=[*_NAMES, "README.md"])
def test_every_command_has_the_options_it_is_shown_with(page):
    for line in commands_of(page):
        check_command(line)


def test_a_command_with_an_option_that_is_not_there_is_found():
    with pytest.raises(AssertionError, match="--limmit"):
        check_command("nasproxy search --limmit 3")
    with pytest.raises(AssertionError, match="serach"):
        check_command("nasproxy serach")


def test_pages_have_blocks_and_skipped_ones_say_why():
    blocks = [block for page in PAGES for block in blocks_of(page)]
    assert sum(block.language in ("bash", "python") for block in blocks) > 20
    assert {block.language for block in blocks} <= {"bash", "python", "text", "toml"}


def test_a_file_of_the_repository_that_a_page_shows_is_run_as_it_is():
    shown = [block for block in blocks_of(ROOT / "docs" / "how-to" / "define-by-run.md") if block.file]
    assert [block.file for block in shown] == ["tutorial_space.py"]
    assert shown[0].content == (ROOT / "docs" / "tutorial_space.py").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_every_block_of_a_page_runs_in_order(page, tmp_path):
    for block in blocks_of(page):
        if not block.skipped:
            execute(block, tmp_path)


def check_command(line: str) -> None:
    """Every word of ``line`` that must be known is: the command, and its options."""
    _, *words = shlex.split(line)
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"{name} is no command: {line}"
        command = command.commands[name]
    known = {spelling for parameter in command.params for spelling in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in {*known, "--help"}, f"{word} is no option: {line}"


def execute(block: Block, folder: Path) -> None:
    """Does in ``folder`` what ``block`` says, with the interpreter that runs the tests first on the path."""
    if block.file:
        (folder / block.file).write_text(block.content, encoding="utf-8")
        return
    commands = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    if block.language not in commands:
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "NASPROXY_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder)}
    ran = subprocess.run(
        [*commands[block.language], block.text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"line {block.line}:\n{block.text}\n{ran.stdout}\n{ran.stderr}"
