"""Algorithm 1 against a second implementation, and what must hold for any run of it."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from algorithm_1 import algorithm_1
from call_again import call_again
from scaled_space import scaled_space
from tiny import tiny_dataset, with_other_held_out_images
from torch import nn
from torch.utils.checkpoint import checkpoint

from nasproxy.condensation import gradient_matching as module
from nasproxy.condensation.course import Course
from nasproxy.condensation.gradient_matching import LARGEST_STEP, matching_loss
from nasproxy.condensation.outer_loop import Material
from nasproxy.condensation.recipe import DISTANCES, MatchingRecipe
from nasproxy.condensation.siamese import SiameseRecipe
from nasproxy.errors import DatasetError, DivergedError, InputError
from nasproxy.networks import build
from nasproxy.networks.convnet import ConvNet
from nasproxy.networks.norms import InstanceNorm
from nasproxy.training import recorded as recorded_module
from nasproxy.training.recorded import Recorded

CPU = torch.device("cpu")
STILL = 1e-30  # an image learning rate that moves no float32 image
SETTINGS = {"ipc": 2, "iterations": 2, "matching_steps": 2, "inner_epochs": 3, "width": 4, "depth": 1}
RECIPE = MatchingRecipe(**SETTINGS)


def run(dataset, recipe, seed=0, precision="float32", **more):
    return recipe.make(dataset, seed=seed, device=CPU, precision=precision, **more)


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((7, 5), channels=2)


@pytest.fixture
def record(monkeypatch):
    """Every network that condensation makes, what it was at first, and what it was shown."""
    kept = SimpleNamespace(networks=[], initial=[], inputs=[])

    class Recorded(ConvNet):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            kept.networks.append(self)
            kept.initial.append(copy.deepcopy(self.state_dict()))

        def forward(self, images):
            kept.inputs.append(images.detach().clone())
            return super().forward(images)

    monkeypatch.setitem(build._CLASSES, "convnet", Recorded)
    return kept


@pytest.mark.parametrize(("initial", "norm"), [("noise", "instance"), ("real", "instance"), ("real", "batch")])
def test_equals_a_second_implementation_that_updates_class_by_class(dataset, record, initial, norm):
    recipe = replace(RECIPE, initial=initial, norm=norm, matching_steps=3, network_learning_rate=0.1)
    first = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    record.initial.clear()
    made = run(dataset, recipe)
    images, losses = algorithm_1(dataset, recipe, first, record.initial)
    assert (images - first).abs().max() > 0.05  # the comparison is of something that moved
    torch.testing.assert_close(made.images.double(), images, rtol=0, atol=1e-5)
    assert made.losses == pytest.approx(losses, rel=1e-5)


def test_the_seed_decides(dataset):
    one, again, other = (run(dataset, RECIPE, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert one.losses == again.losses
    assert not torch.equal(one.images, other.images)


def test_the_callers_random_numbers_are_left_alone(dataset):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = run(dataset, RECIPE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(run(dataset, RECIPE).images, one.images)


@pytest.mark.parametrize("initial", ["noise", "real"])
def test_only_the_training_part_is_seen(dataset, initial):
    recipe = replace(RECIPE, initial=initial)
    made = run(dataset, recipe)
    assert torch.equal(made.images, run(with_other_held_out_images(dataset), recipe).images)
    other_training = replace(dataset, train=dataset.validation)
    assert not torch.equal(made.images, run(other_training, recipe).images)


def test_real_initial_images_lie_in_the_order_of_classes(dataset):
    made = run(dataset, replace(RECIPE, initial="real", image_learning_rate=STILL))
    assert made.labels.tolist() == [0, 0, 1, 1]
    real = dataset.normalisation.apply(dataset.train.images)
    for image, label in zip(made.images, made.labels, strict=True):
        same = (real == image).flatten(1).all(1)
        assert dataset.train.labels[same].tolist() == [label]


def test_noise_has_zero_mean_and_unit_deviation():
    made = run(tiny_dataset((40, 40), size=(16, 16)), replace(RECIPE, ipc=40, iterations=1, image_learning_rate=STILL))
    assert made.images.shape == (80, 1, 16, 16)
    assert abs(float(made.images.mean())) < 0.04
    assert float(made.images.std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("steps", "trained"), [(1, False), (2, True)])
def test_a_network_is_trained_between_steps_but_not_after_the_last(dataset, record, steps, trained):
    run(dataset, replace(RECIPE, matching_steps=steps, iterations=3))
    assert len(record.networks) == 3
    moved = [
        any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
        for network, before in zip(record.networks, record.initial, strict=True)
    ]
    assert moved == [trained] * 3


def test_every_outer_iteration_has_a_new_network(dataset, record):
    run(dataset, replace(RECIPE, iterations=3))
    for one, other in itertools.combinations(record.initial, 2):
        assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_real_batches_are_different_images_of_one_class(dataset, record):
    run(dataset, replace(RECIPE, matching_steps=1, iterations=8, real_batch=3, ipc=1))
    real = dataset.normalisation.apply(dataset.train.images)
    batches = []
    for shown in (inputs for inputs in record.inputs if len(inputs) == 3):
        positions = [int((real == image).flatten(1).all(1).nonzero()) for image in shown]
        assert len(set(positions)) == 3
        assert len(set(dataset.train.labels[positions].tolist())) == 1
        batches.append(tuple(sorted(positions)))
    assert len(batches) == 8 * 2
    assert len(set(batches)) > 4


def test_inner_batches_cover_the_synthetic_set_once_an_epoch(dataset, record):
    recipe = replace(RECIPE, iterations=1, ipc=5, network_batch=4, initial="real", image_learning_rate=STILL)
    made = run(dataset, recipe)
    per_step = 2 * dataset.num_classes  # forward passes: real and synthetic images of each class
    inner = record.inputs[per_step:-per_step]
    assert [len(batch) for batch in inner] == [4, 4, 2] * recipe.inner_epochs
    for epoch in range(recipe.inner_epochs):
        seen = torch.cat(inner[3 * epoch : 3 * epoch + 3])
        assert sorted(map(bytes, seen.numpy())) == sorted(map(bytes, made.images.numpy()))


def test_the_loss_goes_down():
    recipe = MatchingRecipe(ipc=1, iterations=40, matching_steps=1, width=8, depth=1)
    losses = run(tiny_dataset((20, 20), seed=1), recipe).losses
    assert len(losses) == 40
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_each_iteration_is_reported(dataset):
    said = []
    made = run(dataset, replace(RECIPE, iterations=3), on_iteration=lambda *news: said.append(news))
    assert said == list(enumerate(made.losses, 1))
    assert made.seconds > 0


def test_within_an_iteration_its_parts_are_reported_as_each_class_begins(dataset):
    parts = []
    told = run(dataset, RECIPE, course=Course(on_part=parts.append))
    assert torch.equal(told.images, run(dataset, RECIPE).images)
    matching, training = 7 + 5 + 4 * 4, 3 * 4  # real images, synthetic ones by four; 3 epochs
    whole = 2 * matching + training
    done = [0, matching / 2, matching + training, 1.5 * matching + training]
    assert parts == pytest.approx([part / whole for part in done] * RECIPE.iterations)


def test_synthetic_images_pass_through_the_instance_norm_that_is_faster_to_differentiate_twice():
    """That is torch's own, whose maps are not channels-last; by the other one matching took a third longer."""
    network = ConvNet(1, 2, (8, 8), width=4, depth=2, pooling="max")
    layouts = []
    for layer in network.features:
        if isinstance(layer, InstanceNorm):
            layer.register_forward_hook(lambda layer, inputs, maps: layouts.append(maps.is_contiguous()))
    synthetic = torch.randn(3, 1, 8, 8, requires_grad=True)
    matching_loss(network, torch.randn(5, 1, 8, 8), synthetic, 1, distance="layerwise-cosine", precision="float32")
    network(synthetic)
    real, matched, trained = [False] * 2, [True] * 2, [False] * 2
    assert layouts == real + matched + trained


