"""The result file of a benchmark: conditions that all of it shares, sets that were made, a row for each kind."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import RunError
from nasproxy.files import make_folder, write_json
from nasproxy.versions import library_versions, machine_facts

RESULTS = Path(__file__).parent / "results"


class Record:
    """The file of one table.

    Args:
        file: made if it is not there.
        about: the conditions that all of it shares.

    Raises:
        RunError: the file is of other conditions, or cannot be read.
        WriteError: it cannot be written.
    """

    def __init__(self, file: Path, about: Mapping[str, Any]) -> None:
        self.file = file
        self.document = open_document(file, about, summarise)
        make_folder(file.parent)
        self.save()  # a place that cannot be written shows itself before hours of work

    @property
    def sets(self) -> list[dict[str, Any]]:
        """The sets that were made, each with the accuracies of the networks trained on it."""
        sets: list[dict[str, Any]] = self.document["sets"]
        return sets

    def find(self, label: str, ipc: int, number: int) -> dict[str, Any] | None:
        """The set of this kind and number, if it was made."""
        key = (label, ipc, number)
        return next((entry for entry in self.sets if (entry["made_by"], entry["ipc"], entry["set"]) == key), None)

    def save(self) -> None:
        """Writes everything."""
        self.document["rows"] = summarise(self.sets)
        write_json(self.file, self.document)

    def cell(self, label: str, ipc: int, network: str) -> str:
        """``86.5 ± 1.8`` (per cent) of one kind of set and one trained network; a dash where there is none yet."""
        key = (label, ipc, network)
        rows = self.document["rows"]
        row = next((row for row in rows if (row["made_by"], row["ipc"], row["network"]) == key), None)
        if row is None:
            failed = any("failure" in s for s in self.sets if (s["made_by"], s["ipc"]) == (label, ipc))
            return "diverged" if failed else "\N{EN DASH}"
        spread = f" ± {100 * row['std']:.1f}" if row["std"] is not None else ""
        return f"{100 * row['mean']:.1f}{spread}"


def summarise(sets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each kind of set and trained network; the sample standard deviation is null for one accuracy."""
    cells: dict[tuple[str, int, str], list[tuple[int, Mapping[str, Any]]]] = {}
    for entry in sets:
        for network in entry["networks"]:
            key = (entry["made_by"], entry["ipc"], network["network"])
            cells.setdefault(key, []).append((entry["set"], network))
    rows = []
    for (label, ipc, network), measured in cells.items():
        accuracies = [m["accuracy"] for _, m in measured]
        made = [s for s in sets if (s["made_by"], s["ipc"]) == (label, ipc)]
        rows.append(
            {
                "made_by": label,
                "ipc": ipc,
                "network": network,
                "sets": len({number for number, _ in measured}),
                "networks": len(accuracies),
                "mean": statistics.mean(accuracies),
                "std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
                "seconds_making_a_set": statistics.mean(s["seconds_making"] for s in made),
                "seconds_training_a_network": statistics.mean(m["seconds"] for _, m in measured),
                "peak_memory_bytes": max(s["peak_memory_bytes"] for s in made),
            }
        )
    return rows


def markdown(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A Markdown table; ``rows`` maps the head of each row to its cells."""
    lines = [(corner, *columns), ("---",) * (1 + len(columns)), *((head, *cells) for head, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def open_document(
    file: Path, about: Mapping[str, Any], summarise: Callable[[list[dict[str, Any]]], Any]
) -> dict[str, Any]:
    """What is in the file, if it was measured under the same conditions; else the beginning of a new one.

    Args:
        file: of ``about``, ``rows`` and ``sets``.
        about: the conditions.
        summarise: the rows of its sets; what raises a plain error here is no such file.

    Raises:
        RunError: it was measured under others, or cannot be read.
    """
    if not file.exists():
        return {**about, "rows": [], "sets": []}
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        summarise(there["sets"])
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise RunError(f"{file} cannot be read: {error}.", "Choose another --out.") from error
    wanted = json.loads(json.dumps(about))
    before, now = _flat({name: there.get(name) for name in wanted}), _flat(wanted)
    if differing := [name for name in sorted(before | now) if before.get(name) != now.get(name)]:
        raise RunError(
            f"{file} was measured under other conditions: "
            + "; ".join(f"{name} was {before.get(name)}, now {now.get(name)}" for name in differing)
            + ".",
            "Repeat its options on its machine, or choose another --out.",
        )
    return {**wanted, "rows": there["rows"], "sets": there["sets"]}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested names in one level: ``settings.training.epochs``."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part in value for key, leaf in _flat(value[part], f"{name}.{part}".lstrip(".")).items()}


def provenance() -> dict[str, Any]:
    """Where the figures of a processor come from: code, libraries and machine."""
    return {"commit": commit(), "versions": library_versions(), "machine": machine_facts("cpu")}


def dataset_facts(dataset: ImageDataset) -> dict[str, Any]:
    """What a result file says of its data."""
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "train": len(dataset.train),
        "test": len(dataset.test),
        "classes": dataset.num_classes,
        "channels": dataset.channels,
        "image_size": list(dataset.image_size),
    }


def plain_name(name: str) -> str:
    """The name of a dataset; of a folder, its last part."""
    return Path(name).expanduser().resolve().name


def commit() -> str | None:
    """The commit of this checkout, marked where it was changed; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()
