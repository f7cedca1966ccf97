"""The networks of NAS-Bench-201: Dong and Yang, ICLR 2020, section 2.1 and figure 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, channels_last, nn

from nasproxy.errors import InputError, nearest

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(from, to) of a cell's edges, in the order of the published cell strings; node 0 is the input, node 3 the output."""


class CellNetwork(nn.Module):
    """Stem, three stages of one cell repeated, a residual block that halves the image between them, and a head.

    Stem: a 3×3 convolution and BatchNorm. Stages have C, 2C and 4C channels. Head: BatchNorm, ReLU, the average over
    pixels, a linear layer. A cell whose output does not depend on its input makes a network that gives every image the
    same logits: it trains, and stays at chance.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        operations: one name out of ``OPERATIONS`` for each of ``EDGES``.
        channels: C, 16 in the paper.
        cells: of each stage, 5 in the paper.

    Raises:
        InputError: an operation is unknown.
    """

    def __init__(
        self, in_channels: int, num_classes: int, operations: Sequence[str], *, channels: int, cells: int
    ) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        layers: list[nn.Module] = [stem]
        for stage, width in enumerate((channels, 2 * channels, 4 * channels)):
            if stage > 0:
                layers.append(Reduction(width // 2, width))
            layers += [Cell(width, operations) for _ in range(cells)]
        head = [nn.BatchNorm2d(4 * channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers, *head).to(memory_format=channels_last)
        self.classifier = nn.Linear(4 * channels, num_classes)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        logits: Tensor = self.classifier(self.features(images.contiguous(memory_format=channels_last)))
        return logits


class Cell(nn.Module):
    """Four nodes; each is the sum, over all nodes before it, of that node sent through the edge's operation."""

    def __init__(self, width: int, operations: Sequence[str]) -> None:
        super().__init__()
        for name in operations:
            if name not in OPERATIONS:
                raise InputError(f"No operation is called {name!r}.", nearest(name, OPERATIONS))
        self.edges = nn.ModuleList(OPERATIONS[name](width) for name in operations)

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The value of the last node."""
        nodes = [features]
        for node in range(1, 4):
            into = [edge(nodes[start]) for (start, end), edge in zip(EDGES, self.edges, strict=True) if end == node]
            nodes.append(sum(into[1:], into[0]))
        return nodes[-1]


class Zero(nn.Module):
    """Cuts an edge. As published it multiplies by 0, so that what comes before has a gradient, of zeros."""

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Zeros."""
        return features * 0.0


class Reduction(nn.Module):
    """A residual block of two 3×3 convolutions, the first of stride 2; average pooling and 1×1 beside it."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(_conv(before, after, 3, stride=2), _conv(after, after, 3))
        # ceil_mode: an odd side is rounded up, as a convolution of stride 2 does; no difference on even ones.
        pooling = nn.AvgPool2d(2, stride=2, ceil_mode=True)
        self.shortcut = nn.Sequential(pooling, nn.Conv2d(before, after, 1, bias=False))

    def forward(self, features: Float[Tensor, "n before h w"]) -> Float[Tensor, "n after half_h half_w"]:
        """Half as many pixels each way."""
        total: Tensor = self.residual(features) + self.shortcut(features)
        return total


def _conv(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution, BatchNorm, in this order."""
    convolution = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(after))


OPERATIONS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda width: Zero(),  # noqa: ARG005, all are called alike
    "skip_connect": lambda width: nn.Identity(),  # noqa: ARG005
    "nor_conv_1x1": lambda width: _conv(width, width, 1),
    "nor_conv_3x3": lambda width: _conv(width, width, 3),
    "avg_pool_3x3": lambda width: nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),  # noqa: ARG005
}
