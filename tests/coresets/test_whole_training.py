"""The training on the whole training part: what it is, what it counts, and that it is done once."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_dataset, with_other_held_out_images

from nasproxy import versions
from nasproxy.coresets import whole_training
from nasproxy.coresets.whole_training import WholeRecipe, expected_seconds, trained_on_whole, watched_training
from nasproxy.errors import DivergedError, InputError, WriteError
from nasproxy.networks.convnet import ConvNet
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.train import Images, train

RECIPE = WholeRecipe(epochs=3, width=4, depth=1)
CPU = torch.device("cpu")
WHERE = {"device": CPU, "precision": "float32"}


@pytest.fixture
def dataset():
    return tiny_dataset((20, 15))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(dataset, recipe=RECIPE, seed=0, precision="float32", told=None):
    def tell(epoch, loss):
        if told is not None:
            told.append((epoch, loss))

    return trained_on_whole(dataset, recipe, seed=seed, device=CPU, precision=precision, on_epoch=tell)


def kept(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file())


def weights(trained):
    return torch.cat([value.flatten() for value in trained.network.state_dict().values()])


def images_of(dataset):
    return Images(dataset.normalisation.apply(dataset.train.images), dataset.train.labels)


def test_it_is_the_toolkits_training(dataset):
    told = []
    trained = run(dataset, told=told)
    torch.manual_seed(0)
    model, data = ConvNet(1, 2, (8, 8), width=4, depth=1), images_of(dataset)
    losses = [[], [], []]

    def note(positions, logits, loss):
        right = torch.log_softmax(logits.double(), 1)[range(len(logits)), data.labels[positions]]
        next(epoch for epoch in losses if len(epoch) < len(data)).extend((-right).tolist())

    # 35 images: 16 a batch.
    train(model, data, TrainingRecipe(epochs=3, batch_size=16), None, seed=0, precision="float32", on_batch=note)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in trained.network.state_dict().items())
    assert trained.losses == pytest.approx([sum(epoch) / len(data) for epoch in losses], rel=1e-5)
    assert told == list(enumerate(trained.losses, start=1))
    assert not trained.network.training
    assert trained.seconds > 0


def test_forgetting_is_counted_between_presentations(dataset):
    labels = dataset.train.labels.roll(3)  # wrong labels are forgotten often
    dataset = replace(dataset, train=replace(dataset.train, labels=labels))
    trained = run(dataset, replace(RECIPE, epochs=12))
    torch.manual_seed(0)
    model, data = ConvNet(1, 2, (8, 8), width=4, depth=1), images_of(dataset)
    history = [[] for _ in labels]

    def note(positions, logits, loss):
        for position, guess in zip(positions.tolist(), logits.argmax(1).tolist(), strict=True):
            history[position].append(guess == int(labels[position]))

    train(model, data, TrainingRecipe(epochs=12, batch_size=16), None, seed=0, precision="float32", on_batch=note)
    falls = [sum(a and not b for a, b in pairwise(seen)) for seen in history]
    expected = [fall if any(seen) else math.inf for fall, seen in zip(falls, history, strict=True)]
    assert trained.forgetting.tolist() == expected
    assert max(falls) > 0


def test_it_is_done_once_and_told_again(dataset, cache):
    told, again = [], []
    first = run(dataset, told=told)
    (path,) = kept(cache)
    written = path.stat().st_mtime_ns
    second = run(dataset, told=again)
    assert torch.equal(weights(first), weights(second))
    assert torch.equal(first.forgetting, second.forgetting)
    assert (first.losses, first.seconds) == (second.losses, second.seconds)
    assert told == again
    assert path.stat().st_mtime_ns == written
    assert not second.network.training


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"precision": "bfloat16"},
        {"recipe": replace(RECIPE, epochs=2)},
        {"recipe": replace(RECIPE, width=8)},
        {"recipe": replace(RECIPE, depth=2)},
        {"dataset": replace(tiny_dataset((20, 15), seed=1), fingerprint="f" * 32)},
    ],
    ids=["seed", "precision", "epochs", "width", "depth", "images"],
)
def test_whatever_else_is_asked_for_is_another_training(dataset, cache, other):
    first = run(dataset)
    second = run(**{"dataset": dataset, **other})
    assert len(kept(cache)) == 2
    assert weights(first).shape != weights(second).shape or not torch.equal(weights(first), weights(second))


def test_another_version_trains_anew(dataset, cache, monkeypatch):
    run(dataset)
    monkeypatch.setattr(versions, "version", lambda _: "0.0.1")
    run(dataset)
    assert len(kept(cache)) == 2


def foreign(path):
    save_file({"classifier.bias": torch.full((2,), 9.0)}, path, metadata={"nasproxy": "{}"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"x" * 500),
        lambda path: save_file({"a": torch.zeros(1)}, path),
        foreign,
    ],
    ids=["empty", "cut", "no safetensors", "no metadata", "foreign"],
)
def test_a_damaged_entry_is_made_anew(dataset, cache, damage):
    first = run(dataset)
    (path,) = kept(cache)
    whole = path.read_bytes()
    damage(path)
    second = run(dataset)
    assert torch.equal(weights(first), weights(second))
    assert len(path.read_bytes()) >= len(whole) - 50  # seconds may have fewer digits
    assert kept(cache) == [path]


def test_weights_of_another_shape_are_not_taken_over(dataset, cache):
    first = run(dataset)
    (path,) = kept(cache)
    run(dataset, replace(RECIPE, width=8))
    (other,) = (found for found in kept(cache) if found != path)
    path.write_bytes(other.read_bytes())
    assert torch.equal(weights(first), weights(run(dataset)))


def test_it_sees_the_training_part_alone(dataset, cache, monkeypatch):
    first = run(dataset)
    monkeypatch.setenv("NASPROXY_CACHE", str(cache.with_name("other")))
    assert torch.equal(weights(first), weights(run(with_other_held_out_images(dataset))))


def test_the_seeds_of_the_process_are_left_alone(dataset):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(dataset)
    assert torch.equal(torch.rand(3), expected)


def test_a_training_that_diverges_says_so_at_once():
    data = Images(torch.full((20, 1, 8, 8), torch.nan), torch.arange(20) % 2)
    with pytest.raises(DivergedError, match="loss became nan in epoch 1") as caught:
        watched_training(ConvNet(1, 2, (8, 8), width=4, depth=1), data, 5, batch_size=16, seed=0, precision="float32")
    assert caught.value.hint


def test_images_too_small_for_the_network_are_named(dataset):
    with pytest.raises(InputError, match="too small for 4 poolings"):
        run(dataset, replace(RECIPE, depth=4))


def test_a_cache_that_cannot_be_written_is_an_error_before_the_work(dataset, cache):
    cache.write_text("a file where the folder should be")
    told = []
    with pytest.raises(WriteError):
        run(dataset, told=told)
    assert told == []


def test_an_interrupted_training_leaves_no_entry(dataset, cache):
    def interrupt(epoch, loss):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained_on_whole(dataset, RECIPE, seed=0, on_epoch=interrupt, **WHERE)
    assert kept(cache) == []


def test_estimating_the_time_writes_nothing(dataset, cache):
    assert expected_seconds(dataset, RECIPE, **WHERE) > 0
    assert kept(cache) == []


@pytest.mark.parametrize(("recording", "epochs"), [(1, 2), (8, 8)])
def test_the_batches_that_are_timed_are_those_of_the_training(monkeypatch, recording, epochs):
    dataset, shown = tiny_dataset((500, 300)), []

    class Seen(ConvNet):
        def forward(self, images):
            shown.append(len(images))
            return super().forward(images)

    monkeypatch.setattr(whole_training, "ConvNet", Seen)
    run(dataset, replace(RECIPE, epochs=1))
    assert set(shown) == {50}
    shown.clear()
    monkeypatch.setattr(whole_training, "timed_epochs", lambda *_: recording)
    expected_seconds(dataset, RECIPE, **WHERE)
    assert shown == 4 * epochs * [50]
