"""NASWOT: Mellor et al., Neural Architecture Search without Training, ICML 2021, section 3, equations 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.errors import ScoreError
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.zero_cost.weights import finite

_PIECEWISE = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6)
"""Linear on either side of zero, so that the signs of their inputs name the linear region that an image lies in."""


@dataclass(frozen=True)
class Naswot(CandidateScore):
    """How differently a batch of images switches the network's rectified units, in training mode as in their code.

    Args:
        batch: 128 in the paper.
    """

    name: ClassVar[str] = "naswot"

    batch: int = 128

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """The logarithm of |K|, where K_ij counts the units that images i and j switch alike.

        That is the number of all units minus the Hamming distance of the two images' codes.
        """
        kernel = _kernel(model, images)
        if int(torch.linalg.matrix_rank(kernel, hermitian=True)) < len(kernel):
            raise ScoreError(
                f"{len(kernel)} images do not differ enough in the units they switch: the determinant of their kernel"
                " is 0."
            )
        return finite(float(torch.linalg.slogdet(kernel).logabsdet), "The logarithm of the kernel's determinant")


def _kernel(model: nn.Module, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n n"]:
    units = [module for module in model.modules() if isinstance(module, _PIECEWISE)]
    if not units:
        raise ScoreError(
            "The network has no ReLU, leaky ReLU, PReLU, RReLU or ReLU6 module, whose switching is what this score"
            " counts."
        )
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        # Integers below 2^24 are exact in float32; a layer of more units than that would not fit in memory.
        signs = (inputs[0].detach() > 0).flatten(1).float() * 2 - 1
        kernel.add_(((signs @ signs.T).double() + signs.shape[1]) / 2)

    hooks = [unit.register_forward_pre_hook(count) for unit in units]
    try:
        with torch.no_grad():
            model.train()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return kernel
