"""Searches that take seconds: a space of small networks in a file, a few epochs, the command that runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nasproxy.cli.main import run
from nasproxy.search.halving import halving_rungs

SPACE = '''
import os
import time

from torch import nn

from nasproxy import SearchSpace


class Wait(nn.Module):
    """Makes every training step take TINY_SECONDS, so that a process can be met in the middle of a search."""

    def forward(self, images):
        if self.training:
            time.sleep(float(os.environ.get("TINY_SECONDS", "0")))
        return images


class Tiny(SearchSpace):
    name = "tiny"
    choices = {"width": [2, 4, 8, 16], "activation": ["relu", "tanh", "sigmoid"]}

    def build(self, config, *, in_channels, num_classes, image_size):
        activation = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[config["activation"]]()
        return nn.Sequential(
            Wait(), nn.Flatten(), nn.LazyLinear(config["width"]), activation, nn.LazyLinear(num_classes)
        )
'''
"""Twelve networks."""

QUICK = ["--proxy", "random", "--ipc", "2", "--epochs", "4", "--finalist-epochs", "1", "--top-k", "2"]

CANDIDATES, FINALISTS = 12, 2
RUNGS = halving_rungs(CANDIDATES, 4, FINALISTS)
"""What ``QUICK`` does with them, whatever the cuts are."""

TRAININGS = sum(rung.candidates for rung in RUNGS) + FINALISTS

TIMES = ["seconds", "whole_seconds"]
"""The columns of ``results.csv`` that differ from run to run."""


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))


def register_space(site: Path, package: str, entry: str) -> None:
    """Makes ``site``, once it is on ``sys.path``, hold an installed package that registers a space."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nasproxy.search_spaces]\n{entry}\n")


def write_space(folder: Path, text: str = SPACE, name: str = "my_space.py") -> Path:
    """Puts a space's file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def search_words(space: Path, out: Path, *more: str) -> list[str]:
    """The words of a search that takes a second, in this process unless ``more`` says otherwise."""
    executor = [] if "--executor" in more else ["--executor", "inline"]
    return ["search", "--space", str(space), "--out", str(out), *QUICK, *executor, *more]


def invoke(*words: str) -> Said:
    """Runs a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(words)
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Said(code, out.getvalue(), err.getvalue())


def start(words: Sequence[str], *, seconds: float = 0.0, **more: Any) -> subprocess.Popen[str]:
    """Starts ``nasproxy`` with ``words`` in a process of its own, each training step at least ``seconds`` long."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("nasproxy")), *words],
        env={**os.environ, "TINY_SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def finish(process: subprocess.Popen[str]) -> Said:
    """Waits for its end."""
    out, err = process.communicate()
    return Said(process.returncode, out, err)


def read_table(run_directory: Path) -> pd.DataFrame:
    """``results.csv`` without the times."""
    return pd.read_csv(run_directory / "results.csv").drop(columns=TIMES)


def journal_lines(run_directory: Path) -> list[dict[str, Any]]:
    """The whole lines of ``study.log``."""
    journal = run_directory / "study.log"
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]]


def recorded_trainings(run_directory: Path) -> Counter[tuple[str, str]]:
    """How often each training was recorded: (candidate id, ``proxy:<epochs>:<repeat>`` or ``whole:…``)."""
    ids: list[str] = []
    found: Counter[tuple[str, str]] = Counter()
    for line in journal_lines(run_directory):
        if "user_attrs" in line:
            ids.append(line["user_attrs"]["id"])
            found.update((ids[-1], name) for name in line["user_attrs"] if name.startswith("proxy:"))
        for name in line.get("user_attr", {}):
            if name.startswith("proxy:"):
                found[ids[line["trial_id"]], name] += 1
            elif name.startswith("whole:"):
                kind, _, candidate = name.rpartition(":")
                found[candidate, kind] += 1
    return found
