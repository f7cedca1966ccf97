"""The 720 ConvNets against the paper's list and hand-counted parameters."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch
from nasproxy.search_spaces.convnet720 import ConvNet720

SPACE = ConvNet720()


def build(config, in_channels=1, image_size=(16, 16), num_classes=10):
    return SPACE.build(config, in_channels=in_channels, num_classes=num_classes, image_size=image_size)


def config(width, depth, norm, activation, pooling):
    return {"width": width, "depth": depth, "norm": norm, "activation": activation, "pooling": pooling}


def test_holds_the_papers_720_in_order():
    assert {name: list(values) for name, values in SPACE.choices.items()} == {
        "width": [32, 64, 128, 256],
        "depth": [1, 2, 3, 4],
        "norm": ["none", "batch", "layer", "instance", "group"],
        "activation": ["sigmoid", "relu", "leaky_relu"],
        "pooling": ["none", "max", "average"],
    }
    assert list(SPACE.choices) == ["width", "depth", "norm", "activation", "pooling"]
    assert len(SPACE) == len({tuple(member.items()) for member in SPACE}) == 720


@pytest.mark.parametrize("image_size", [(16, 16), (32, 32)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_all_are_valid_and_build(image_size, in_channels):
    with torch.device("meta"):
        for member in SPACE:
            assert SPACE.is_valid(member, image_size) is True
            classifier = list(build(member, in_channels, image_size).parameters())[-2]
            side = image_size[0] // (1 if member["pooling"] == "none" else 2 ** member["depth"])
            assert classifier.shape == (10, member["width"] * side * side)


@pytest.mark.parametrize("member", SPACE.sample(15, seed=0), ids=str)
def test_learns_from_a_batch(member):
    torch.manual_seed(0)
    model = build(member, in_channels=3, num_classes=7)
    logits = model(torch.randn(4, 3, 16, 16))
    assert logits.shape == (4, 7)
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.grad.any() for parameter in list(model.parameters())[-2:])


@pytest.mark.parametrize(
    ("member", "in_channels", "side", "expected"),
    [
        (config(32, 1, "none", "sigmoid", "none"), 1, 16, (9 + 1) * 32 + (32 * 256 + 1) * 10),
        (config(128, 3, "instance", "relu", "average"), 3, 32, 320_010),  # the paper's default network
        (
            config(64, 2, "layer", "leaky_relu", "max"),
            1,
            16,
            (9 + 1) * 64 + 2 * 64 * 256 + (64 * 9 + 1) * 64 + 2 * 64 * 64 + (64 * 16 + 1) * 10,
        ),
        (
            config(256, 4, "batch", "relu", "none"),
            3,
            32,
            (27 + 1) * 256 + 3 * (256 * 9 + 1) * 256 + 4 * 2 * 256 + (256 * 1024 + 1) * 10,
        ),
        (  # 28×28 goes on as 32×32, so that four poolings leave 2×2
            config(32, 4, "group", "sigmoid", "average"),
            1,
            28,
            (9 + 1) * 32 + 3 * (32 * 9 + 1) * 32 + 4 * 2 * 32 + (32 * 4 + 1) * 10,
        ),
    ],
)
def test_has_the_parameters_counted_by_hand(member, in_channels, side, expected):
    with torch.device("meta"):
        model = build(member, in_channels, (side, side))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize(
    ("image_size", "deepest"), [((4, 4), 2), ((8, 8), 3), ((64, 4), 2), ((7, 31), 2), ((1, 1), 0), ((28, 28), 4)]
)
def test_refuses_more_poolings_than_the_image_can_be_halved(image_size, deepest):
    refused = Counter()
    for member in SPACE:
        answer = SPACE.is_valid(member, image_size)
        if member["pooling"] == "none" or member["depth"] <= deepest:
            assert answer is True
        else:
            refused[answer] += 1
    height, width = image_size
    per_depth = 4 * 5 * 3 * 2
    assert refused == {
        f"{depth} poolings are too many for {height}×{width} pixels, which can be halved {deepest} times": per_depth
        for depth in range(deepest + 1, 5)
    }


@pytest.mark.parametrize("image_size", [(4, 4), (8, 8), (6, 9)])
def test_validity_agrees_with_what_can_be_built(image_size):
    with torch.device("meta"):
        for member in SPACE.sample(90, seed=1):
            if SPACE.is_valid(member, image_size) is True:
                assert build(member, 1, image_size)(torch.empty(2, 1, *image_size)).shape == (2, 10)
            else:
                with pytest.raises(ValueError, match="too small"):
                    build(member, 1, image_size)


def test_can_be_listed_without_torch():
    code = (
        "import sys, nasproxy.search_spaces.convnet720 as m; "
        "sys.exit('torch' in sys.modules or len(m.ConvNet720()) != 720)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
