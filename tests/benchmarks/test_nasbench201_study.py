"""The study of the NAS-Bench-201 cells keeps what the table is drawn from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_search import invoke, write_space

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import nasbench201_study


@pytest.mark.slow
def test_what_is_kept_draws_the_table(tmp_path, monkeypatch, capsys):
    words = ["--space", str(write_space(tmp_path)), "--out", str(tmp_path / "run"), "--limit", "9", "--sample", "9"]
    words += ["--proxies", "random,early-stopping,parameters", "--top-k", "4", "--epochs", "1", "--image-size", "8"]
    words += ["--finalist-epochs", "1", "--executor", "inline", "--results", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", ["nasbench201_study.py", *words])
    assert nasbench201_study.main() == 0
    capsys.readouterr()
    folder = tmp_path / "results" / "nasbench201_digits"
    assert {file.name for file in folder.iterdir()} == {"README.md", "scores.csv", "scores.json", "comparison.md"}
    assert nasbench201_study.PROTOCOL in (folder / "README.md").read_text()
    assert invoke("compare", "--from", str(folder)).code == 0


def test_the_defaults_are_the_unique_cells_and_every_proxy_is_known():
    settings = nasbench201_study._settings(nasbench201_study._parser().parse_args(["--out", "run"]))
    assert (settings.search.space, settings.search.scheduler) == ("nasbench201-unique", "none")
    assert len(settings.proxies) == 8
