"""Figure 3 of the paper: sets condensed with each of six networks, all six trained on each of them.

    python benchmarks/cross_architecture.py
    python benchmarks/cross_architecture.py --dataset mnist --data-dir DIR --preset paper --sets 5 --networks 20

A row of the matrix is the network that images were condensed with by gradient matching (C), a column the network
trained on them (T); a cell is the mean and standard deviation of the test accuracies of all networks of all sets.
VGG-11 and ResNet-18 condense with batch normalisation by moving averages, which real images move a tenth of the way in
each matching step, and are trained with instance normalisation; ResNet-18 condenses with average pooling in the place
of strides; the MLP has an image learning rate of its own. VGG-11 needs 32×32 pixels, to which images are resized (the
paper's are MNIST's 28×28, which most of the networks pad).

Every accuracy is written as it arrives. An interrupted run goes on where it was, and so does one whose --time-budget
was spent; a set that was half made goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from accuracies import Made, Plan, Trained, options, run
from result_file import Record, markdown

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.networks.names import NETWORKS


def main() -> int:
    """Measures what is missing, and prints the matrix; returns the exit code."""
    parser = options(__doc__, sets=1, networks=2)
    parser.set_defaults(image_size="32")
    for option, what in (("--condense-with", "rows"), ("--train", "columns")):
        parser.add_argument(option, nargs="+", choices=NETWORKS, default=list(NETWORKS), help=f"the {what}; all six")
    parser.add_argument("--ipc", type=int, default=1, metavar="N", help="images per class (default: %(default)s)")
    return run(parser, plan, table, lambda arguments: f"cross_architecture_ipc{arguments.ipc}")


def plan(arguments: argparse.Namespace) -> Plan:
    """Every network of --train on the sets of every network of --condense-with."""
    trained = [Trained(name, name) for name in arguments.train]
    return [(_made(name, arguments), trained) for name in arguments.condense_with]


def _made(network: str, arguments: argparse.Namespace) -> Made:
    recipe = MatchingRecipe.preset(arguments.preset, arguments.ipc)
    recipe = replace(recipe, network=network, iterations=arguments.iterations or recipe.iterations)
    return Made(network, arguments.ipc, recipe.suited_to_network(), arguments.epochs)


def table(arguments: argparse.Namespace, record: Record) -> str:
    """The matrix."""
    rows = {
        NETWORKS[made]: [record.cell(made, arguments.ipc, trained) for trained in arguments.train]
        for made in arguments.condense_with
    }
    return markdown("C \\ T", [NETWORKS[name] for name in arguments.train], rows)


if __name__ == "__main__":
    sys.exit(main())
