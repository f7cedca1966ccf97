"""SynFlow: Tanaka, Kunin, Yamins & Ganguli, Pruning neural networks without any data, NeurIPS 2020, section 6.

Summed over the network as in Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, equation 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.modules import activation as activations

from nasproxy.errors import ScoreError
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.zero_cost.weights import NORMALISATIONS, finite, gradients, weight_tensors

_ACTIVATIONS = tuple(
    getattr(activations, name)
    for name in activations.__all__
    if name not in ("MultiheadAttention", "GLU", "Softmin", "Softmax", "Softmax2d", "LogSoftmax")
)


@dataclass(frozen=True)
class SynFlow(CandidateScore):
    """How much signal the absolute weights let through, weighted by how many weights it passes.

    R = 1ᵀ (∏ |θ_l|) 1 is the sum of the logits of a single image of ones, in evaluation mode and double precision,
    where weights are absolute values, biases zero, and activations and normalisations that are modules are left out.
    (With absolute weights a ReLU lets everything through; the code of Abdelfattah et al. leaves out batch normalisation
    likewise, but keeps biases.) Where layers follow each other without branches, the score is R times their number.
    """

    name: ClassVar[str] = "synflow"
    looks_at_images: ClassVar[bool] = False

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """Sum of w · dR/dw over all weights w."""
        model = _linear(model.eval().double())
        weights = weight_tensors(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_() if parameter.ndim >= 2 else parameter.zero_()
        flow = model(torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)).sum()
        passed = zip(weights, gradients(flow, weights), strict=True)
        value = finite(sum(float((w.detach() * g).sum()) for w, g in passed), "The synaptic flow")
        if value <= 0:
            raise ScoreError("No signal passes the network: its synaptic flow is 0.")
        return value


def _linear(model: nn.Module) -> nn.Module:
    """The network without activations and normalisations; each is replaced wherever its parent holds it."""
    for parent in list(model.modules()):
        # named_children would name a module once that its parent holds twice.
        for name, child in list(parent._modules.items()):
            if isinstance(child, (*_ACTIVATIONS, *NORMALISATIONS)):
                setattr(parent, name, nn.Identity())
    return model
