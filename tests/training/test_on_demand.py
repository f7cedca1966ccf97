"""Images normalised on demand are those that were normalised at once, to the last bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_dataset
from torch.utils._python_dispatch import TorchDispatchMode

from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.datasets.pixel_memory import VARIABLE
from nasproxy.training.on_demand import ImagesOnDemand, normalised_on
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    side=st.integers(1, 9),
    size=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_indexes_and_splits_as_the_tensor_does(n, channels, side, size, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)
    scale = Normalisation(
        tuple(torch.rand(channels, generator=generator).tolist()),
        tuple((torch.rand(channels, generator=generator) + 0.01).tolist()),
    )
    whole, lazy = scale.apply(pixels), ImagesOnDemand(pixels, scale, CPU)
    picked = torch.randint(0, n, (size,), generator=generator)
    for choice in (picked, slice(None), slice(1, 3)):
        assert torch.equal(lazy[choice], whole[choice])
    assert [len(batch) for batch in lazy.split(size)] == [len(batch) for batch in whole.split(size)]
    assert torch.equal(torch.cat(list(lazy.split(size))), whole)
    assert (lazy.shape, len(lazy), lazy.device) == (whole.shape, len(whole), whole.device)


def test_normalising_takes_the_memory_of_its_result_and_has_the_bits_of_the_formula():
    rooms = []

    class Rooms(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), settings=None):
            made = function(*arguments, **(settings or {}))
            if made.shape == pixels.shape:
                rooms.append(made)  # and is kept, or its place would be given away again
            return made

    generator = torch.Generator().manual_seed(0)
    pixels = torch.arange(256, dtype=torch.uint8).repeat(2, 3, 16, 1)
    for _ in range(20):
        mean, std = (torch.rand(2, 3, generator=generator) + 0.01).tolist()
        with Rooms():
            found = Normalisation(tuple(mean), tuple(std)).apply(pixels)
        assert {room.untyped_storage().data_ptr() for room in rooms} == {found.untyped_storage().data_ptr()}
        rooms.clear()
        expected = (pixels.float() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        assert torch.equal(found, expected)


def test_which_of_the_two_is_a_question_of_memory(monkeypatch):
    dataset = tiny_dataset()
    assert isinstance(normalised_on(CPU, dataset.train.images, dataset.normalisation), torch.Tensor)
    monkeypatch.setenv(VARIABLE, "0")
    assert isinstance(normalised_on(CPU, dataset.train.images, dataset.normalisation), ImagesOnDemand)


@pytest.mark.parametrize("recipe", [{"batch_size": 4}, {"batch_size": 100}, {"batch_size": 4, "images": 6}])
def test_trains_to_the_same_weights_and_scores(monkeypatch, recipe):
    dataset = tiny_dataset((9, 8), channels=3)

    def result():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2)
        )
        train_on, validate_on = (
            Images(normalised_on(CPU, part.images, dataset.normalisation), part.labels)
            for part in (dataset.train, dataset.validation)
        )
        settings = TrainingRecipe(epochs=3, augmentation="crop-flip", **recipe)
        scores = train(model, train_on, settings, validate_on, seed=1, precision="float32", evaluate_at=[1])
        return scores, list(model.state_dict().values())

    scores, weights = result()
    monkeypatch.setenv(VARIABLE, "0")
    lazy_scores, lazy_weights = result()
    assert scores == lazy_scores
    assert all(torch.equal(one, other) for one, other in zip(weights, lazy_weights, strict=True))
