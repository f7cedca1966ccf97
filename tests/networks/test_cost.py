"""Parameters and multiply-adds against closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.cost import count_multiply_adds, count_parameters

sizes = st.integers(1, 5)


@settings(deadline=None)
@given(sizes, sizes, st.integers(1, 2), st.booleans(), st.integers(6, 9), st.integers(6, 9))
def test_a_convolution_costs_its_closed_form(in_groups, out_groups, groups, bias, height, width):
    channels, filters = in_groups * groups, out_groups * groups
    model = nn.Conv2d(channels, filters, kernel_size=(3, 2), stride=2, padding=1, groups=groups, bias=bias)
    weights = filters * (channels // groups) * 3 * 2
    pixels = ((height + 2 - 3) // 2 + 1) * ((width + 2 - 2) // 2 + 1)
    assert count_parameters(model) == weights + (filters if bias else 0)
    assert count_multiply_adds(model, channels, (height, width)) == weights * pixels


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_linear_layers_cost_their_closed_form(widths):
    layers = [nn.Linear(before, after) for before, after in zip([2 * 3 * 4, *widths], widths, strict=False)]
    model = nn.Sequential(nn.Flatten(), *layers)
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert count_parameters(model) == weights + sum(widths)
    assert count_multiply_adds(model, 2, (3, 4)) == weights


def test_the_papers_default_network_costs_what_the_paper_notes_say():
    model = ConvNet(in_channels=3, num_classes=10, image_size=(32, 32))
    blocks = 3 * 128 * 9 * 32**2 + 128 * 128 * 9 * 16**2 + 128 * 128 * 9 * 8**2
    assert count_multiply_adds(model, 3, (32, 32)) == blocks + 128 * 16 * 10
    assert round(count_multiply_adds(model, 3, (32, 32)) / 1e6, 1) == 50.7
    assert count_parameters(model) == 320_010


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_layout_precision_and_device_change_nothing(dtype, memory_format, device):
    model = ConvNet(in_channels=3, num_classes=10, image_size=(16, 16), width=32, depth=2)
    expected = 3 * 32 * 9 * 16**2 + 32 * 32 * 9 * 8**2 + 32 * 16 * 10
    model = model.to(device=device, dtype=dtype, memory_format=memory_format)
    assert count_multiply_adds(model, 3, (16, 16)) == expected
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert count_multiply_adds(model, 3, (16, 16)) == expected


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=16, batch_first=True)

    def forward(self, images):
        return self.layer(images.flatten(2).transpose(1, 2))


def test_fused_attention_is_not_free():
    tokens, width, hidden = 12, 8, 16
    projections = tokens * width * (4 * width + 2 * hidden)
    scores_and_mixing = 2 * tokens * tokens * width
    assert torch.backends.mha.get_fastpath_enabled()
    assert count_multiply_adds(Attention(), 8, (3, 4)) == projections + scores_and_mixing
    assert torch.backends.mha.get_fastpath_enabled()


class Refuses(nn.Module):
    def forward(self, images):
        raise RuntimeError("no")


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    count_multiply_adds(model, 1, (5, 5))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_mode_comes_back_after_a_failure():
    model = nn.Sequential(nn.Flatten(), Refuses())
    with pytest.raises(RuntimeError, match="no"):
        count_multiply_adds(model, 1, (2, 2))
    assert all(module.training for module in model.modules())


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_count_after_one_forward_pass():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5))
    with pytest.raises(ValueError, match=r"0\.weight, 0\.bias, 2\.weight, 2\.bias have no shape"):
        count_parameters(model)
    model(torch.zeros(2, 3, 6, 6))
    assert count_parameters(model) == (3 * 9 + 1) * 4 + (4 * 16 + 1) * 5
    assert count_multiply_adds(model, 3, (6, 6)) == 3 * 9 * 4 * 16 + 4 * 16 * 5


def test_shared_and_frozen_parameters_count_once_and_buffers_not():
    shared = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(shared, nn.BatchNorm1d(4), shared)
    shared.weight.requires_grad_(requires_grad=False)
    assert count_parameters(model) == 16 + 8


def test_a_network_without_parameters_costs_nothing():
    assert count_parameters(nn.Flatten()) == 0
    assert count_multiply_adds(nn.Flatten(), 3, (4, 4)) == 0
