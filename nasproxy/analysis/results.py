"""What a run left in its directory, read back and checked."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from nasproxy.analysis.json_shape import ANY_OBJECT, EVERY, NUMBER, SCALAR, TEXT, Maybe, Shape, parse_object
from nasproxy.errors import ProxyError, RunError, some
from nasproxy.files import facts_of, read_rows, read_text
from nasproxy.proxies.proxy_set import ProxySet
from nasproxy.text import counted, percent, shorten

CHOICE = "params_"
"""What the name of a choice's column in ``results.csv`` begins with."""

_INTEGERS = ("rank", "proxy_epochs", "parameters", "multiply_adds")
_NUMBERS = (
    "proxy_accuracy",
    "proxy_cross_entropy",
    "seconds",
    "whole_accuracy",
    "whole_cross_entropy",
    "test_accuracy",
    "whole_seconds",
)
_OPTIONAL = ("latency_ms",)
_BOOLS = ("diverged", "pareto")
_COLUMNS = ("id", "state", "diverged", "reason", *_INTEGERS, *_NUMBERS)
_RUN: Shape = {
    "settings": {"proxy": TEXT, "dataset": TEXT, "space": TEXT, "data_dir": TEXT, "seed": NUMBER, "repeats": NUMBER},
    "identity": Maybe(ANY_OBJECT),
    "dataset": {
        **dict.fromkeys(("name", "fingerprint"), TEXT),
        **dict.fromkeys(("train", "validation", "test"), NUMBER),
        "class_names": [TEXT],
        "notes": Maybe([TEXT]),
    },
    "space": {"name": TEXT, "choices": {EVERY: [SCALAR]}},
    "versions": ANY_OBJECT,
    "machine": ANY_OBJECT,
}
_CANDIDATE: Shape = {
    "rank": NUMBER,
    "id": TEXT,
    "config": ANY_OBJECT,
    **dict.fromkeys(("proxy_accuracy", "whole_accuracy", "test_accuracy", "parameters", "multiply_adds"), NUMBER),
}
_SUMMARY: Shape = {
    "candidates": NUMBER,
    "evaluated": NUMBER,
    "not_reached": NUMBER,
    "budget_spent": (bool, NoneType),
    "top": [_CANDIDATE],
    "agreement": {"rho": NUMBER, "interval": Maybe([(int, float)]), "kendall": NUMBER, "n": (int,), "reason": TEXT},
    "calibration": Maybe(
        {
            "rho": NUMBER,
            "interval": Maybe([(int, float)]),
            "kendall": NUMBER,
            "n": (int,),
            "reason": TEXT,
            "ranked": NUMBER,
            "best_whole_accuracy": NUMBER,
            "sample": [{"id": (str,), "rank": (int,), "whole_accuracy": NUMBER}],
        }
    ),
    "rungs": Maybe([{"epochs": NUMBER, "candidates": NUMBER, "seconds": NUMBER}]),
    "seconds": {EVERY: NUMBER},
    "winner": Maybe(_CANDIDATE),
}


@dataclass(frozen=True)
class RunResults:
    """A run directory's content.

    Args:
        run: ``run.json``: what was asked, of which data and space, with which versions, on which machine.
        summary: ``summary.json``; empty while the run is unfinished.
        table: ``results.csv``, a row for each candidate in rank order; accuracies are fractions, counts are nullable
            integers, ``diverged`` and ``pareto`` (not in a run of before there was one) are bools, a choice's column
            (``params_…``) is an ordered categorical of the texts of its values.
        proxy: what the candidates were ranked on, where the run kept it.
        directory: where all of it lies.
    """

    run: dict[str, Any]
    summary: dict[str, Any]
    table: pd.DataFrame
    proxy: ProxySet | None
    directory: Path

    def __repr__(self) -> str:
        asked = self.run["settings"]
        about = f"{self.run['space']['name']} on {self.run['dataset']['name']} by {asked['proxy']}"
        end = winner_words(self.summary) if self.finished else "unfinished"
        return f"RunResults({self.directory}: {about}, {counted(len(self.table), 'candidate')}\n  {end})"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.summary)


def winner_words(summary: Mapping[str, Any]) -> str:
    """Which candidate a search ended with, and how well it does, on one line."""
    winner = summary["winner"]
    if winner is None:
        return "no winner"
    config = some([f"{name}={shorten(value)}" for name, value in winner["config"].items()])
    accuracies = f"{percent(winner['whole_accuracy'])} validation, {percent(winner['test_accuracy'])} test accuracy"
    return f"winner {winner['id']}: {config}; {accuracies}"