def test_bfloat16_moves_the_images_in_nearly_the_same_direction(dataset):
    recipe = replace(RECIPE, initial="real", matching_steps=1, iterations=1, real_batch=256)
    first = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    exact, rounded = (run(dataset, recipe, precision=precision).images - first for precision in ("float32", "bfloat16"))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert float(F.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0)) > 0.99


@pytest.mark.parametrize(
    ("iterations", "steps"), [(3, 1), (1, 3), pytest.param(1, 1, id="nothing is computed after the step")]
)
def test_images_that_leave_the_finite_numbers_are_an_error(dataset, iterations, steps):
    recipe = replace(RECIPE, iterations=iterations, matching_steps=steps, image_learning_rate=float("inf"))
    with pytest.raises(DivergedError) as caught:
        run(dataset, recipe)
    assert "image learning rate" in caught.value.hint


def test_a_huge_learning_rate_is_an_error(dataset):
    with pytest.raises(
        DivergedError,
        match=r"beyond ±1,000 standard deviations of real ones, at a loss of [\d.e+]+, in outer iteration \d of 5",
    ):
        run(dataset, replace(RECIPE, iterations=5, matching_steps=1, image_learning_rate=1e38))


def test_it_stops_when_the_loss_has_converged(dataset):
    made = run(dataset, replace(RECIPE, iterations=50, patience=2, image_learning_rate=STILL, matching_steps=1))
    losses = made.losses
    assert 4 <= len(losses) < 50
    for count in range(4, len(losses) + 1):
        assert (sum(losses[count - 2 : count]) >= sum(losses[count - 4 : count - 2])) == (count == len(losses))
    assert len(run(dataset, replace(RECIPE, iterations=5, image_learning_rate=STILL)).losses) == 5


