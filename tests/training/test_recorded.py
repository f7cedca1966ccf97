"""Recorded steps against plain ones: on the CPU with a recorder that only calls again, on CUDA with graphs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from call_again import call_again
from torch import nn

from nasproxy.networks.convnet import ConvNet
from nasproxy.training import recorded
from nasproxy.training import train as module
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.recorded import RecordedStep, record_on_cuda
from nasproxy.training.step import PlainStep
from nasproxy.training.train import Images, train

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def draw(count, *, seed=0, device="cpu"):
    source = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(count, 2, 4, 4, generator=source), torch.randint(0, 3, (count,), generator=source)
    return Images(images.to(device), labels.to(device))


def network(*layers, norm="batch", width=4, depth=1, device="cpu"):
    torch.manual_seed(0)
    return nn.Sequential(*layers, ConvNet(2, 3, (4, 4), width=width, depth=depth, norm=norm)).to(device)


@pytest.fixture
def record_with(monkeypatch):
    """Has trainings record their steps by the recorder it is given; returns the list of all such steps."""

    def begin(record):
        made = []

        def step_of(model, recipe, precision, device, steps):
            made.append(RecordedStep(PlainStep(model, recipe, precision, device), record))
            return made[-1]

        monkeypatch.setattr(module, "step_of", step_of)
        return made

    return begin


def fit(model, recipe, precision="float32", *, seed=0, watch=None, device="cpu", evaluate_at=(1, 3)):
    data, validation = draw(13, device=device), draw(50, seed=1, device=device)
    more = {"seed": seed, "precision": precision, "evaluate_at": evaluate_at, "on_batch": watch}
    return train(model, data, recipe, validation, **more)


@pytest.mark.parametrize(
    ("batch_size", "augmentation", "momentum", "precision"),
    [
        (256, "none", 0.9, "float32"),
        (4, "crop-flip", 0.9, "bfloat16"),
        (4, "none", 0.0, "float32"),
        (4, "siamese", 0.9, "float32"),
    ],
)
def test_a_replayed_step_is_the_step(record_with, batch_size, augmentation, momentum, precision):
    recipe = TrainingRecipe(
        epochs=6, learning_rate=0.3, momentum=momentum, batch_size=batch_size, augmentation=augmentation
    )
    plain, seen = network(), []
    expected = fit(plain, recipe, precision, watch=lambda _, logits, loss: seen.append((logits.clone(), loss.clone())))
    made = record_with(call_again)
    again, found = network(), []
    assert fit(again, recipe, precision, watch=lambda _, *both: found.append([x.clone() for x in both])) == expected
    assert len({score.cross_entropy for score in expected}) == 3
    assert [step.reason for step in made] == [None]
    assert len(made[0]._recordings) == (2 if batch_size == 4 else 1)  # 13 = 4 + 4 + 5
    for name, value in plain.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    for one, other in zip(seen, found, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


class Counting(nn.Module):
    """Grows louder with each step."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        return images * (1 + self.steps / 10)


class Tossing(nn.Module):
    """Leaves the images out now and then."""

    def forward(self, images):
        return images * (np.random.random() < 0.5) if self.training else images  # noqa: NPY002


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Counting, "attributes of its modules"),
        (Tossing, "random numbers of NumPy"),
        (lambda: nn.Dropout(0.5), "random numbers of PyTorch on the CPU"),
    ],
)
def test_a_step_that_a_replay_would_not_repeat_is_taken_as_it_stands(record_with, layer, reason):
    recipe = TrainingRecipe(epochs=6, learning_rate=0.3)

    def scores():
        np.random.seed(0)  # noqa: NPY002
        return fit(network(layer()), recipe)

    expected = scores()
    made = record_with(call_again)
    found = scores()
    assert made[0].reason == f"a step changes {reason}"
    assert found == expected


def test_what_cannot_be_recorded_is_trained_all_the_same(record_with):
    recipe = TrainingRecipe(epochs=6, learning_rate=0.3, batch_size=4)
    expected = fit(network(), recipe)

    def refuse(step):
        step()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    made = record_with(refuse)
    assert fit(network(), recipe) == expected
    assert made[0].reason == "RuntimeError: operation not permitted when stream is capturing"


SAID_ONCE = """
import torch
from nasproxy.training.recorded import _waiting_forbidden
torch.cuda._lazy_init = lambda: None
for _ in range(2):
    with _waiting_forbidden():
        assert torch.cuda.get_sync_debug_mode() == 2
    assert torch.cuda.get_sync_debug_mode() == 0
"""


def test_torchs_word_on_its_synchronisation_mode_is_no_error_and_leaves_no_mode_behind():
    # In a process of its own: torch says it once.
    subprocess.run([sys.executable, "-W", "error", "-c", SAID_ONCE], check=True)


class Card:
    """Keeps in order what a recording asks of CUDA."""

    def __init__(self):
        self.asked, self.streams, self.fails, card = [], 0, False, self

        class Stream:
            def __init__(self, name=None):
                card.streams += name is None
                self.name = name or f"stream {card.streams}"

            def wait_stream(self, other):
                card.asked.append(f"{self.name} waits for {other.name}")

        self.stream, self.current = Stream, Stream("current")

    @contextlib.contextmanager
    def graph(self, graph, pool, stream):
        """Cannot be ended where it ``fails``, as after what CUDA forbids."""
        self.asked.append(f"graph on {stream.name}")
        yield
        if self.fails:
            raise RuntimeError("capture invalidated")

    def note(self, word):
        return lambda *values: self.asked.append(" ".join(map(str, (word, *values))))


