"""The table as people put it into texts: cells for the terminal, Markdown and LaTeX, and plain figures as CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nasproxy.files import csv_text, make_folder, write_atomically
from nasproxy.text import percent, signed

_DASH = "\N{EN DASH}"
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}
_LATEX |= {"\N{GREEK SMALL LETTER RHO}": r"$\rho$", "\N{GREEK SMALL LETTER TAU}": r"$\tau$"}
_LATEX |= {
    "\N{MINUS SIGN}": "$-$",
    "\N{NO-BREAK SPACE}": "~",
    "\N{EN DASH}": "--",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
}


def table_cells(document: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table that people read."""
    k = document["k"]
    head = ["Proxy", "Performance", f"\N{GREEK SMALL LETTER RHO} top {k}", f"\N{GREEK SMALL LETTER TAU} top {k}"]
    head += [
        "\N{GREEK SMALL LETTER RHO} overall",
        f"Precision@{document['precision_k']}",
        "Regret",
        "Minutes",
        "Images",
    ]
    return head, [_cells(row) for row in document["rows"]]


def write_tables(directory: Path, document: Mapping[str, Any]) -> None:
    """Writes ``comparison.json``, ``.csv``, ``.md``, ``.tex``, ``tops.csv`` and ``within.csv`` into ``directory``."""
    make_folder(directory)
    files = {
        "comparison.json": json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "comparison.csv": _csv(_flat(row) for row in document["rows"]),
        "comparison.md": _markdown(document),
        "comparison.tex": _latex(document),
        "tops.csv": _csv(
            _flat({"proxy": row["proxy"], **part}) for row in document["rows"] for part in row["tops"] or ()
        ),
        "within.csv": _csv(
            _flat({"proxy": row["proxy"], **part}) for row in document["rows"] for part in row["within"] or ()
        ),
    }
    for name, text in files.items():
        write_atomically(directory / name, text.encode())


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["proxy"],
        _spread(row["performance"], row["performance_deviation"]),
        with_interval(row["correlation"], row["correlation_interval"]),
        _DASH if row["kendall"] is None else signed(row["kendall"]),
        with_interval(row["overall_correlation"], row["overall_interval"]),
        percent(row["precision"], 0),
        percent(row["regret"]),
        _minutes(row),
        _DASH if row["storage_images"] is None else f"{row['storage_images']}",
    ]


def _spread(value: float | None, deviation: float | None) -> str:
    """Percent, with the standard deviation over repeats where there is one."""
    if value is None or deviation is None:
        return percent(value)
    return f"{100 * value:.1f} \N{PLUS-MINUS SIGN} {percent(deviation)}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A correlation, its interval in brackets; a dash where there is none."""
    if value is None:
        return _DASH
    return signed(value) + ("" if interval is None else f" [{signed(interval[0])}, {signed(interval[1])}]")


def _minutes(row: Mapping[str, Any]) -> str:
    if row["minutes"] is None:
        return _DASH
    making = row["making_minutes"]
    return f"{row['minutes']:.1f}" + (f" (+{making:.1f})" if making >= 0.05 else "")


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is no single figure: an interval becomes two columns, lists are left to the JSON."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("interval"):
            flat |= dict(zip((f"{name}_low", f"{name}_high"), value or (None, None), strict=True))
        elif name == "winners":
            flat[name] = None if value is None else " ".join(value)
        elif name not in ("tops", "within"):
            flat[name] = value
    return flat


def _csv(rows: Any) -> str:
    records = list(rows)
    names = list(dict.fromkeys(name for record in records for name in record))
    return csv_text([names, *([record.get(name) for name in names] for record in records)])


def below_table(document: Mapping[str, Any]) -> list[str]:
    """The paragraphs under the table: why figures are missing, then what all of it means."""
    reasons = [f"{row['proxy']}: {row['reason']}." for row in document["rows"] if row["reason"]]
    return [*reasons, *document["text"]]


def _markdown(document: Mapping[str, Any]) -> str:
    head, rows = table_cells(document)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n\n".join([table, *(" ".join(text.split()) for text in below_table(document))]) + "\n"


def _latex(document: Mapping[str, Any]) -> str:
    head, rows = table_cells(document)
    lines = [" & ".join(map(_escape, line)) + r" \\" for line in (head, *rows)]
    body = [r"\begin{tabular}{l" + "r" * (len(head) - 1) + "}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    below = [_escape(" ".join(text.split())) for text in below_table(document)]
    preamble = "% needs \\usepackage{booktabs}"
    return "\n".join([preamble, *body, r"\bottomrule", r"\end{tabular}", "", "\n\n".join(below)]) + "\n"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
