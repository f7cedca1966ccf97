"""Networks drawn from a search space: seeded, valid, small enough, and named where one of them fails."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from itertools import islice

import pytest
import torch
from tiny import tiny_dataset
from tiny_search import register_space

from nasproxy.condensation.distribution_matching import DistributionRecipe
from nasproxy.condensation.networks import fresh_networks
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.errors import InputError, SpaceError
from nasproxy.networks.cost import count_multiply_adds

SMALL = {"ipc": 2, "iterations": 3, "width": 4, "depth": 1}
DC = MatchingRecipe(**SMALL, matching_steps=2, inner_epochs=2)
DSA = SiameseRecipe(**SMALL, matching_steps=2, inner_epochs=2)
DM = DistributionRecipe(**SMALL)
WHERE = {"device": torch.device("cpu"), "precision": "float32"}

SPACE = """
import torch
from torch import nn
from nasproxy import SearchSpace

class Small(SearchSpace):
    name = "small"
    choices = {"norm": ["batch", "layer", "none"], "width": [2, 3]}

    def build(self, config, *, in_channels, num_classes, image_size):
        width, (height, wide) = config["width"], image_size
        norms = {"batch": nn.BatchNorm2d(width), "layer": nn.LayerNorm([width, height, wide]), "none": nn.Identity()}
        body = nn.Conv2d(in_channels, width, 3, padding=1), norms[config["norm"]], nn.ReLU(), nn.Dropout(0.2)
        return nn.Sequential(*body, nn.Flatten(), nn.LazyLinear(num_classes))
