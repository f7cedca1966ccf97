"""``scores.csv``: every score of every candidate, from which the table is drawn; a small tabular benchmark.

``scores.json`` beside it says what each column holds, and has a digest of each, so that a change is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from jaxtyping import Bool, Float64

from nasproxy.analysis.bootstrap import mean_of_repeats
from nasproxy.analysis.json_shape import ANY_OBJECT, EVERY, NUMBER, SCALAR, TEXT, Maybe, Shape, parse_object
from nasproxy.compare.names import WHOLE
from nasproxy.errors import InputError, RunError, nearest, some
from nasproxy.files import csv_text, read_rows, read_text, write_atomically, write_json
from nasproxy.spaces.space import Scalar
from nasproxy.text import counted

if TYPE_CHECKING:
    import pandas as pd

_FACTS: Shape = {
    "dataset": TEXT,
    "space": TEXT,
    "choices": {EVERY: [SCALAR]},
    "preset": TEXT,
    "seed": (int,),
    "repeats": (int,),
    "top_k": (int,),
    "proxies": {EVERY: {"reason": TEXT, "seconds": NUMBER, "making_seconds": NUMBER, "images": NUMBER}},
    "notes": [TEXT],
    "columns": {EVERY: {"meaning": TEXT, "digest": TEXT}},
    "versions": Maybe(ANY_OBJECT),
    "machine": Maybe(ANY_OBJECT),
}


@dataclass(frozen=True)
class ComparisonScores:
    """All that a comparison measured.

    Args:
        facts: ``scores.json``.
        columns: ``scores.csv`` as texts, by the name of the column; one for each candidate.
    """

    facts: dict[str, Any]
    columns: dict[str, list[str]]

    def __repr__(self) -> str:
        about = f"{counted(len(self), 'candidate')} of {self.facts['space']} on {self.facts['dataset']}"
        return f"ComparisonScores({about}\n  by {some(list(self.proxies))})"

    def __len__(self) -> int:
        return len(self.columns["id"])

    def numbers(self, column: str) -> Float64[np.ndarray, " candidates"]:
        """A column of numbers; NaN where it is empty."""
        return np.array([float(text) if text else math.nan for text in self.columns[column]], dtype=np.float64)

    def repeats(self, name: str) -> Float64[np.ndarray, "candidates repeats"]:
        """The scores by a proxy, or ``whole`` or ``test``: a column for each repeat, NaN where there is none."""
        return np.stack([self.numbers(f"{name}.{repeat}") for repeat in range(self.facts["repeats"])], axis=1)

    @property
    def sampled(self) -> Bool[np.ndarray, " candidates"]:
        """Which candidates belong to the random sample."""
        return np.array([text == "1" for text in self.columns["sampled"]], dtype=bool)

    @property
    def proxies(self) -> dict[str, dict[str, Any]]:
        """What is known of each proxy as a whole, by name."""
        found: dict[str, dict[str, Any]] = self.facts["proxies"]
        return found

    def choice(self, name: str) -> list[Scalar]:
        """The value of a choice of each candidate."""
        values = {spell(value): value for value in self.facts["choices"][name]}
        return [values[text] for text in self.columns[f"params_{name}"]]

    @cached_property
    def table(self) -> pd.DataFrame:
        """``scores.csv`` with a row for each candidate, indexed by its id.

        ``params_<choice>`` hold the values of the choices, ``sampled`` is a bool, all other columns are numbers (NaN
        where there is none) but for ``whole_reason``, a text. ``facts["columns"]`` says what each column means.
        """
        import pandas as pd

        index = pd.Index(self.columns["id"], name="id")
        return pd.DataFrame({name: self._typed(name) for name in self.columns if name != "id"}, index=index)

    def query(self, config: Mapping[str, Any], *, proxy: str = WHOLE, repeat: int | None = None) -> float:
        """What a candidate scored: by a proxy, or its accuracy after training on the whole data.

        Args:
            config: one value for each choice.
            proxy: whose score; ``whole`` is validation accuracy on the whole data, ``test`` test accuracy of the same.
            repeat: which training, from 0; None takes the mean of all.

        Returns:
            NaN where there is none: the training failed, or the candidate was not trained on the whole data.

        Raises:
            InputError: no such candidate, proxy or repeat.

        Example:
            >>> scores = load_scores(Path("benchmarks/results/NAME"))  # doctest: +SKIP
            >>> scores.query({"width": 128, "depth": 3, "norm": "batch"}, proxy="random")  # doctest: +SKIP
        """
        repeats = self.repeats(self._known(proxy))[self._row(config)]
        if repeat is None:
            return float(mean_of_repeats(repeats[None])[0])
        if not 0 <= repeat < len(repeats):
            raise InputError(f"There is no repeat {repeat} of {len(repeats)}.", "They are counted from 0.")
        return float(repeats[repeat])

    def _known(self, proxy: str) -> str:
        names = [*self.proxies, WHOLE, "test"]
        if proxy not in names:
            raise InputError(f"No scores of {proxy!r} are there.", nearest(proxy, names))
        if proxy in self.proxies and (reason := self.proxies[proxy]["reason"]) is not None:
            raise InputError(f"{proxy} has no scores: {reason}.")
        return proxy

    def _row(self, config: Mapping[str, Any]) -> int:
        choices = self.facts["choices"]
        if wrong := sorted({*config} ^ {*choices}):
            raise InputError(f"A configuration has the choices {', '.join(choices)}; wrong here: {', '.join(wrong)}.")
        wanted = tuple(spell(config[choice]) for choice in choices)
        rows = list(zip(*(self.columns[f"params_{choice}"] for choice in choices), strict=True))
        if wanted not in rows:
            raise InputError(f"No candidate with {dict(config)} took part.", f"{len(rows)} candidates did: see table.")
        return rows.index(wanted)

    def _typed(self, column: str) -> Any:
        """A column's values as what they are."""
        choice = column.removeprefix("params_")
        if choice != column and choice in self.facts["choices"]:  # a proxy's file may be called params_ too
            return self.choice(choice)
        if column == "sampled":
            return self.sampled
        return self.columns[column] if column == "whole_reason" else self.numbers(column)


