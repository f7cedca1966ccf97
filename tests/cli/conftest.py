"""Commands run in a folder of their own, with a cache of their own, outside a terminal, in 80 columns."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny_search import invoke


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder."""
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Those that searches set are set back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What a command prints on a terminal of so many columns, as a reader sees it but for colours."""

    def printed(columns: int, *words: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in {"TTY_COMPATIBLE": "1", "TERM": "xterm", "COLUMNS": str(columns)}.items():
                patch.setenv(name, value)
            return re.sub(r"\x1b\[[0-9;]*m", "", invoke(*words).out)

    return printed
