import math
import time

import torch
from torch import nn

from nasproxy.training.latency import milliseconds_of


class Sleeper(nn.Module):
    """Takes a while, and notes how it is called."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.seen: set[tuple] = set()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        self.seen.add((tuple(images.shape), images.dtype, self.training, torch.is_grad_enabled()))
        return images.flatten(1)


def test_the_time_is_that_of_one_image_in_evaluation():
    model = Sleeper(0.02).train()
    found = milliseconds_of(model, torch.rand(1, 2, 4, 3))
    assert found >= 20
    assert math.isfinite(found)
    assert model.seen == {((1, 2, 4, 3), torch.float32, False, False)}


def test_threads_stay_as_they_were():
    before = torch.get_num_threads()
    assert milliseconds_of(nn.Flatten(), torch.rand(1, 1, 2, 2)) > 0
    assert torch.get_num_threads() == before