def load_run(directory: Path | str) -> RunResults:
    """Reads ``run.json``, ``results.csv`` and, where they are there, ``summary.json`` and ``proxy.safetensors``.

    Raises:
        RunError: the directory is a comparison's, a part of one, a training's or no run's, or a file in it is missing,
            truncated or foreign.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise RunError(f"There is no run directory {directory}.", "Pass the --out directory of a nasproxy search.")
    if not (directory / "run.json").is_file():
        raise RunError(f"{directory} is not a run directory: it holds no run.json.", _where_runs_are(directory))
    _check_is_search(directory)
    run = _read_json(directory / "run.json", _RUN)
    if _compares(run):
        folder = shlex.quote(str(directory))
        raise RunError(
            f"{directory} holds a comparison of proxies, not a search.",
            f"Its report is drawn anew by: nasproxy compare --from {folder} --out {folder}",
        )
    table = _read_table(directory / "results.csv", run["space"]["choices"])
    unfinished = not (directory / "summary.json").exists()
    summary = {} if unfinished else _read_json(directory / "summary.json", _SUMMARY)
    evaluated = summary.get("evaluated") or 0
    if len(table) < evaluated:
        _refuse(directory / "results.csv", f"it has {len(table)} candidates, summary.json counts {evaluated} evaluated")
    return RunResults(run, summary, table, _read_proxy(directory / "proxy.safetensors"), directory)


def _check_is_search(directory: Path) -> None:
    """Refuses what has a ``run.json`` of another kind, for which a search's advice would be wrong."""
    training = facts_of(directory).get("training")
    if isinstance(training, dict):
        search = (directory.resolve() / str(training.get("run"))).resolve()
        raise RunError(
            f"{directory} holds the training of one network, not a search.",
            f"Its curves are {directory / 'curves.png'} and curves.csv; the search's report is written by: nasproxy"
            f" report {shlex.quote(str(search))}",
        )
    above = directory.resolve().parents[:2]  # of COMPARISON/whole and COMPARISON/proxies/NAME
    comparison = next((folder for folder in above if _compares(facts_of(folder))), None)
    if comparison is not None and not (directory / "results.csv").exists():
        folder = shlex.quote(str(comparison))
        raise RunError(
            f"{directory} is a part of a comparison of proxies, not a search.",
            f"The comparison's report is drawn anew by: nasproxy compare --from {folder} --out {folder}",
        )


def _compares(facts: Mapping[str, Any]) -> bool:
    identity = facts.get("identity")
    return isinstance(identity, dict) and "sample" in identity


def choice_columns(table: pd.DataFrame) -> list[str]:
    """The names of the columns that hold choices."""
    return [name for name in table.columns if name.startswith(CHOICE)]


def _where_runs_are(directory: Path) -> str:
    """What to do about a folder without ``run.json``, which need not have been a run's."""
    if any((directory / name).exists() for name in ("study.log", "study.db", "results.csv")):
        return _search_again(directory)
    inside = sorted(str(file.parent) for file in directory.glob("*/run.json"))
    if inside:
        return f"Pass one of the runs in it: {some(inside)}."
    return "Pass the --out directory of a nasproxy search; without --out that is a new one in runs."


def _search_again(directory: Path) -> str:
    return f"Write it again by the search's own command: nasproxy search … --out {shlex.quote(str(directory))} --resume"


def _refuse(path: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    raise RunError(f"{path} cannot be read: {why}.", _search_again(path.parent)) from cause


def _read_json(path: Path, shape: Shape) -> dict[str, Any]:
    try:
        return parse_object(read_text(path), shape)
    except ValueError as error:
        _refuse(path, str(error), error)


def _read_proxy(path: Path) -> ProxySet | None:
    if not path.exists():
        return None
    from nasproxy.proxies.proxy_file import load_proxy

    try:
        return load_proxy(path)
    except ProxyError as error:
        raise RunError(error.message, error.hint) from error


def _read_table(path: Path, choices: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """``results.csv`` with exact types; pandas would guess, and read a choice's value ``None`` or ``NA`` as missing."""
    try:
        rows = read_rows(path)
    except ValueError as error:
        _refuse(path, str(error), error)
    header, body = rows[0], rows[1:]
    missing = [name for name in (*_COLUMNS, *(CHOICE + name for name in choices)) if name not in header]
    if missing:
        _refuse(path, f"expected the columns {', '.join(missing)}, which it does not have")
    strange = [name for name in header if name.startswith(CHOICE) and name.removeprefix(CHOICE) not in choices]
    if strange or len(set(header)) < len(header):
        _refuse(path, f"it has columns twice, or choices that run.json does not list: {', '.join(strange or header)}")
    for line, row in enumerate(body, 2):
        if len(row) != len(header):
            _refuse(path, f"row {line} has {len(row)} fields, expected {len(header)}")
    table = pd.DataFrame(body, columns=header, dtype=object)
    try:
        for name in _INTEGERS:
            table[name] = _numbers(table[name]).astype("Int64")
        for name in (*_NUMBERS, *(name for name in _OPTIONAL if name in header)):
            table[name] = _numbers(table[name])
    except (ValueError, TypeError, OverflowError) as error:
        _refuse(path, f"the column {name} holds something that is not a number ({error})", error)
    for name in (name for name in _BOOLS if name in header):
        table[name] = table[name].str.lower().isin(["true", "1", "1.0"])
    for name, values in choices.items():
        table[CHOICE + name] = _values(path, name, table[CHOICE + name], values)
    return table.sort_values("rank", kind="stable", na_position="last", ignore_index=True)


def _numbers(column: pd.Series[Any]) -> pd.Series[float]:
    numbers = column.map(lambda text: float(text) if text else math.nan).astype("float64")
    return numbers.where(np.isfinite(numbers))


def _values(path: Path, name: str, column: pd.Series[Any], values: Sequence[Any]) -> pd.Categorical:
    """The column's values in the order the space declares, each in Python's spelling (as in a message)."""
    spellings = {_spell(value): str(value) for value in values}
    spellings.update({str(value): str(value) for value in values})
    texts = [spellings.get(text, spellings.get(_spell(text))) for text in column]
    unknown = next((text for text, known in zip(column, texts, strict=True) if known is None), None)
    if unknown is not None:
        _refuse(path, f"the choice {name} has the value {unknown!r}, which run.json does not list")
    return pd.Categorical(texts, categories=list(dict.fromkeys(map(str, values))), ordered=True)


def _spell(value: Any) -> str:
    """A value as CSV writers put it: nothing for None, numbers without regard to int or float."""
    try:
        return "" if value is None else repr(float(str(value)))
    except ValueError:
        return str(value)
