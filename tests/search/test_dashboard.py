"""optuna-dashboard, where it is installed, on a run's study: what it asks its own server for is there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_search import CANDIDATES, invoke, search_words, write_space

DASHBOARD = shutil.which("optuna-dashboard", path=os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]]))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DASHBOARD is None, reason="needs optuna-dashboard"),
]


@contextmanager
def served(study: Path) -> Iterator[str]:
    """The address of a dashboard of ``study``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(DASHBOARD), str(study), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def ask(address: str) -> dict[str, Any]:
    """Its JSON; waits a minute for the server to come up."""
    for left in range(240, -1, -1):
        try:
            with urllib.request.urlopen(address) as answer:  # noqa: S310, our own server
                return dict(json.load(answer))
        except OSError:
            if not left:
                raise
            time.sleep(0.25)
    raise AssertionError


def test_shows_trials_their_history_and_the_importance_of_parameters(tmp_path: Path):
    assert invoke(*search_words(write_space(tmp_path), tmp_path / "run", "--scheduler", "none")).code == 0
    with served(tmp_path / "run" / "study.log") as address:
        (study,) = ask(f"{address}/api/studies")["study_summaries"]
        found = ask(f"{address}/api/studies/{study['study_id']}")
        importance = ask(f"{address}/api/studies/{study['study_id']}/param_importances")["param_importances"]
    assert study["study_name"] == "nasproxy"
    assert [trial["state"] for trial in found["trials"]] == ["Complete"] * CANDIDATES
    assert all(0 <= trial["values"][0] <= 1 for trial in found["trials"])
    assert {param["name"] for param in found["trials"][0]["params"]} == {"width", "activation"}
    assert {entry["name"] for entry in importance[0]} == {"width", "activation"}
    assert sum(entry["importance"] for entry in importance[0]) == pytest.approx(1)
