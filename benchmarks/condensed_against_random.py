"""What the default ConvNet learns from condensed and from random images: Table 1 of the paper, for any dataset.

    python benchmarks/condensed_against_random.py --dataset digits --ipc 1 10
    python benchmarks/condensed_against_random.py --dataset cifar10 --data-dir DIR --ipc 1 --preset paper

For each number of images per class, several sets are made (by gradient matching, and drawn at random), and on each of
them several freshly initialised networks are trained by the paper's recipe. A set, and a network, of the same number
has the same seed in both. Mean and standard deviation of the test accuracy are over all networks of all sets. The same
command goes on with a file that is there, and more --ipc or --sets may be asked of it. Memory is the most that the
whole process (on a GPU: the GPU) had held when a set was made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accuracies import Made, Plan, Trained, check_ipc, options, run
from result_file import Record, markdown

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.random import RandomImages

COLUMNS = ("test accuracy %", "sets", "networks", "s/set", "s/network", "peak GiB")


def main() -> int:
    """Measures what is missing, and prints the table; returns the exit code."""
    parser = options(__doc__, sets=5, networks=20)
    parser.add_argument(
        "--ipc", type=int, nargs="+", default=[1, 10], metavar="N", help="images per class (default: 1 10)"
    )
    return run(parser, plan, table, lambda _: "condensed_against_random")


def plan(arguments: argparse.Namespace) -> Plan:
    """One ConvNet on both kinds of set."""
    check_ipc(arguments)
    made = []
    for ipc in arguments.ipc:
        recipe = MatchingRecipe.preset(arguments.preset, ipc)
        if arguments.iterations is not None:
            recipe = replace(recipe, iterations=arguments.iterations)
        made += [Made("random", ipc, RandomImages(ipc), arguments.epochs)]
        made += [Made("condensed", ipc, recipe, arguments.epochs)]
    return [(kind, [Trained()]) for kind in made]


def table(arguments: argparse.Namespace, record: Record) -> str:
    """A row for each kind of set that has been measured."""
    rows = [row for ipc in arguments.ipc for row in record.document["rows"] if row["ipc"] == ipc]
    return markdown(
        "images per class", COLUMNS, {f"{row['ipc']} {row['made_by']}": _cells(row, record) for row in rows}
    )


def _cells(row: Mapping[str, Any], record: Record) -> list[str]:
    return [
        record.cell(row["made_by"], row["ipc"], row["network"]),
        str(row["sets"]),
        str(row["networks"]),
        f"{row['seconds_making_a_set']:.1f}",
        f"{row['seconds_training_a_network']:.2f}",
        f"{row['peak_memory_bytes'] / 2**30:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
