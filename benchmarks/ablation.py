"""The ablations of the paper's appendix B: what one choice in condensing, or in training on the result, changes.

    python benchmarks/ablation.py norm
    python benchmarks/ablation.py distance --ipc 1 --sets 2
    python benchmarks/ablation.py steps --dataset mnist --data-dir DIR --preset paper --sets 5 --networks 20

norm, activation, pooling, depth and width vary the ConvNet: a row of the matrix is the one that images were condensed
with by gradient matching (C), a column the one trained on them (T); all else is the default ConvNet's. distance: rows
are the three distances between gradients, columns the six networks, each trained on what was condensed with it, at
32×32 pixels, which VGG-11 needs. steps: rows are T, the matching steps for each initialisation, columns ς_θ, the
network's epochs between two of them, at 10 images per class; the default ConvNet is trained. With T = 1 there is
nothing between. A cell is the mean and standard deviation of the test accuracies of all networks of all sets.

Every accuracy is written as it arrives. An interrupted run goes on where it was, and so does one whose --time-budget
was spent; a set that was half made goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accuracies import Made, Plan, Trained, options, run
from result_file import Record, markdown

from nasproxy.condensation.recipe import DISTANCES, MatchingRecipe
from nasproxy.errors import InputError, nearest
from nasproxy.networks.convnet import ACTIVATIONS, NORMS, POOLINGS
from nasproxy.networks.names import CONVNET, NETWORKS

OF_THE_CONVNET: Mapping[str, Sequence[Any]] = {
    "norm": tuple(NORMS),
    "activation": tuple(ACTIVATIONS),
    "pooling": tuple(POOLINGS),
    "depth": (1, 2, 3, 4),
    "width": (32, 64, 128, 256),
}
FACTORS = (*OF_THE_CONVNET, "distance", "steps")
MATCHING_STEPS, INNER_EPOCHS = (1, 2, 5, 10), (1, 10, 50)


@dataclass(frozen=True)
class Cell:
    """A cell of the table.

    Args:
        row, column: its heads.
        changes: of the recipe that makes the sets.
        trained: on them.
    """

    row: str
    column: str
    changes: Mapping[str, Any]
    trained: Trained

    @property
    def label(self) -> str:
        """Of the sets: cells with equal changes share them."""
        return ", ".join(f"{name}={value}" for name, value in self.changes.items())


def main() -> int:
    """Measures what is missing, and prints the table; returns the exit code."""
    parser = options(__doc__, sets=1, networks=3)
    add = parser.add_argument
    add("factor", metavar="FACTOR", choices=FACTORS, help=", ".join(FACTORS))
    add("--ipc", type=int, metavar="N", help="images per class (default: 1; of steps 10)")
    add("--values", nargs="+", metavar="V", help="of the factor, or of T for steps (default: all of the paper's)")
    return run(parser, plan, table, lambda arguments: f"ablation_{arguments.factor}_ipc{_ipc(arguments)}")


def plan(arguments: argparse.Namespace) -> Plan:
    """The sets of each row, and what is trained on them."""
    if arguments.factor == "distance" and arguments.image_size is None:
        arguments.image_size = "32"
    by_label: dict[str, list[Cell]] = {}
    for cell in cells(arguments):
        by_label.setdefault(cell.label, []).append(cell)
    return [(_made(same[0], arguments), [cell.trained for cell in same]) for same in by_label.values()]


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Those of the table, row by row."""
    if arguments.factor == "distance":
        for distance in _values(arguments, DISTANCES):
            for name, title in NETWORKS.items():
                yield Cell(distance, title, {"distance": distance, "network": name}, Trained(name, name))
    elif arguments.factor == "steps":
        for steps in _values(arguments, MATCHING_STEPS):
            for epochs in INNER_EPOCHS if steps > 1 else INNER_EPOCHS[:1]:
                yield Cell(
                    f"T = {steps}", f"ς_θ = {epochs}", {"matching_steps": steps, "inner_epochs": epochs}, Trained()
                )
    else:
        factor, values = arguments.factor, _values(arguments, OF_THE_CONVNET[arguments.factor])
        for row in values:
            for column in values:
                trained = Trained(f"{factor}={column}", CONVNET, {factor: column})
                yield Cell(str(row), str(column), {factor: row}, trained)


def _values(arguments: argparse.Namespace, known: Sequence[Any]) -> list[Any]:
    by_name = {str(value): value for value in known}
    for name in arguments.values or ():
        if name not in by_name:
            raise InputError(f"{name!r} is no value of {arguments.factor}.", nearest(name, by_name))
    return [by_name[name] for name in arguments.values or by_name]


def _made(cell: Cell, arguments: argparse.Namespace) -> Made:
    recipe = MatchingRecipe.preset(arguments.preset, _ipc(arguments))
    recipe = replace(recipe, iterations=arguments.iterations or recipe.iterations, **cell.changes)
    return Made(cell.label, recipe.ipc, recipe.suited_to_network(), arguments.epochs)


def _ipc(arguments: argparse.Namespace) -> int:
    usual = 10 if arguments.factor == "steps" else 1
    return usual if arguments.ipc is None else int(arguments.ipc)


def table(arguments: argparse.Namespace, record: Record) -> str:
    """Rows and columns of the factor."""
    found = {
        (cell.row, cell.column): record.cell(cell.label, _ipc(arguments), cell.trained.label)
        for cell in cells(arguments)
    }
    rows, columns = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    corner = f"{arguments.factor}, C \\ T" if arguments.factor in OF_THE_CONVNET else arguments.factor
    return markdown(corner, columns, {row: [found.get((row, column), "") for column in columns] for row in rows})


if __name__ == "__main__":
    sys.exit(main())