"""


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((7, 5), channels=3)


@pytest.fixture
def space(tmp_path):
    """Writes the file of a space, with replacements in its text; returns the setting that names it."""

    def write(*changes):
        text = SPACE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "my_space.py"
        file.write_text(text)
        return f"space:{file}"

    return write


def drawn(dataset, recipe, count, seed=0):
    """The first networks of a recipe, without anything done to them."""
    networks = fresh_networks(dataset, recipe, torch.Generator().manual_seed(seed), torch.device("cpu"))
    for _ in range(count):
        with networks.fresh() as network:
            yield network


def weights(networks):
    return [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks]


@pytest.mark.parametrize("recipe", [DC, DSA, DM], ids=["dc", "dsa", "dm"])
def test_every_method_takes_its_networks_from_a_space_and_the_seed_decides(dataset, space, recipe):
    recipe = replace(recipe, network=space(), iterations=6)
    made, again, other = (recipe.make(dataset, seed=seed, **WHERE) for seed in (0, 0, 1))
    assert torch.equal(made.images, again.images)
    assert made.losses == again.losses
    assert not torch.equal(made.images, other.images)
    assert not torch.equal(made.images, replace(recipe, network="convnet").make(dataset, seed=0, **WHERE).images)


def test_the_callers_random_numbers_are_left_alone(dataset, space):
    recipe = replace(DC, network=space())  # its networks have dropout
    before = torch.get_rng_state()
    one = recipe.make(dataset, seed=0, **WHERE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(recipe.make(dataset, seed=0, **WHERE).images, one.images)


@pytest.mark.parametrize("network", ["convnet", "space:convnet720"])
def test_networks_are_seeded_and_all_different(dataset, network):
    recipe = replace(DM, network=network, width=16, depth=2)
    one, again, other = (weights(drawn(dataset, recipe, 5, seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(len(a) == len(b) and torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({a.numpy().tobytes() for a in one}) == 5


def test_networks_of_a_space_do_not_depend_on_what_else_is_drawn(dataset, space):
    recipe = replace(DC, network=space())
    source = torch.Generator().manual_seed(0)
    networks = fresh_networks(dataset, recipe, source, torch.device("cpu"))
    for expected in drawn(dataset, recipe, 4):
        with networks.fresh() as network:
            assert all(map(torch.equal, weights([network]), weights([expected])))
        torch.rand(7, generator=source)


def test_candidates_that_cost_too_much_are_passed_over():
    dataset = tiny_dataset(size=(16, 16))
    recipe = DistributionRecipe(network="space:convnet720", max_multiply_adds=400_000)
    costs = [count_multiply_adds(network, 1, (16, 16)) for network in drawn(dataset, recipe, 20)]
    assert max(costs) <= 400_000
    assert len(set(costs)) > 3


def test_by_default_all_convnets_of_up_to_64_filters_are_let_in():
    from nasproxy.networks.convnet import ConvNet

    for size, channels in (((16, 16), 1), ((32, 32), 3), ((28, 28), 1), ((64, 64), 3)):
        default = count_multiply_adds(ConvNet(channels, 10, size), channels, size)
        largest = ConvNet(channels, 10, size, width=64, depth=4, norm="none", pooling="none")
        assert count_multiply_adds(largest, channels, size) <= 2.5 * default


def test_the_default_limit_is_relative_to_the_default_convnet():
    dataset = tiny_dataset(size=(8, 8))
    recipe = replace(DM, network="space:convnet720", width=8, depth=2)
    (convnet,) = drawn(dataset, replace(recipe, network="convnet"), 1)
    limit = 2.5 * count_multiply_adds(convnet, 1, (8, 8))
    costs = [count_multiply_adds(network, 1, (8, 8)) for network in islice(drawn(dataset, recipe, 12), 12)]
    assert 0.5 * limit < max(costs) <= limit


def test_only_valid_candidates_are_drawn(dataset, space):
    rule = '    def is_valid(self, config, image_size):\n        return config["norm"] == "none" or "normalised"\n\n'
    recipe = replace(DC, network=space(("    def build", rule + "    def build")))
    for network in drawn(dataset, recipe, 8):
        assert not any(isinstance(m, torch.nn.BatchNorm2d | torch.nn.LayerNorm) for m in network.modules())


def test_no_candidate_that_fits_is_an_error(dataset, space):
    with pytest.raises(InputError, match="takes 5 multiply-adds an image or less") as caught:
        replace(DC, network=space(), max_multiply_adds=5).make(dataset, seed=0, **WHERE)
    assert "--max-multiply-adds" in caught.value.hint


def test_what_was_found_once_is_looked_for_until_it_is_found_again(dataset, space):
    rule = '    def is_valid(self, config, image_size):\n        return config["width"] % 200 == 7 or "another"\n\n'
    recipe = replace(
        DC,
        network=space(
            ('"norm": ["batch", "layer", "none"], "width": [2, 3]', '"width": [*range(1000)]'),
            ('config["norm"]', '"none"'),
            ("    def build", rule + "    def build"),
        ),
        max_multiply_adds=10**9,
    )
    found = []
    for seed in range(8):
        networks, again = (
            fresh_networks(dataset, recipe, torch.Generator().manual_seed(seed), WHERE["device"]) for _ in range(2)
        )
        with contextlib.suppress(InputError), networks.fresh():  # the first hundred may be without it
            found.append((networks, again))
    assert 0 < len(found) < 8
    for networks, again in found:
        again.restore(networks.state())
        for _ in range(3):
            with networks.fresh() as one, again.fresh() as other:
                assert torch.equal(*weights([one, other]))


FAILURES = [
    (DC, ("return nn.Seq", "1 / 0; return nn.Seq"), r"ZeroDivisionError.*\(my_space.py:\d+\)"),
    (DC, ("nn.LazyLinear(num_classes)", "nn.LazyLinear(num_classes + 1)"), "expected"),
    (DC, ("nn.ReLU()", "nn.MaxPool2d(9)"), "norm.*RuntimeError"),
    (DM, ("nn.Flatten(), nn.LazyLinear(num_classes)", "nn.LazyConv2d(num_classes, 8), nn.Flatten()"), "no linear"),
]


@pytest.mark.parametrize(("recipe", "change", "message"), FAILURES)
def test_a_candidate_that_fails_is_a_clear_error(dataset, space, recipe, change, message):
    with pytest.raises(InputError, match=message):
        replace(recipe, network=space(change)).make(dataset, seed=0, **WHERE)


def test_a_candidate_without_second_derivatives_is_named(dataset, space):
    once = """
class Slope(torch.autograd.Function):
    @staticmethod
    def forward(context, slope):
        return 2 * slope

    @staticmethod
    def backward(context, slope):
        raise RuntimeError("derivative is not implemented")


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context, images):
        return 2 * images

    @staticmethod
    def backward(context, slope):
        return Slope.apply(slope)


