"""The 15,625 cells of NAS-Bench-201: Dong and Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326.

``nasbench201`` holds all of them, ``nasbench201-unique`` one of each group that computes the same. Both build networks
that two cores can train: 16 channels as published, but one cell a stage where the paper has five. ``published`` is the
paper's size, and a file of one's own makes any other::

    from nasproxy.search_spaces.nasbench201 import NasBench201

    space = NasBench201(channels=8, cells=2)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from nasproxy.errors import InputError
from nasproxy.spaces.space import Config, Scalar, SearchSpace

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(from, to), in the order of the published cell strings."""
NAMES = tuple(f"edge_{start}_{end}" for start, end in EDGES)


class NasBench201(SearchSpace):
    """One of five operations on each of a cell's six edges: 5⁶ = 15,625 cells.

    The 341 cells in which no path leads from the input to the output are networks like any other: they give every
    image the same logits, train, and stay at chance, as in the published tables.

    Args:
        channels: of the first stage; the others have twice and four times as many.
        cells: of each of the three stages.
    """

    choices: Mapping[str, Sequence[Scalar]] = dict.fromkeys(NAMES, OPERATIONS)

    def __init__(self, *, channels: int = 16, cells: int = 1) -> None:
        if channels < 1 or cells < 1:
            raise InputError(f"channels and cells must be 1 or more, got {channels} and {cells}.")
        self.channels, self.cells = channels, cells
        self.name = "nasbench201" if (channels, cells) == (16, 1) else f"nasbench201-c{channels}-n{cells}"

    def build(self, config: Config, *, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
        """A :class:`~nasproxy.networks.nasbench201.CellNetwork`; images of any size will do."""
        from nasproxy.networks.nasbench201 import CellNetwork  # to list and check the choices takes no torch

        operations = [str(config[name]) for name in NAMES]
        return CellNetwork(in_channels, num_classes, operations, channels=self.channels, cells=self.cells)

    def canonical_form(self, config: Config) -> str:
        """What the configurations of the same network share; see :func:`canonical_form`."""
        return canonical_form(tuple(str(config[name]) for name in NAMES))


class UniqueNasBench201(NasBench201):
    """One cell of each canonical form, 5,653 of them: the one with the fewest parameters, then the first in order."""

    def __init__(self, *, channels: int = 16, cells: int = 1) -> None:
        super().__init__(channels=channels, cells=cells)
        self.name = self.name.replace("nasbench201", "nasbench201-unique")

    def is_valid(self, config: Config, image_size: tuple[int, int]) -> bool | str:
        """Refuses a cell that computes the same as the representative of its form."""
        operations = tuple(str(config[name]) for name in NAMES)
        return operations in _representatives() or "the same network as another candidate"


published = NasBench201(cells=5)
"""The networks of the paper's tables."""


def cell_string(config: Config) -> str:
    """The cell as the published tables spell it.

    Example:
        >>> cell_string(dict.fromkeys(NAMES, "skip_connect"))
        '|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|'
    """
    nodes: dict[int, str] = {}
    for (start, end), name in zip(EDGES, NAMES, strict=True):
        nodes[end] = f"{nodes.get(end, '|')}{config[name]}~{start}|"
    return "+".join(nodes.values())


Term = tuple[int, int]
"""A summand of a node: whose output (an edge with a convolution, or ``_INPUT``), and how often it was pooled."""
_INPUT = -1


def canonical_form(operations: tuple[str, ...]) -> str:
    """What a cell computes, in a spelling that equal cells share; one operation for each of ``EDGES``.

    Two cells of one form compute the same function where corresponding convolutions have equal weights. Cut edges and
    convolutions that do not reach the output are left out, skip connections are followed, sums are unordered, pooling
    is moved inside sums (it is linear), and convolutions of one kind and origin may change places. How often the same
    convolution is counted matters: twice one convolution is not the sum of two. A convolution of nothing is kept, as
    BatchNorm makes a trained constant of it.

    There are 5,653 forms. The paper counts 6,466 by strings of which it simplifies less (cut edges are kept where more
    than one meet, pooling is not moved) and, in one place, more: it takes the sum of two equal convolutions for twice
    one.
    """
    nodes, convolutions = _nodes(operations)
    live: dict[int, str] = {}
    _collect(nodes[3], nodes, convolutions, live)
    groups: dict[str, list[int]] = {}
    for edge, expanded in sorted(live.items()):
        groups.setdefault(expanded, []).append(edge)
    orders = itertools.product(*(itertools.permutations(groups[key]) for key in sorted(groups)))
    return min(_spelled(list(itertools.chain(*order)), nodes, convolutions) for order in orders)


def _nodes(operations: tuple[str, ...]) -> tuple[list[list[Term]], dict[int, tuple[str, int]]]:
    """The sum that each node is, and the operation and origin of each edge that holds a convolution."""
    nodes: list[list[Term]] = [[(_INPUT, 0)], [], [], []]
    convolutions: dict[int, tuple[str, int]] = {}
    for edge, ((start, end), operation) in enumerate(zip(EDGES, operations, strict=True)):
        if operation == "skip_connect":
            nodes[end] = nodes[end] + nodes[start]
        elif operation == "avg_pool_3x3":
            nodes[end] = nodes[end] + [(source, pooled + 1) for source, pooled in nodes[start]]
        elif operation != "none":
            convolutions[edge] = (operation, start)
            nodes[end] = [*nodes[end], (edge, 0)]
    return nodes, convolutions


def _collect(
    terms: list[Term], nodes: list[list[Term]], convolutions: dict[int, tuple[str, int]], live: dict[int, str]
) -> str:
    """A sum written out, blind to which of two equal convolutions is meant; each that occurs in it goes into ``live``.

    Edges lead forward only, so that this ends.
    """
    texts = []
    for source, pooled in terms:
        if source != _INPUT and source not in live:
            operation, start = convolutions[source]
            live[source] = f"{operation}({_collect(nodes[start], nodes, convolutions, live)})"
        texts.append(f"{live.get(source, 'x')}{pooled}")
    return "+".join(sorted(texts))


def _spelled(order: list[int], nodes: list[list[Term]], convolutions: dict[int, tuple[str, int]]) -> str:
    """The cell with its convolutions numbered in ``order``."""
    numbers = {_INPUT: "x", **{edge: str(number) for number, edge in enumerate(order)}}
    sums = ["+".join(sorted(numbers.get(edge, "") + "p" * pooled for edge, pooled in node)) for node in nodes]
    parts = [f"{convolutions[edge][0]}({sums[convolutions[edge][1]]})" for edge in order]
    return "; ".join([*parts, sums[3]])


@cache
def _representatives() -> frozenset[tuple[str, ...]]:
    weight = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}
    best: dict[str, tuple[str, ...]] = {}
    # sorted is stable: of those with equally many parameters the first in order comes first.
    for operations in sorted(
        itertools.product(OPERATIONS, repeat=len(EDGES)), key=lambda cell: sum(weight.get(name, 0) for name in cell)
    ):
        best.setdefault(canonical_form(operations), operations)
    return frozenset(best.values())
