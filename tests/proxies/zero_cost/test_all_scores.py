"""What all scores without training have in common, found by their names."""

import math
from importlib.metadata import entry_points

import pytest
import torch
from torch import nn

from nasproxy.errors import InputError
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.cost import count_multiply_adds, count_parameters
from nasproxy.proxies.candidate_score import CandidateScore
from nasproxy.proxies.registry import find_method, find_proxy
from nasproxy.proxies.zero_cost.multiply_adds import MultiplyAdds
from nasproxy.proxies.zero_cost.parameters import ParameterCount

NAMES = ["grad-norm", "jacob-cov", "multiply-adds", "naswot", "parameters", "snip", "synflow"]


def network(width=8, norm="batch"):
    torch.manual_seed(0)
    return ConvNet(1, 3, (8, 8), width=width, depth=2, norm=norm)


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 1, 8, 8, generator=generator), torch.randint(0, 3, (12,), generator=generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["none", "batch", "layer", "instance", "group"])
def test_a_convnet_has_a_finite_score_that_the_seed_decides(name, norm):
    score = find_proxy(name)()
    found = score.score(network(norm=norm), *images())
    assert type(found) is float
    assert math.isfinite(found)
    assert found == score.score(network(norm=norm), *images())


@pytest.mark.parametrize("name", NAMES)
def test_names_lead_to_classes_that_know_their_name(name):
    (entry,) = {point.value: point for point in entry_points(group="nasproxy.proxies", name=name)}.values()
    found = entry.load()
    assert issubclass(found, CandidateScore)
    assert found.name == name


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("jacob-cov", "naswot", "grad-norm", "snip")])
def test_a_wider_network_scores_higher(name):
    score = find_proxy(name)()
    assert score.score(network(16), *images()) > score.score(network(8), *images())


def test_sizes_are_the_counters():
    model = network()
    assert ParameterCount().score(model, *images()) == count_parameters(model)
    assert MultiplyAdds().score(model, *images()) == count_multiply_adds(model, 1, (8, 8))


def test_a_rectangular_image_keeps_its_sides():
    model = nn.Sequential(nn.Conv2d(1, 1, (1, 3)), nn.Flatten(), nn.LazyLinear(2))
    pixels = torch.zeros(2, 1, 4, 6)
    model(pixels)
    assert MultiplyAdds().score(model, pixels, torch.zeros(2, dtype=torch.int64)) == 4 * 4 * 3 + 16 * 2


def test_a_score_makes_no_images():
    with pytest.raises(InputError, match=r"makes no images.*compare"):
        find_method("synflow")