class Doubled(nn.Module):
    def forward(self, images):
        return Once.apply(images)


class Small"""
    network = space(("class Small", once), ("nn.ReLU()", "Doubled()"))
    with pytest.raises(SpaceError, match=r"candidate \{'norm': .*RuntimeError: derivative is not implemented"):
        replace(DC, network=network).make(dataset, seed=0, **WHERE)
    assert replace(DM, network=network).make(dataset, seed=0, **WHERE).losses


def test_images_too_small_for_the_default_convnet_are_an_error():
    with pytest.raises(InputError, match="too small for 3 poolings"):
        DistributionRecipe(ipc=1).make(tiny_dataset(size=(4, 4)), seed=0, **WHERE)


@pytest.mark.parametrize("size", [(4, 4), (1, 1), (4, 9)])
@pytest.mark.parametrize("recipe", [DC, DM], ids=["dc", "dm"])
def test_networks_of_a_space_take_images_too_small_for_the_default_convnet(space, recipe, size):
    recipe = replace(recipe, network=space(), depth=3)
    assert len(recipe.make(tiny_dataset((7, 5), size=size), seed=0, **WHERE).losses) == 3
    images = [tiny_dataset((7, 5), size=at) for at in (size, tuple(max(8, side) for side in size))]
    limits = [fresh_networks(data, recipe, torch.Generator(), WHERE["device"])._limit for data in images]
    assert limits[0] == limits[1]


def test_an_edited_file_is_another_setting(space):
    before = replace(DC, network=space())
    assert before == replace(DC, network=space())
    assert before.space_digest
    after = replace(before, network=space(("[2, 3]", "[2, 4]")))
    assert after != before
    assert replace(after, network="convnet") == DC
    assert DC.space_digest == replace(DC, network="space:convnet720").space_digest == ""


def test_an_edited_module_is_another_setting_and_is_not_imported_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "lone_package" / "inner" / "spaces.py"
    module.parent.mkdir(parents=True)
    for package in (module.parent, module.parent.parent):
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
    digests = []
    for text in (SPACE, SPACE, SPACE.replace("[2, 3]", "[2, 4]")):
        module.write_text(text)
        digests.append(replace(DC, network="space:lone_package.inner.spaces:Small").space_digest)
    assert digests[0] == digests[1] != digests[2]
    assert all(digests)
    assert replace(DC, network="space:lone_package.nowhere:Small").space_digest == ""


def test_another_version_of_a_package_is_another_setting(tmp_path, monkeypatch):
    register_space(tmp_path, "stranger", "strange = stranger_spaces:Strange")
    monkeypatch.syspath_prepend(tmp_path)
    metadata = tmp_path / "stranger-1.0.dist-info" / "METADATA"
    digests = []
    for version in ("1.0", "1.0", "1.1"):
        metadata.write_text(f"Metadata-Version: 2.1\nName: stranger\nVersion: {version}\n")
        digests.append(replace(DC, network="space:strange").space_digest)
    assert digests[0] == digests[1] != digests[2]
    assert all(digests)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "convnets"}, "Did you mean convnet?"),
        ({"network": "resnet-18"}, "Did you mean resnet18?"),
        ({"network": "space"}, "space:convnet720"),
        ({"network": "space:convnet721"}, "Did you mean convnet720?"),
        ({"network": "space:nowhere.py"}, "There is no file"),
        ({"network": "space:convnet720", "max_multiply_adds": 0}, "max_multiply_adds must be 1 or more"),
        ({"max_multiply_adds": 10}, "the network is convnet"),
        ({"patience": -1}, "patience must be 0 or more"),
        ({"patience": 2, "network": "space:convnet720"}, "patience compares losses"),
        ({"initial": "rael"}, "Did you mean real?"),
    ],
)
@pytest.mark.parametrize("method", [MatchingRecipe, SiameseRecipe, DistributionRecipe])
def test_settings_that_cannot_be(method, settings, message):
    with pytest.raises(InputError) as caught:
        method(**settings)
    assert message in str(caught.value)


def test_the_time_of_a_space_is_that_of_several_networks(dataset, space):
    for recipe in (DC, DM):
        assert replace(recipe, network=space()).expected_seconds(dataset, **WHERE) > 0
