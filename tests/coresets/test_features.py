"""Features against the network's own layers, one image at a time."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_dataset

from nasproxy.coresets.features import choose_by_features, features
from nasproxy.networks.convnet import ConvNet


def network(channels: int, classes: int, size: tuple[int, int]) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(channels, classes, size, width=4, depth=2).eval()


@pytest.mark.parametrize(("counts", "channels", "size"), [((200, 70), 1, (8, 8)), ((3, 2, 4), 3, (12, 16))])
def test_equal_what_enters_the_last_layer_for_each_image_alone(counts, channels, size):
    dataset = tiny_dataset(counts, channels=channels, size=size)
    model = network(channels, len(counts), size)
    found = features(model, dataset.train.images, dataset.normalisation)
    assert found.shape == (sum(counts), 4 * (size[0] // 4) * (size[1] // 4))
    assert (found.dtype, found.requires_grad) == (torch.float64, False)
    entered = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].detach().flatten(1)))
    for image in dataset.normalisation.apply(dataset.train.images):
        model(image[None])
    torch.testing.assert_close(found, torch.cat(entered).double(), rtol=1e-4, atol=1e-5)


def test_each_class_is_asked_by_itself_and_answers_in_its_own_positions():
    dataset = tiny_dataset((5, 2, 9))
    model = network(1, 3, (8, 8))
    asked = []

    def last_then_first(rows):
        asked.append(rows)
        return torch.tensor([len(rows) - 1, 0])

    positions = choose_by_features(dataset, model, last_then_first)
    members = [[i for i, label in enumerate(dataset.train.labels.tolist()) if label == c] for c in range(3)]
    assert positions.tolist() == [position for own in members for position in (own[-1], own[0])]
    whole = features(model, dataset.train.images, dataset.normalisation)
    for rows, own in zip(asked, members, strict=True):
        torch.testing.assert_close(rows, whole[own])
