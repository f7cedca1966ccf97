"""The number of parameters: the simplest score, and one that every other has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.networks.cost import count_parameters
from nasproxy.proxies.candidate_score import CandidateScore


@dataclass(frozen=True)
class ParameterCount(CandidateScore):
    """How many numbers are trained; many are expected to be better."""

    name: ClassVar[str] = "parameters"
    looks_at_images: ClassVar[bool] = False

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """See :func:`nasproxy.networks.cost.count_parameters`."""
        return float(count_parameters(model))
