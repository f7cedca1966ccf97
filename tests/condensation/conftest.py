"""What tests of condensation share."""

from __future__ import annotations

import copy

import pytest
from torch import Tensor

from nasproxy.networks import build
from nasproxy.networks.convnet import ConvNet


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The initial weights of every ConvNet that a condensation makes."""
    kept = []

    class Recorded(ConvNet):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            kept.append(copy.deepcopy(self.state_dict()))

    monkeypatch.setitem(build._CLASSES, "convnet", Recorded)
    return kept