@pytest.mark.parametrize("distance", ["squared-euclidean", "cosine"])
def test_the_rival_distances_are_matched_too(dataset, distance):
    recipe = replace(RECIPE, iterations=1, matching_steps=1, distance=distance)
    first = run(dataset, replace(recipe, image_learning_rate=STILL))
    made = run(dataset, recipe)
    assert not torch.equal(made.images, first.images)
    assert made.losses == first.losses != run(dataset, replace(recipe, distance="layerwise-cosine")).losses


@pytest.mark.parametrize("ipc", [1, 3, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_number_of_images_of_unequal_classes(ipc, channels):
    made = run(tiny_dataset((9, 5, 6), channels=channels), replace(RECIPE, ipc=ipc))
    assert made.images.shape == (3 * ipc, channels, 8, 8)
    assert made.labels.tolist() == [c for c in range(3) for _ in range(ipc)]


def test_images_too_small_for_the_network_are_an_error():
    with pytest.raises(InputError, match="4×4 pixels is too small for 3 poolings"):
        run(tiny_dataset(size=(4, 4)), replace(RECIPE, depth=3))


class Linear(nn.Sequential):
    """A linear classifier, of which the gradients are known in closed form, and a layer that it does not use."""

    def __init__(self, pixels, classes):
        super().__init__(nn.Flatten(), nn.Linear(pixels, classes))
        self.idle = nn.Linear(2, 2)
        self.fixed = nn.Parameter(torch.ones(3, 3), requires_grad=False)

    def forward(self, images):
        return self[1](self[0](images))


def linear_gradient(network, images, label):
    """Of the mean cross-entropy, image by image, in NumPy."""
    weight, bias = (p.detach().double().numpy() for p in network[1].parameters())
    slope, offset = np.zeros_like(weight), np.zeros_like(bias)
    for image in images.detach().double().numpy().reshape(len(images), -1):
        scores = np.exp(weight @ image + bias)
        error = scores / scores.sum() - (np.arange(len(bias)) == label)
        slope += np.outer(error, image) / len(images)
        offset += error / len(images)
    return slope, offset


def linear_loss(network, real, synthetic, label, distance):
    (slope, offset), (other, shift) = (linear_gradient(network, images, label) for images in (real, synthetic))
    if distance == "layerwise-cosine":
        return sum(1 - a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b) + 1e-6) for a, b in zip(slope, other, strict=True))
    a, b = np.concatenate([slope.ravel(), offset]), np.concatenate([other.ravel(), shift])
    if distance == "squared-euclidean":
        return sum((a - b) ** 2)
    return 1 - a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b) + 1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_matching_loss_and_its_gradient_are_the_closed_form(distance):
    torch.manual_seed(0)
    network = Linear(16, 3).double()
    real, synthetic = torch.randn(5, 1, 4, 4).double(), torch.randn(2, 1, 4, 4).double().requires_grad_()
    loss = matching_loss(network, real, synthetic, 1, distance=distance, precision="float32")
    assert loss.item() == pytest.approx(linear_loss(network, real, synthetic, 1, distance), rel=1e-5)
    loss.backward()

    def at(pixels):
        return linear_loss(network, real, pixels.view_as(synthetic), 1, distance)

    flat = synthetic.detach().flatten()
    steps = 1e-5 * torch.eye(len(flat), dtype=torch.float64)
    differences = torch.tensor([(at(flat + step) - at(flat - step)) / 2e-5 for step in steps]).double()
    torch.testing.assert_close(synthetic.grad.flatten(), differences, rtol=1e-4, atol=1e-6)


