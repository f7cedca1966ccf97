"""Soft labels: what they are, that they stay with their images, and that sets with and without are never mixed up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset

from nasproxy.condensation.course import Course
from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.herding import Herding
from nasproxy.coresets.random import RandomImages
from nasproxy.coresets.whole_training import WholeRecipe, trained_on_whole
from nasproxy.errors import CheckpointError, ProxyError
from nasproxy.proxies.make import make_proxy, open_checkpoints, random_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.proxies.soft_labels import Teacher, softness, teacher_seconds

CONDENSED = MatchingRecipe(ipc=2, iterations=2, matching_steps=1, width=4, depth=1)
RECIPE = WholeRecipe(epochs=2, width=4, depth=1)
WHERE = {"seed": 0, "device": torch.device("cpu"), "precision": "float32"}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("nasproxy.condensation.evaluation.Evaluation.epochs", 1)


@pytest.fixture(scope="module")
def dataset():
    return tiny_dataset((7, 5))


@pytest.fixture
def teacher(dataset):
    return Teacher.of(dataset, RECIPE, **WHERE)


def make(dataset, method=CONDENSED, **more):
    return make_proxy(dataset, method, **WHERE, **more)


def test_they_are_the_probabilities_of_the_network_that_coresets_are_chosen_by(dataset, teacher):
    proxy = make(dataset, RandomImages(5), teacher=teacher)
    network = trained_on_whole(dataset, RECIPE, **WHERE).network.double()
    with torch.no_grad():
        logits = [network(image[None].double())[0] for image in proxy.images]
    expected = torch.stack([row.exp() / row.exp().sum() for row in logits])
    assert torch.allclose(proxy.soft_labels.double(), expected, atol=1e-5)
    assert torch.equal(proxy.labels, random_proxy(dataset, 5, seed=0).labels)
    assert proxy.seconds == pytest.approx(teacher.training.seconds)


def test_any_number_of_images_is_labelled_alike(dataset, teacher):
    images = dataset.normalisation.apply(dataset.train.images).repeat(40, 1, 1, 1)
    assert torch.allclose(teacher.soft_labels(images)[-12:], teacher.soft_labels(images[-12:]), atol=1e-6)


@pytest.mark.parametrize("soft_first", [True, False])
def test_a_cache_never_mixes_up_sets_with_and_without(dataset, teacher, soft_first):
    made = {}
    for soft in (soft_first, not soft_first, soft_first):
        course = Course(evaluate_every=2)  # what is measured on the way depends on the labels, too
        proxy = make(dataset, teacher=teacher if soft else None, course=course)
        assert (proxy.soft_labels is not None) == soft
        assert ("soft_labels" in proxy.recipe) == soft
        made.setdefault(soft, proxy)
        assert not made[soft].evaluations or proxy.evaluations in ((), made[soft].evaluations)
    assert torch.equal(made[True].images, made[False].images)  # which are condensed once
    assert {**made[False].recipe, "soft_labels": teacher.facts} == made[True].recipe
    second = make(dataset, teacher=None if soft_first else teacher)
    assert second.evaluations == ()


def test_another_teacher_is_another_set(dataset, teacher):
    other = Teacher.of(dataset, replace(RECIPE, epochs=3), **WHERE)
    sets = [make(dataset, RandomImages(2), teacher=one) for one in (teacher, other)]
    assert sets[0].recipe != sets[1].recipe
    assert not torch.equal(sets[0].soft_labels, sets[1].soft_labels)


def test_the_evaluating_network_aims_at_them(dataset, teacher, monkeypatch):
    seen = []

    def accuracy(_, images, labels, soft_labels=None):
        seen.append((images.detach().clone(), soft_labels))
        return 0.5

    monkeypatch.setattr("nasproxy.condensation.evaluation.Evaluation.accuracy", accuracy)
    proxy = make(dataset, teacher=teacher, use_cache=False, course=Course(evaluate_every=1))
    assert proxy.evaluations == ((1, 0.5), (2, 0.5))
    for images, soft_labels in seen:
        assert torch.equal(soft_labels, teacher.soft_labels(images))
    assert torch.equal(seen[-1][1], proxy.soft_labels)


def test_a_condensation_is_not_gone_on_with_under_other_labels(dataset, teacher, tmp_path):
    def stopped(teacher):
        kept = open_checkpoints(tmp_path / "state", dataset, CONDENSED, **WHERE, every=0.0, teacher=teacher.facts)
        return kept, make(dataset, teacher=teacher, use_cache=False, course=Course(kept, None, lambda: True))

    _, proxy = stopped(teacher)
    assert not proxy.finished
    assert len(proxy.soft_labels) == 4
    with pytest.raises(CheckpointError, match="soft_labels was"):
        open_checkpoints(tmp_path / "state", dataset, CONDENSED, **WHERE).load()
    assert open_checkpoints(tmp_path / "state", dataset, CONDENSED, **WHERE, teacher=teacher.facts).load() is not None


def test_a_coresets_own_training_counts_once(dataset, teacher):
    herding = Herding(ipc=2, epochs=2, width=4, depth=1)
    soft, hard = (make(dataset, herding, teacher=one) for one in (teacher, None))
    assert soft.seconds == hard.seconds
    other = Herding(ipc=2, epochs=1, width=4, depth=1)
    alone = make(dataset, other).seconds
    assert make(dataset, other, teacher=teacher).seconds == pytest.approx(alone + teacher.training.seconds)


def test_what_a_teacher_will_cost(dataset):
    assert teacher_seconds(dataset, RECIPE, RandomImages(2), **WHERE) > 0
    assert teacher_seconds(dataset, RECIPE, Herding(ipc=2, epochs=2, width=4, depth=1), **WHERE) == 0
    Teacher.of(dataset, RECIPE, **WHERE)
    assert teacher_seconds(dataset, RECIPE, RandomImages(2), **WHERE) == 0


def test_images_of_another_dataset_are_refused(dataset, teacher):
    with pytest.raises(ProxyError, match="3 classes, the dataset tiny has 2"):
        teacher.label(random_proxy(tiny_dataset((7, 5, 4)), 2, seed=0))
    with pytest.raises(ProxyError, match="fingerprint"):
        teacher.label(random_proxy(tiny_dataset((7, 5), seed=1), 2, seed=0))


def test_the_file_holds_them(dataset, teacher, tmp_path):
    proxy = make(dataset, teacher=teacher)
    found = load_proxy(save_proxy(proxy, tmp_path / "p.safetensors"))
    assert torch.equal(found.soft_labels, proxy.soft_labels)
    assert torch.equal(found.labels, proxy.labels)
    assert found.recipe == proxy.recipe
    assert load_proxy(save_proxy(make(dataset), tmp_path / "q.safetensors")).soft_labels is None


@pytest.mark.parametrize(
    ("soft_labels", "said"),
    [
        (torch.full((4, 3), 1 / 3), r"\(4, 3\), expected float32 \(4, 2\)"),
        (torch.full((3, 2), 0.5), r"\(3, 2\), expected"),
        (torch.full((4, 2), 0.5, dtype=torch.float64), "float64"),
        (torch.full((4, 2), 0.6), "no probabilities"),
        (torch.tensor([[1.5, -0.5]] * 4), "no probabilities"),
        (torch.full((4, 2), torch.nan), "no probabilities"),
    ],
)
def test_a_file_of_other_classes_or_no_probabilities_is_refused(dataset, tmp_path, soft_labels, said):
    good = save_proxy(random_proxy(dataset, 2, seed=0), tmp_path / "good.safetensors")
    with safe_open(good, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(good) | {"soft_labels": soft_labels}, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(ProxyError, match=said):
        load_proxy(tmp_path / "bad.safetensors")


def test_how_soft_they_are(dataset):
    proxy = random_proxy(dataset, 1, seed=0)
    assert softness(proxy) is None
    given = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    found = softness(replace(proxy, soft_labels=given, labels=torch.tensor([0, 1])))
    assert found == {"entropy": pytest.approx(0.5 * 0.6931472), "agreement": 0.5}
