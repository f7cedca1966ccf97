"""The correlation table's script: it keeps every score, and what it keeps can be drawn again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_search import invoke, write_space

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import correlation_table


def run_script(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["correlation_table.py", *words])
    return correlation_table.main()


def test_what_is_kept_draws_the_table(tmp_path, monkeypatch, capsys):
    words = ["--dataset", "digits", "--space", str(write_space(tmp_path)), "--out", str(tmp_path / "run")]
    words += ["--proxies", "random,early-stopping,parameters", "--limit", "9", "--top-k", "4", "--epochs", "1"]
    words += ["--image-size", "8", "--finalist-epochs", "1", "--executor", "inline", "--device", "cpu"]
    words += ["--results", str(tmp_path / "results"), "--time-budget", "5"]
    assert run_script(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "results" / "correlation_digits_small"
    assert {file.name for file in folder.iterdir()} == {"README.md", "scores.csv", "scores.json", "comparison.md"}
    text = (folder / "README.md").read_text()
    for fragment in ("small, which is not the paper's", "9 of the 12 of tiny", "`early-stopping.0`", "1 epochs"):
        assert fragment in text
    assert str(tmp_path) not in text
    example = text.partition("```python\n")[2].partition("```")[0]
    assert 'proxy="random"' in example
    example = example.replace(f"benchmarks/results/{folder.name}", str(folder))
    assert subprocess.run([sys.executable, "-c", example], capture_output=True).returncode == 0
    drawn = invoke("compare", "--from", str(folder))
    assert drawn.code == 0, drawn.err
    assert (folder / "comparison.md").read_text().split("\n\n")[0] in said
    assert run_script(monkeypatch, *words) == 0


@pytest.mark.slow
def test_a_budget_that_is_spent_stops_the_run_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    words = ["--dataset", "digits", "--space", str(write_space(tmp_path)), "--out", str(tmp_path / "run")]
    words += [
        "--proxies",
        "random",
        "--top-k",
        "3",
        "--epochs",
        "2",
        "--limit",
        "9",
        "--ipc",
        "2",
        "--executor",
        "inline",
    ]
    words += ["--finalist-epochs", "1", "--device", "cpu", "--results", str(tmp_path / "results")]
    monkeypatch.setenv("TINY_SECONDS", "0.02")
    assert run_script(monkeypatch, *words, "--time-budget", "0.005") == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setenv("TINY_SECONDS", "0")
    assert run_script(monkeypatch, *words) == 0


@pytest.mark.parametrize("minutes", ["0", "-1", "inf", "nan", "an hour"])
def test_budgets_that_are_none(tmp_path, monkeypatch, minutes, capsys):
    with pytest.raises(SystemExit):
        run_script(monkeypatch, "--out", str(tmp_path / "run"), "--time-budget", minutes)
    assert not (tmp_path / "run").exists()
