"""Each mistake that a space can make is found, and a sound space has none."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from nasproxy.search_spaces.convnet720 import ConvNet720
from torch import nn

from nasproxy.errors import SpaceError
from nasproxy.spaces import check as checking
from nasproxy.spaces.check import check_space
from nasproxy.spaces.space import SearchSpace


class Linear(SearchSpace):
    """A hidden layer of some width; what goes wrong is for subclasses to say."""

    name = "linear"
    choices = {"width": [2, 4, 8], "bias": [False, True]}  # noqa: RUF012, as a user would write it

    def build(self, config, *, in_channels, num_classes, image_size):
        inputs = in_channels * math.prod(image_size)
        width = config["width"]
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width, bias=config["bias"]), nn.Linear(width, num_classes))


def check(space, **options):
    return check_space(space, **{"in_channels": 2, "num_classes": 3, "image_size": (4, 5)} | options)


def space_with(**attributes) -> SearchSpace:
    return type("Changed", (Linear,), {"__module__": __name__} | attributes)()


def builds(model) -> SearchSpace:
    return space_with(build=lambda self, config, **shape: (dict(config), copy.deepcopy(model))[1])


class Logits(nn.Module):
    """A trainable network whose output is computed by ``function`` from (n, 3) logits."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Linear(2 * 4 * 5, 3)
        self.function = function

    def forward(self, images):
        return self.function(self.layer(images.flatten(1)))


def test_a_sound_space_is_measured():
    report = check(Linear())
    assert report.ok
    assert report.problems == ()
    assert (report.candidates, report.examined, report.valid, report.tried) == (6, 6, 6, 6)
    assert report.invalid == {}
    assert report.parameters == (40 * 2 + 2 * 3 + 3, 41 * 8 + 9 * 3)
    assert report.multiply_adds == (43 * 2, 43 * 8)
    assert report.seconds > 0


def test_convnet720_is_sound():
    report = check_space(ConvNet720(), image_size=(8, 8), sample=8)
    assert report.problems == ()
    assert (report.candidates, report.valid, report.tried) == (720, 600, 8)
    assert report.invalid == {"4 poolings are too many for 8×8 pixels, which can be halved 3 times": 120}


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_are_sound():
    report = check(builds(nn.Sequential(nn.Flatten(), nn.LazyLinear(3))))
    assert report.problems == ()
    assert report.parameters == (123, 123)


def test_the_sample_is_stratified_over_the_choices():
    seen = []

    def build(self, config, **shape):
        seen.append(config)
        return Linear.build(self, config | {"width": 2, "bias": True}, **shape)

    space = space_with(build=build, choices={"a": range(5), "b": range(40)})
    assert check(space, sample=10).tried == 10
    assert sorted(config["a"] for config in seen) == sorted([0, 1, 2, 3, 4] * 2 * 2)  # each is built twice
    assert len({config["b"] for config in seen}) == 10


def test_invalid_candidates_are_counted_by_reason_and_replaced_in_the_sample():
    def is_valid(self, config, image_size):
        if config["width"] == 2:
            return f"too narrow for {image_size}"
        return config["width"] != 8 or config["bias"]

    report = check(space_with(is_valid=is_valid), sample=3)
    assert report.ok
    assert report.invalid == {"too narrow for (4, 5)": 2, "no reason given": 1}
    assert (report.valid, report.tried) == (3, 3)
    assert report.parameters[0] == 40 * 4 + 4 * 3 + 3


def test_a_large_space_is_sampled(monkeypatch):
    monkeypatch.setattr(checking, "EXAMINED", 50)
    space = space_with(
        choices={"width": [1, 2, 3], "bias": [True], "other": range(1000), "more": range(1000)},
        is_valid=lambda self, config, size: config["width"] > 1 or "narrow",
    )
    report = check(space, sample=4)
    assert (report.candidates, report.examined, report.tried) == (3 * 10**6, 50, 4)
    assert report.valid + report.invalid["narrow"] == 50
    assert 16 <= report.invalid["narrow"] <= 17


def test_no_valid_candidate_is_a_problem():
    report = check(space_with(is_valid=lambda self, config, size: "never"))
    assert report.problems == ("No candidate is valid for images of 4×5 pixels.",)
    assert (report.parameters, report.multiply_adds, report.seconds) == (None, None, None)


@pytest.mark.parametrize("answer", [None, 1, "", 0.0, ("no",)])
def test_is_valid_must_answer_with_a_bool_or_a_reason(answer):
    report = check(space_with(is_valid=lambda self, config, size: answer))
    expected = (
        f"is_valid returns {answer!r} instead of True, False or the reason why not (with width=2, bias=False, and 5"
    )
    assert report.problems[0].startswith(expected)


def test_an_exception_names_the_line_and_the_candidates():
    def build(self, config, **shape):
        if config["width"] > 2:
            raise ValueError("too wide.")
        return Linear.build(self, config, **shape)

    line = build.__code__.co_firstlineno + 2
    report = check(space_with(build=build))
    where = f"build fails at test_space_check.py:{line}: ValueError: too wide"
    assert report.problems == (f"{where} (with width=4, bias=False, and 3 more).",)
    assert report.tried == 2


