"""The multiply-adds of one image, by torch's own counter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from nasproxy.networks.cost import count_multiply_adds
from nasproxy.proxies.candidate_score import CandidateScore


@dataclass(frozen=True)
class MultiplyAdds(CandidateScore):
    """How much arithmetic a forward pass takes; much is expected to be better."""

    name: ClassVar[str] = "multiply-adds"
    looks_at_images: ClassVar[bool] = False

    def score(self, model: nn.Module, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> float:
        """See :func:`nasproxy.networks.cost.count_multiply_adds`."""
        return float(count_multiply_adds(model, int(images.shape[1]), (int(images.shape[2]), int(images.shape[3]))))
