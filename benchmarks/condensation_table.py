"""Table 1 of the paper, with its successors: what a network learns from each kind of small set.

    python benchmarks/condensation_table.py --dataset digits --ipc 1 10 50
    python benchmarks/condensation_table.py --dataset cifar10 --data-dir DIR --ipc 1 10 50 --preset paper --networks 20

For each number of images per class, several sets are made by each method: random real images, the coresets (herding,
k-center, forgetting), and the condensed sets (dc, dsa, dm). On each of them several freshly initialised default
ConvNets are trained by the paper's recipe; the table has mean and standard deviation of their test accuracies over all
networks of all sets. ``whole`` is the same ConvNet trained on the whole training part, the bound. The paper's table is
of 5 sets × 20 networks. On sets of dsa and dm, networks are trained for --augmented-epochs with the augmentation that
the set was condensed with (no flip for digits), as in the papers of both.

Every accuracy is written as it arrives. An interrupted run goes on where it was, and so does one whose --time-budget
was spent, in the middle of a condensation too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from accuracies import Made, Plan, Trained, check_ipc, options, run
from result_file import Record, markdown

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.errors import InputError, nearest
from nasproxy.networks.names import CONVNET
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.registry import find_method

WHOLE = "whole"
METHODS = ("random", "herding", "k-center", "forgetting", "dc", "dsa", "dm", WHOLE)
AUGMENTED = ("dsa", "dm")


def main() -> int:
    """Measures what is missing, and prints the table; returns the exit code."""
    parser = options(__doc__, sets=5, networks=5)
    add = parser.add_argument
    add("--ipc", type=int, nargs="+", default=[1, 10], metavar="N", help="images per class (default: 1 10)")
    add("--methods", nargs="+", default=METHODS, metavar="M", help=f"default: {' '.join(METHODS)}")
    add("--dm-iterations", type=int, metavar="K", help="of distribution matching (default: the preset's)")
    add("--whole-epochs", type=int, default=30, metavar="N", help="on the whole training part (default: %(default)s)")
    add(
        "--augmented-epochs",
        type=int,
        default=1000,
        metavar="N",
        help="on sets of dsa and dm, which are augmented (default: %(default)s, as published)",
    )
    conditions = ("dm_iterations", "whole_epochs", "augmented_epochs")
    return run(parser, plan, table, lambda _: "condensation_table", conditions)


def plan(arguments: argparse.Namespace) -> Plan:
    """One ConvNet on every kind of set; the whole training part first, which is quickly done."""
    for name in arguments.methods:
        if name not in METHODS:
            raise InputError(f"No method of the table is called {name!r}.", nearest(name, METHODS))
    check_ipc(arguments)
    made = [Made(WHOLE, 0, None, arguments.whole_epochs)] if WHOLE in arguments.methods else []
    for ipc in arguments.ipc:
        for name in arguments.methods:
            if name != WHOLE:
                epochs = arguments.augmented_epochs if name in AUGMENTED else arguments.epochs
                made.append(Made(name, ipc, _method(name, ipc, arguments), epochs))
    return [(kind, [Trained()]) for kind in made]


def _method(name: str, ipc: int, arguments: argparse.Namespace) -> ProxyMethod:
    method = find_method(name).preset(arguments.preset, ipc)
    iterations = arguments.dm_iterations if name == "dm" else arguments.iterations
    if iterations is not None and (name == "dm" or isinstance(method, MatchingRecipe)):
        return replace(method, iterations=iterations)  # type: ignore[call-arg]
    return method


def table(arguments: argparse.Namespace, record: Record) -> str:
    """A row for each number of images per class, a column for each method, as in the paper."""
    facts = record.document["dataset"]
    columns = list(arguments.methods)
    return markdown(
        "images/class", ["ratio %", *columns], {str(n): _row(n, columns, facts, record) for n in arguments.ipc}
    )


def _row(ipc: int, columns: Sequence[str], facts: dict[str, int], record: Record) -> list[str]:
    ratio = f"{100 * ipc * facts['classes'] / facts['train']:.2g}"
    return [ratio, *(record.cell(name, 0 if name == WHOLE else ipc, CONVNET) for name in columns)]


if __name__ == "__main__":
    sys.exit(main())