class Transformer(nn.Module):
    """Attention over patches by a layer of torch or by its function, computed again backward where that is asked."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv2d(1, 4, 2, 2)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True)
        self.classifier = nn.Linear(4, 3)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        if self.kind == "encoder":
            mixed = self.encoder(tokens)
        elif self.kind == "recomputed":
            mixed = checkpoint(self.attend, tokens, use_reentrant=False)
        else:
            mixed = self.attend(tokens)
        return self.classifier(mixed.mean(1))

    def attend(self, tokens):
        project = self.encoder.self_attn
        heads = F.linear(tokens, project.in_proj_weight, project.in_proj_bias).unflatten(-1, (3, 2, 2))
        return F.scaled_dot_product_attention(*heads.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kind", ["encoder", "function", "recomputed"])
@pytest.mark.parametrize("training", [True, False])
def test_images_are_moved_by_attention_as_differences_of_the_loss_say(kind, training):
    torch.manual_seed(0)
    network = Transformer(kind).double().train(training)
    real, synthetic = torch.randn(5, 1, 4, 4).double(), torch.randn(2, 1, 4, 4).double()
    recipe, label = MatchingRecipe(distance="squared-euclidean"), torch.tensor(1)
    material = Material(real, [torch.arange(5)], synthetic, torch.ones(2).long(), (), torch.Generator(), "float32")
    loss, slope = module._matching(network, material, recipe)(real, synthetic, label)

    def at(pixels):
        pixels = pixels.view_as(synthetic)
        return matching_loss(network, real, pixels, label, distance=recipe.distance, precision="float32").item()

    flat = synthetic.flatten()
    steps = 1e-5 * torch.eye(len(flat), dtype=torch.float64)
    differences = torch.tensor([(at(flat + step) - at(flat - step)) / 2e-5 for step in steps]).double()
    assert loss.item() == pytest.approx(at(flat))
    torch.testing.assert_close(slope.flatten(), differences, rtol=1e-5, atol=1e-8)


def test_a_network_without_a_gradient_to_match_is_an_error():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, images):
            return images.flatten(1)[:, :3] + self.bias

    images = torch.randn(2, 1, 4, 4)
    with pytest.raises(InputError, match="Offset has no layer whose gradient could be matched"):
        matching_loss(Offset(), images, images, 0, distance="layerwise-cosine", precision="float32")


def test_a_class_with_too_few_images_is_an_error(dataset):
    with pytest.raises(DatasetError, match="class 'class 1' has 5"):
        run(dataset, replace(RECIPE, ipc=6))


@pytest.mark.parametrize(("scale", "bounded"), [(100.0, True), (0.01, False)])
def test_a_network_of_a_space_moves_the_images_by_so_much_at_most(tmp_path, scale, bounded):
    recipe = MatchingRecipe(ipc=2, iterations=1, matching_steps=1, distance="squared-euclidean")
    recipe = replace(recipe, network=scaled_space(tmp_path, scale))
    dataset = tiny_dataset((7, 5), size=(8, 8))
    before = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    step = (run(dataset, replace(recipe, image_learning_rate=0.3)).images - before).square().mean().sqrt()
    if bounded:
        assert step.item() == pytest.approx(0.3 * LARGEST_STEP / 2, rel=1e-3)
    else:
        assert 0 < step < 0.03 * LARGEST_STEP / 2


def test_a_network_of_the_paper_moves_them_as_far_as_its_gradient_says():
    dataset = tiny_dataset((7, 5), size=(8, 8))
    recipe = MatchingRecipe(ipc=2, iterations=1, matching_steps=1, depth=3)  # each channel normalised over 2×2 pixels
    before = run(dataset, replace(recipe, image_learning_rate=STILL)).images
    step = (run(dataset, replace(recipe, image_learning_rate=0.3)).images - before).square().mean().sqrt()
    assert step > 0.3 * LARGEST_STEP


def test_only_losses_of_one_kind_of_network_are_doubted():
    said = RECIPE.doubt([3.0, 3.0, 4.0, 5.0])
    assert said is not None
    assert "did not fall, from 3 in the first iteration to 5 in the last" in said
    assert RECIPE.doubt([3.0, 3.0, 2.0, 1.0]) is None
    assert replace(RECIPE, network="space:convnet720").doubt([3.0, 3.0, 4.0, 5.0]) is None


def test_a_space_is_read_once(tmp_path):
    recipe = replace(RECIPE, network=scaled_space(tmp_path, 1.0))
    expected = run(tiny_dataset((7, 5), size=(8, 8)), recipe).images

    def remove(iteration: int, loss: float) -> None:
        (tmp_path / "scaled.py").unlink(missing_ok=True)

    assert torch.equal(run(tiny_dataset((7, 5), size=(8, 8)), recipe, on_iteration=remove).images, expected)


@pytest.mark.parametrize(
    "recipe",
    [RECIPE, replace(RECIPE, norm="batch"), SiameseRecipe(**SETTINGS, augmentation="color-flip")],
    ids=["instance", "batch", "augmented"],
)
def test_a_replayed_matching_condenses_as_the_matching_itself(monkeypatch, recipe):
    dataset = tiny_dataset((9, 5), channels=2)  # of the second class fewer are shown: a shape of its own
    recipe = replace(recipe, real_batch=7)
    expected, made, plainly = run(dataset, recipe), [], module._matching

    def recorded(network, material, recipe):
        made.append(Recorded(plainly(network, material, recipe), network, record=call_again))
        return made[-1]

    monkeypatch.setattr(module, "_matching", recorded)
    # The check of types, which only tests have, draws items of sequences by Python's random numbers.
    monkeypatch.setattr(recorded_module, "_host_state", lambda network: {})
    replayed = run(dataset, recipe)
    assert torch.equal(replayed.images, expected.images)
    assert replayed.losses == expected.losses
    assert [(one.reason, len(one._recordings)) for one in made] == [(None, 2)] * recipe.iterations
