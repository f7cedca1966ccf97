"""Tests that every score without training passes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import torch
from torch import Tensor, nn

from nasproxy.networks.convnet import ConvNet
from nasproxy.proxies.candidate_score import CandidateScore


class CandidateScoreTests:
    """What ``nasproxy compare --proxies`` relies on. Subclass it, and make the score.

    Example:
        >>> class TestMyScore(CandidateScoreTests):
        ...     def score(self):
        ...         return MyScore(batch=12)
    """

    def score(self) -> CandidateScore:
        """The score, of a batch of no more than 12."""
        raise NotImplementedError("Define score() in the class of tests.")

    def network(self) -> nn.Module:
        """A freshly initialised network for one-channel images of 8×8 pixels and 3 classes, in training mode."""
        return ConvNet(1, 3, (8, 8), width=8, depth=2, norm="batch")

    def test_is_a_finite_number_that_the_weights_decide(self) -> None:
        """The same network scores the same on every worker."""
        first, second = self._scored(seed=0), self._scored(seed=0)
        assert type(first) is float, f"the score is of type {type(first).__name__}"
        assert math.isfinite(first)
        assert first == second, "a network has two scores"

    def test_images_matter_only_where_it_says_so(self) -> None:
        """A score that does not look at images is not shown real ones."""
        if not self.score().looks_at_images:
            assert self._scored(seed=0) == self._scored(seed=1)

    def test_settings_are_json(self) -> None:
        """They are written beside the scores."""
        settings = asdict(self.score())
        assert json.loads(json.dumps(settings)) == settings
        assert self.score().name

    def _scored(self, seed: int) -> float:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = self.network()
            images, labels = _batch(seed, self.score().batch)
            return self.score().score(network, images, labels)


def _batch(seed: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3
