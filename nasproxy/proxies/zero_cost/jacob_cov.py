"""Jacobian covariance: Mellor et al., Neural Architecture Search without Training, arXiv 2006.04647v1, section 3.

The first version of the paper, whose later ones define NASWOT; Abdelfattah et al. (ICLR 2021) call it ``jacob_cov``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.errors import ScoreError
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.zero_cost.weights import finite

_EPSILON = 1e-5  # the paper's k


@dataclass(frozen=True)
class JacobianCovariance(CandidateScore):
    """How uncorrelated the network's Jacobians are at different images, in training mode as in their code."""

    name: ClassVar[str] = "jacob-cov"

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """-Σ (log(λ_i + k) + 1 / (λ_i + k)) over the eigenvalues λ of the correlation matrix of the Jacobians.

        The Jacobian of an image is that of the sum of all logits of the batch, with respect to the image's pixels.
        """
        pixels = images.clone().requires_grad_()
        (jacobians,) = torch.autograd.grad(model.train()(pixels).sum(), pixels, allow_unused=True)
        if jacobians is None:
            raise ScoreError("The network's output does not depend on its input.")
        rows = jacobians.flatten(1).double()
        if bool((rows == rows[:, :1]).all(dim=1).any()):
            raise ScoreError("The Jacobian at some image is the same for all pixels, so it has no correlation.")
        eigenvalues = torch.linalg.eigvalsh(torch.corrcoef(rows)).clamp(min=0) + _EPSILON
        return finite(-float((eigenvalues.log() + 1 / eigenvalues).sum()), "The score")
