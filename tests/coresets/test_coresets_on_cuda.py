"""On a GPU the same images are chosen as on the CPU."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_dataset

from nasproxy.coresets.features import choose_by_features, features
from nasproxy.coresets.forgetting_events import ForgettingEvents
from nasproxy.coresets.herding import herd
from nasproxy.coresets.k_center import greedy_centres
from nasproxy.networks.convnet import ConvNet

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    """Not the 10 bits that convolutions have on a GPU by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def network(device):
    torch.manual_seed(0)
    return ConvNet(1, 2, (8, 8), width=8, depth=2).eval().to(device)


@pytest.mark.parametrize("choose", [herd, greedy_centres])
def test_the_same_features_choose_the_same_images(choose):
    rows = torch.randn(200, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert choose(rows.to(GPU), 20).tolist() == choose(rows, 20).tolist()


@pytest.mark.parametrize("choose", [herd, greedy_centres])
def test_the_same_network_chooses_the_same_images(choose):
    dataset = tiny_dataset((60, 40))
    found, expected = (features(network(device), dataset.train.images, dataset.normalisation) for device in (GPU, CPU))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    chosen = [choose_by_features(dataset, network(device), lambda rows: choose(rows, 8)) for device in (GPU, CPU)]
    assert torch.equal(*chosen)


def test_forgetting_is_counted_alike():
    source = torch.Generator().manual_seed(0)
    counted = [ForgettingEvents(50, device) for device in (GPU, CPU)]
    for _ in range(8):
        right = torch.rand(50, generator=source) < 0.5
        for positions in torch.randperm(50, generator=source).split(20):
            for events, device in zip(counted, (GPU, CPU), strict=True):
                events.see(positions, right[positions].to(device))
    found, expected = (events.counts() for events in counted)
    assert len(expected.unique()) > 2
    assert torch.equal(found, expected)
