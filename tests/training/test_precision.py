"""The choice of a floating-point format."""

from __future__ import annotations

import pytest
import torch

from nasproxy.errors import InputError
from nasproxy.training.precision import autocast, resolve_precision
from nasproxy.training.winograd_convolution import convolve

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16-direct", "float32", "float32-direct"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_a_format_that_is_named_is_taken(name, device):
    assert resolve_precision(name, torch.device(device)) == name


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16"), (True, True, "bfloat16")],
)
def test_auto_follows_the_processor(monkeypatch, avx512, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert resolve_precision("auto", CPU) == expected


def test_auto_is_float32_where_torch_cannot_say(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert resolve_precision("auto", CPU) == "float32"
    assert resolve_precision("auto", torch.device("mps")) == "float32"


def test_an_unknown_format_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match=r"No precision is called 'bfloat'.*Did you mean bfloat16"):
        resolve_precision("bfloat", CPU)


def test_autocast_computes_in_the_format_that_was_chosen():
    layer, images = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        for name in (precision, f"{precision}-direct"):
            with autocast(name, CPU):
                assert layer(images).dtype == dtype


@torch.no_grad()
def test_a_processor_that_multiplies_tiles_has_no_use_for_fewer_multiplications(monkeypatch):
    torch.manual_seed(0)
    layer, images = torch.nn.Conv2d(128, 128, 3, padding=1), torch.randn(2, 128, 8, 8)
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx, raising=False)
        with autocast("float32", CPU):
            assert torch.equal(layer(images), convolve(images, layer.weight, layer.bias))
        with autocast("bfloat16", CPU):
            ours = layer(images)
        with autocast("bfloat16-direct", CPU):
            assert torch.equal(ours, layer(images)) == amx