def spell(value: Any) -> str:
    """A value as a cell: strings as they are, numbers to the last bit, missing ones empty."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)) or value is None:
        return json.dumps(None if value is None else bool(value))
    number = float(value)
    if math.isnan(number):
        return ""
    return repr(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def save_scores(
    directory: Path, facts: Mapping[str, Any], columns: Sequence[tuple[str, str, Iterable[Any]]]
) -> ComparisonScores:
    """Writes ``scores.csv`` and ``scores.json``; returns what they hold.

    Args:
        directory: where they go.
        facts: of the comparison; the columns are added.
        columns: name, meaning and values of each.
    """
    texts = {name: [spell(value) for value in values] for name, _, values in columns}
    described = {name: {"meaning": meaning, "digest": _digest(texts[name])} for name, meaning, _ in columns}
    whole = {"schema": 1, **facts, "columns": described}
    write_atomically(directory / "scores.csv", csv_text([list(texts), *zip(*texts.values(), strict=True)]).encode())
    write_json(directory / "scores.json", whole)
    return ComparisonScores(whole, texts)


def load_scores(path: Path | str) -> ComparisonScores:
    """Reads what a comparison measured.

    Args:
        path: ``scores.csv``, or the folder that holds it and ``scores.json``.

    Raises:
        RunError: a file is missing or truncated, or a column is missing, strange or changed.
    """
    path = Path(path)
    table = path / "scores.csv" if path.is_dir() else path
    beside = table.with_suffix(".json")
    try:
        facts = parse_object(read_text(beside), _FACTS)
    except ValueError as error:
        _refuse(beside, str(error))
    try:
        rows = read_rows(table)
    except ValueError as error:
        _refuse(table, str(error))
    header, described = rows[0], facts["columns"]
    for name in described:
        if name not in header:
            _refuse(table, f"it lacks the column {name!r}")
    for name in header:
        if name not in described or header.count(name) > 1:
            _refuse(table, f"it has a column {name!r} that {beside.name} does not describe, or has it twice")
    if lengths := [number for number, row in enumerate(rows, 1) if len(row) != len(header)]:
        _refuse(table, f"line {lengths[0]} has not as many fields as there are columns")
    columns = {name: [row[position] for row in rows[1:]] for position, name in enumerate(header)}
    for name, texts in columns.items():
        if _digest(texts) != described[name]["digest"]:
            _refuse(table, f"the column {name!r} is not as it was written: values were changed, or rows moved")
    _check_names(beside, facts, columns)
    return ComparisonScores(facts, columns)


def _check_names(path: Path, facts: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """The columns that the facts speak of are there; what was changed in both files is not looked for."""
    scored = [name for name, proxy in facts["proxies"].items() if proxy["reason"] is None]
    wanted = ["id", "sampled", *(f"params_{name}" for name in facts["choices"]), *(f"{name}.ties" for name in scored)]
    wanted += [f"{name}.{repeat}" for name in (*scored, "whole", "test") for repeat in range(facts["repeats"])]
    for name in wanted:
        if name not in columns:
            _refuse(path, f"it does not describe the column {name!r}")
    for name, values in facts["choices"].items():
        if strange := {*columns[f"params_{name}"]} - {spell(value) for value in values}:
            _refuse(path, f"it lists no {min(strange)!r} among the values of {name}")


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=12).hexdigest()


def _refuse(path: Path, why: str) -> NoReturn:
    raise RunError(
        f"{path} cannot be read: {why}.",
        "Copy scores.csv and scores.json again from the run, or write them with: nasproxy compare --resume --out DIR",
    )
