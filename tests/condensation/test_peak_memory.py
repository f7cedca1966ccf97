"""``chunk`` bounds what a condensation takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

_MIB = 2**20
# 64 images of 64×64 pixels and 32 filters: 32 MiB for each map of the first block, of which a pass keeps several.
_CONDENSES = """
import sys

import torch

from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.datasets.assemble import assemble
from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.source import Source
from nasproxy.training.process import peak_memory_bytes

method, norm, chunk = sys.argv[1], sys.argv[2], int(sys.argv[3])
images = torch.randint(256, (128, 3, 64, 64), dtype=torch.uint8)
labels = torch.arange(2).repeat_interleave(64)
parts = {name: Split(images[::step], labels[::step]) for name, step in (("train", 1), ("validation", 64), ("test", 64))}
dataset = assemble("random", Source(parts, ("one", "other")))
cpu = torch.device("cpu")
kind = {"dc": MatchingRecipe, "dm": DistributionRecipe}[method]
once = {"matching_steps": 1} if method == "dc" else {}
recipe = kind(ipc=1, iterations=1, width=32, norm=norm, chunk=chunk, **once)
before = peak_memory_bytes(cpu)
recipe.make(dataset, seed=0, device=cpu, precision="float32")
print(peak_memory_bytes(cpu) - before)
"""


def taken(*arguments: str) -> int:
    """Bytes that one outer iteration adds to the peak of a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _CONDENSES, *arguments], check=True, capture_output=True, text=True, timeout=300
    )
    return int(done.stdout)


@pytest.mark.parametrize(("method", "norm"), [("dc", "instance"), ("dc", "group"), ("dm", "group"), ("dm", "batch")])
def test_fewer_images_at_a_time_take_less_memory(method, norm):
    all_at_once, four = (taken(method, norm, chunk) for chunk in ("64", "4"))
    assert four < all_at_once - 32 * _MIB