@pytest.fixture
def card(monkeypatch):
    """Stands for CUDA as far as recording needs it."""
    made = Card()
    generator = SimpleNamespace(clone_state=lambda: "state", graphsafe_set_state=made.note("generator"))
    for name, value in {
        "Stream": made.stream,
        "current_stream": lambda: made.current,
        "stream": lambda _: contextlib.nullcontext(),
        "graph": made.graph,
        "CUDAGraph": lambda: SimpleNamespace(replay=made.note("replay"), reset=made.note("reset")),
        "graph_pool_handle": lambda: (0, 7),
        "current_device": lambda: 0,
        "default_generators": (generator,),
        "_lazy_init": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, made.note(name))
    monkeypatch.setattr(recorded, "_STREAMS", {})
    monkeypatch.setattr(recorded, "_FAILED", [])
    return made


@pytest.mark.parametrize("failing", [1, 2], ids=["warming up", "not allowed to wait"])
def test_what_follows_a_step_that_fails_waits_for_what_it_has_asked_of_the_card(card, failing):
    calls = []

    def step():
        calls.append(torch.cuda.get_sync_debug_mode())
        if len(calls) == failing:
            raise RuntimeError("a synchronizing operation")
        return ()

    with pytest.raises(RuntimeError, match="synchronizing"):
        record_on_cuda(step)
    assert card.asked == ["stream 1 waits for current", "current waits for stream 1"]
    assert calls == [0, 2][:failing]
    assert torch.cuda.get_sync_debug_mode() == 0


def test_recordings_share_a_stream_until_one_fails_of_which_nothing_is_left(card):
    for _ in range(2):
        replay, results = record_on_cuda(lambda: (torch.ones(1),))
        replay()
        assert results == (1,)
    assert card.asked[:4] == [
        "stream 1 waits for current",
        "current waits for stream 1",
        "graph on stream 1",
        "replay",
    ]
    assert card.asked[4:] == card.asked[:4]
    card.asked.clear()
    card.fails = True
    with pytest.raises(RuntimeError, match="invalidated"):
        record_on_cuda(tuple)
    assert card.asked[3:] == [
        "_cuda_endAllocateToPool 0 (0, 7)",
        "_cuda_releasePool 0 (0, 7)",
        "generator state",
        "reset",
    ]
    card.asked.clear()
    card.fails = False
    record_on_cuda(tuple)
    assert card.asked[2] == "graph on stream 2"


@pytest.fixture
def recorded_steps(monkeypatch):
    """All steps that trainings on CUDA record, by graphs, computed as in a process that nasproxy has prepared."""
    made = []
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(module, "RecordedStep", lambda step: made.append(RecordedStep(step)) or made[-1])
    return made


@needs_cuda
@pytest.mark.parametrize("batch_size", [4, 256])
@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_graph_gives_the_scores_of_plain_steps(monkeypatch, recorded_steps, batch_size, norm, precision):
    recipe = TrainingRecipe(epochs=40, learning_rate=0.05, batch_size=batch_size)
    graph = fit(network(norm=norm, device="cuda"), recipe, precision, device="cuda")
    assert [(step.reason, len(step._recordings)) for step in recorded_steps] == [(None, 2 if batch_size == 4 else 1)]
    monkeypatch.setattr(module, "RECORDED", 10**9)
    plain = fit(network(norm=norm, device="cuda"), recipe, precision, device="cuda")
    assert len(recorded_steps) == 1
    for one, other in zip(graph, plain, strict=True):
        assert one.cross_entropy == pytest.approx(other.cross_entropy, rel=1e-3)


class Waiting(nn.Module):
    """Depends on its data."""

    def forward(self, images):
        return images * 2 if images.mean() > 0 else images


class Unrecordable(nn.Module):
    """Does what fails only while a graph is recorded."""

    def forward(self, images):
        torch.cuda.synchronize()
        return images


@needs_cuda
@pytest.mark.parametrize("layer", [Waiting, Unrecordable])
def test_a_network_without_a_graph_is_trained_and_the_next_one_has_its_graph(monkeypatch, recorded_steps, layer):
    recipe = TrainingRecipe(epochs=40)
    model = network(layer(), device="cuda")
    assert not fit(model, recipe, device="cuda")[-1].diverged
    assert recorded_steps[0].reason is not None
    assert torch.cuda.get_sync_debug_mode() == 0
    torch.empty(2**28, dtype=torch.uint8, device="cuda")
    before = torch.cuda.memory_reserved()
    torch.cuda.empty_cache()  # which torch leaves undone while it takes a recording to be under way
    assert torch.cuda.memory_reserved() <= before - 2**28
    assert not fit(network(nn.Dropout(0.5), device="cuda"), recipe, device="cuda")[-1].diverged
    assert recorded_steps[1].reason is None
    monkeypatch.setattr(module, "RECORDED", 10**9)
    plain = network(layer(), device="cuda")
    fit(plain, recipe, device="cuda")
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-5)
