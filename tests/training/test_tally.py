import math

import pytest
import torch

from nasproxy.training.tally import Tally


def test_an_epoch_is_the_mean_over_its_images_and_the_next_begins_anew():
    tally = Tally(torch.tensor([0, 1, 1, 0, 1]))
    # Of three images two are right, of two none.
    tally(torch.tensor([4, 0, 2]), torch.tensor([[0.0, 1.0], [2.0, 0.0], [3.0, 1.0]]), torch.tensor(0.5))
    tally(torch.tensor([1, 3]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor(3.0))
    assert tally.take() == pytest.approx(((3 * 0.5 + 2 * 3.0) / 5, 2 / 5))
    tally(torch.tensor([1]), torch.tensor([[0.0, 1.0]]), torch.tensor(math.inf))
    assert tally.take() == (math.inf, 1.0)