def test_an_exception_of_is_valid_is_reported():
    def is_valid(self, config, image_size):
        return {}[config["width"]]

    line = is_valid.__code__.co_firstlineno + 1
    report = check(space_with(is_valid=is_valid))
    assert report.problems[0].startswith(f"is_valid fails at test_space_check.py:{line}: KeyError: 2 (with width=2")


def refuse_one_image(logits):
    if len(logits) == 1:
        raise IndexError("lonely")
    return logits


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (3, "build returns int instead of a torch.nn.Module"),
        (Logits(lambda logits: logits[:, :2]), "the network maps 4 images to shape (4, 2), expected (4, 3)"),
        (Logits(lambda logits: logits[:1]), "the network maps 4 images to shape (1, 3), expected (4, 3)"),
        (Logits(lambda logits: [logits]), "the network returns list instead of a tensor of logits"),
        (Logits(lambda logits: logits * math.nan), "the loss of a fresh network is not finite"),
        (
            Logits(lambda logits: (logits - logits.detach()).abs().sqrt()),
            "the gradient of a fresh network is not finite",
        ),
        (Logits(lambda logits: logits.softmax(1)), "the network gives probabilities; leave the softmax out"),
        (Logits(refuse_one_image), "the forward pass of one image in evaluation mode fails at test_space_check.py:"),
        (Logits(lambda logits: logits.detach()), "the forward or backward pass fails: RuntimeError: element 0"),
        (nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(3)), "the network has no parameter to train"),
        (nn.Linear(7, 3), "the forward or backward pass fails: RuntimeError: "),
    ],
)
def test_a_network_that_cannot_be_searched_is_reported(model, expected):
    report = check(builds(model))
    assert not report.ok
    assert len(report.problems) == 1
    assert report.problems[0].startswith(expected)
    assert report.problems[0].endswith("(with width=2, bias=False, and 5 more).")


def test_a_layer_that_candidates_share_is_reported_unless_it_is_frozen():
    shared = nn.Linear(40, 8)

    def build(self, config, **shape):
        return nn.Sequential(nn.Flatten(), shared, nn.Linear(8, config["width"], config["bias"]), nn.LazyLinear(3))

    report = check(space_with(build=build))
    expected = "build gives a layer that another candidate has too; let it make new ones each time (with "
    assert [problem[: len(expected)] for problem in report.problems] == [expected]
    assert ", and 4 more)" in report.problems[0]
    shared.requires_grad_(False)
    assert check(space_with(build=build)).ok


def test_a_build_that_changes_its_configuration_is_reported():
    def build(self, config, **shape):
        model = Linear.build(self, config, **shape)
        config.pop("bias")
        return model

    report = check(space_with(build=build))
    assert report.problems[0].startswith("build changes the configuration it is given; let it work on a copy")
    assert report.tried == 6


@pytest.mark.parametrize("what", ["weight", "buffer", "size"])
def test_weights_that_torchs_seed_does_not_decide_are_reported(what):
    numbers = np.random.default_rng(0)

    def build(self, config, **shape):
        model = Linear.build(self, config, **shape)
        drawn = torch.from_numpy(numbers.normal(size=tuple(model[1].weight.shape))).float()
        if what == "buffer":
            model.register_buffer("mask", drawn > 0)
        elif what == "size":
            model[1].register_buffer("idle", torch.zeros(int(numbers.integers(1, 10**6))))
        elif config["bias"]:
            model[1].weight.data.copy_(drawn)
        return model

    report = check(space_with(build=build))
    expected = "build gives other weights when it is called again after the same torch.manual_seed; let it draw from"
    assert [problem[: len(expected)] for problem in report.problems] == [expected]
    assert ("bias=True, and 2 more" if what == "weight" else ", and 5 more") in report.problems[0]


def test_constants_that_are_no_numbers_are_equal_when_built_again():
    def build(self, config, **shape):
        model = Linear.build(self, config, **shape)
        for name, constant in {"none": torch.tensor(math.nan), "mask": torch.ones(2, dtype=torch.bool)}.items():
            model.register_buffer(name, constant)
        return model

    assert check(space_with(build=build)).ok


def test_a_space_that_breaks_the_contract_is_refused():
    with pytest.raises(SpaceError, match="Changed"):
        check(space_with(choices={}))


def test_the_global_random_state_is_left_alone_and_does_not_matter():
    weights = []

    def build(self, config, **shape):
        model = Linear.build(self, config, **shape)
        weights.append(model[1].weight.detach().clone())
        return model

    for start in (1, 2):
        torch.manual_seed(start)
        state = torch.random.get_rng_state()
        check(space_with(build=build), sample=2, seed=7)
        assert torch.equal(state, torch.random.get_rng_state())
    half = len(weights) // 2
    assert all(torch.equal(first, second) for first, second in zip(weights[:half], weights[half:], strict=True))
