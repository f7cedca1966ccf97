"""SNIP: Lee, Ajanthan & Torr, Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019, section 4.1.

Summed over the network as in Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, equation 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.zero_cost.weights import finite, loss_gradients, over_weights


@dataclass(frozen=True)
class Snip(CandidateScore):
    """How much the loss of one batch, in training mode, depends on the presence of each weight, summed."""

    name: ClassVar[str] = "snip"

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """Sum of |w · dL/dw| over all weights w; L is the mean cross-entropy of the batch."""
        pairs = loss_gradients(model, images, labels)
        return finite(over_weights(pairs, lambda weight, gradient: (weight * gradient).abs().sum()), "The sensitivity")
