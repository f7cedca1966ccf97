"""The NAS-Bench-201 cells against the published counts, hand-counted sizes, and functions worked out in numbers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
import torch
from nasproxy.search_spaces import nasbench201
from nasproxy.search_spaces.nasbench201 import EDGES, NAMES, OPERATIONS, NasBench201, UniqueNasBench201, canonical_form

from nasproxy.errors import InputError
from nasproxy.networks import nasbench201 as networks
from nasproxy.networks.cost import count_multiply_adds, count_parameters

CELLS = list(itertools.product(OPERATIONS, repeat=6))
NONE, SKIP, ONE, THREE, POOL = OPERATIONS


def config(*operations):
    return dict(zip(NAMES, operations, strict=True))


def build(operations, *, space=None, in_channels=1, num_classes=10, image_size=(16, 16)):
    space = space or NasBench201()
    return space.build(config(*operations), in_channels=in_channels, num_classes=num_classes, image_size=image_size)


def reaches_output(operations) -> bool:
    reached = {0}
    for (start, end), operation in zip(EDGES, operations, strict=True):
        reached |= {end} if start in reached and operation != NONE else set()
    return 3 in reached


def test_holds_all_15625_in_order():
    space = NasBench201()
    assert len(space) == 15_625
    assert [tuple(member.values()) for member in space] == CELLS
    assert set(networks.OPERATIONS) == set(OPERATIONS)
    assert networks.EDGES == EDGES


def test_a_cell_is_spelled_as_published():
    spelled = nasbench201.cell_string(config(THREE, NONE, ONE, SKIP, POOL, THREE))
    assert spelled == ("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_3x3~2|")


def test_the_papers_simplification_of_strings_leaves_6466():
    """Its rule, written down anew: cut edges are '#', skips are their origin, sums are sorted texts."""

    def simplified(operations) -> str:
        texts = ["0"]
        for node in (1, 2, 3):
            into = [
                "#" if op == NONE or texts[start] == "#" else texts[start] if op == SKIP else f"({texts[start]})@{op}"
                for (start, end), op in zip(EDGES, operations, strict=True)
                if end == node
            ]
            texts.append("+".join(sorted(into)))
        return texts[3]

    assert len({simplified(cell) for cell in CELLS}) == 6466


@pytest.mark.slow
def test_forms_are_equal_where_functions_are():
    """Every cell as a function of numbers, each convolution by a fixed nonlinear function, in every order of them.

    Cells are the same where the sets of their values over all orders meet: brute force, without any simplification.
    """
    rng = np.random.default_rng(0)
    size = 3
    start = rng.normal(size=size)
    pooling = rng.normal(size=(size, size)) / 2
    functions = {op: [rng.normal(size=(2, size)) for _ in range(6)] for op in (ONE, THREE)}

    def evaluate(operations, chosen) -> tuple[float, ...]:
        nodes = [start, np.zeros(size), np.zeros(size), np.zeros(size)]
        for edge, ((origin, end), op) in enumerate(zip(EDGES, operations, strict=True)):
            value = nodes[origin]
            if op in functions:
                slope, shift = functions[op][chosen[edge]] if edge in chosen else (0 * start, 0 * start)
                nodes[end] = nodes[end] + np.tanh(slope * value + shift)
            elif op != NONE:
                nodes[end] = nodes[end] + (pooling @ value if op == POOL else value)
        return tuple(np.round(nodes[3], 9) + 0.0)

    def heard(operations) -> list[int]:
        """The edges whose end leads to the output."""
        leads = {3}
        for (origin, end), op in reversed(list(zip(EDGES, operations, strict=True))):
            leads |= {origin} if end in leads and op != NONE else set()
        return [edge for edge, (_, end) in enumerate(EDGES) if end in leads]

    by_function = defaultdict(set)
    for cell in CELLS:
        edges = {op: [edge for edge in heard(cell) if cell[edge] == op] for op in functions}
        orders = itertools.product(*(itertools.permutations(range(len(found))) for found in edges.values()))
        values = []
        for order in orders:
            chosen = {
                e: n
                for found, numbers in zip(edges.values(), order, strict=True)
                for e, n in zip(found, numbers, strict=True)
            }
            values.append(evaluate(cell, chosen))
        by_function[min(values)].add(canonical_form(cell))
    assert len(by_function) == len({canonical_form(cell) for cell in CELLS}) == 5653
    assert all(len(forms) == 1 for forms in by_function.values())


def test_networks_of_one_form_compute_the_same_with_the_same_weights():
    """Nodes 1 and 2 change places, and with them their convolutions; a convolution that nothing hears comes on top."""
    one = (THREE, ONE, NONE, NONE, POOL, THREE)
    other = (ONE, THREE, NONE, NONE, THREE, POOL)
    moved = {0: 1, 1: 0, 5: 4}
    assert canonical_form(one) == canonical_form(other)
    torch.manual_seed(0)
    first, second = (networks.Cell(4, cell).eval() for cell in (one, other))
    for before, after in moved.items():
        second.edges[after].load_state_dict(first.edges[before].state_dict())
    features = torch.randn(2, 4, 6, 5)
    torch.testing.assert_close(first(features), second(features))


def test_twice_one_convolution_is_not_the_sum_of_two():
    twice = (THREE, NONE, SKIP, NONE, SKIP, SKIP)
    two = (THREE, THREE, NONE, NONE, SKIP, SKIP)
    assert canonical_form(twice) != canonical_form(two)


def test_the_unique_space_has_one_cell_of_each_form_and_the_lightest():
    space = UniqueNasBench201()
    chosen = [cell for cell in CELLS if space.is_valid(config(*cell), (16, 16)) is True]
    forms = [canonical_form(cell) for cell in chosen]
    assert len(forms) == len(set(forms)) == 5653
    light = {canonical_form(cell): _weight(cell) for cell in sorted(CELLS, key=_weight, reverse=True)}
    assert all(light[form] == _weight(cell) for form, cell in zip(forms, chosen, strict=True))
    assert space.is_valid(config(THREE, NONE, NONE, SKIP, NONE, NONE), (16, 16)) == (
        "the same network as another candidate"
    )
    assert space.name == "nasbench201-unique"


def _weight(cell) -> int:
    return sum({ONE: 1, THREE: 9}.get(op, 0) for op in cell)


BASE = 27 * 16 + 32 + (144 + 288) * 32 + 512 + 128 + (288 + 576) * 64 + 2048 + 256 + 128 + 650
"""Stem; two residual blocks, the second convolution and the shortcut of each; the last BatchNorm; the linear layer."""


@pytest.mark.parametrize(
    ("operations", "parameters", "multiply_adds"),
    [
        ((SKIP,) * 6, 73_306, 7_783_040),
        ((THREE,) * 6, 73_306 + 6 * 5 * (9 * 5376 + 2 * 112), 7_783_040 + 6 * 15 * 9 * 256 * 1024),
        ((NONE, NONE, NONE, ONE, POOL, NONE), 73_306 + 5 * (5376 + 2 * 112), 7_783_040 + 15 * 256 * 1024),
    ],
)
def test_the_published_size_has_the_parameters_counted_by_hand(operations, parameters, multiply_adds):
    assert BASE == 73_306
    with torch.device("meta"):
        model = build(operations, space=nasbench201.published, in_channels=3, image_size=(32, 32))
    assert count_parameters(model) == parameters
    model = build(operations, space=nasbench201.published, in_channels=3, image_size=(32, 32))
    assert count_multiply_adds(model, 3, (32, 32)) == multiply_adds


def test_channels_and_cells_are_settable():
    space = NasBench201(channels=4, cells=2)
    model = build((THREE,) * 6, space=space, num_classes=3)
    stem, head = 9 * 4 + 8, 32 + (16 + 1) * 3
    reductions = (4 + 8) * 9 * 8 + 32 + 32 + (8 + 16) * 9 * 16 + 64 + 128
    cells = 6 * 2 * (9 * (16 + 64 + 256) + 2 * (4 + 8 + 16))
    assert count_parameters(model) == stem + reductions + cells + head
    assert (space.name, NasBench201().name) == ("nasbench201-c4-n2", "nasbench201")
    for wrong in ({"channels": 0}, {"cells": -1}):
        with pytest.raises(InputError, match="1 or more"):
            NasBench201(**wrong)


def test_a_cell_is_the_sum_that_the_paper_draws():
    torch.manual_seed(1)
    cell = networks.Cell(4, (THREE, POOL, ONE, SKIP, NONE, THREE)).eval()
    x = torch.randn(2, 4, 5, 7)
    node1 = cell.edges[0](x)
    pooled = torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    node2 = pooled + cell.edges[2](node1)
    torch.testing.assert_close(cell(x), x + cell.edges[5](node2))


@pytest.mark.parametrize("image_size", [(5, 7), (8, 8), (1, 1)])
def test_any_image_size_will_do(image_size):
    space = NasBench201(channels=4)
    model = build((THREE, SKIP, POOL, ONE, NONE, THREE), space=space, in_channels=3, image_size=image_size)
    assert model.eval()(torch.randn(2, 3, *image_size)).shape == (2, 10)


def test_341_cells_are_cut_off_and_give_every_image_the_same_logits():
    cut = [cell for cell in CELLS if not reaches_output(cell)]
    assert len(cut) == 341
    torch.manual_seed(0)
    for cell in [(NONE,) * 6, (THREE, NONE, NONE, NONE, NONE, THREE), *cut[::60]]:
        model = build(cell, space=NasBench201(channels=4), image_size=(8, 8))
        logits = model.eval()(torch.randn(3, 1, 8, 8))
        torch.testing.assert_close(logits, logits[:1].expand(3, -1))
        torch.nn.functional.cross_entropy(model.train()(torch.randn(4, 1, 8, 8)), torch.arange(4)).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    connected = build((SKIP,) * 6, space=NasBench201(channels=4), image_size=(8, 8))
    assert not torch.allclose(*connected.eval()(torch.randn(2, 1, 8, 8)))


def test_an_unknown_operation_is_named():
    with pytest.raises(InputError, match=r"'conv_3x3'.*Did you mean nor_conv_3x3"):
        build(("conv_3x3",) * 6)


def test_can_be_listed_without_torch():
    code = (
        "import sys, nasproxy.search_spaces.nasbench201 as m; "
        "sys.exit('torch' in sys.modules or len(m.NasBench201()) != 15625)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
