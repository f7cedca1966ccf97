"""Grad-norm: Abdelfattah, Mehrotra, Dudziak & Lane, Zero-Cost Proxies for Lightweight NAS, ICLR 2021, section 3.2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.zero_cost.weights import finite, loss_gradients, over_weights


@dataclass(frozen=True)
class GradNorm(CandidateScore):
    """The sum over weight tensors of the Euclidean norm of the loss's gradient, after one batch, in training mode."""

    name: ClassVar[str] = "grad-norm"

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """Sum of ||dL/dw|| over the weights w of each layer; L is the mean cross-entropy of the batch."""
        pairs = loss_gradients(model, images, labels)
        return finite(
            over_weights(pairs, lambda _, gradient: torch.linalg.vector_norm(gradient)), "The gradient's norm"
        )
