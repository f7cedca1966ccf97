"""Which augmentations a text and a dataset stand for."""

from __future__ import annotations

import pytest

from nasproxy.errors import InputError
from nasproxy.training.strategy import AUGMENTATIONS, parse_strategy, siamese_kinds, training_with


@pytest.mark.parametrize("name", ["digits", "mnist", "svhn", "usps", "my-Digits", "my_digit", "data/EMNIST", "mnist28"])
def test_digits_are_not_mirrored(name):
    assert parse_strategy("auto", name) == ("color", "crop", "cutout", "scale", "rotate")


@pytest.mark.parametrize(
    "name", ["cifar10", "cifar100", "fashion-mnist", "FashionMNIST", "birds", "digital-cameras", "prestidigitation"]
)
def test_other_things_are(name):
    assert parse_strategy("auto", name) == AUGMENTATIONS


def test_a_list_is_taken_at_its_word():
    assert parse_strategy("flip-crop", "digits") == ("flip", "crop")
    assert parse_strategy("none", "cifar10") == ()


@pytest.mark.parametrize(
    ("text", "hint"), [("colour", "Did you mean color?"), ("crop-flop", "Did you mean flip?"), ("", "Available: color")]
)
def test_an_unknown_word_is_an_error(text, hint):
    with pytest.raises(InputError, match="No augmentation is called") as caught:
        parse_strategy(text, "")
    assert hint in caught.value.hint


def test_a_training_names_them_behind_siamese():
    assert siamese_kinds("siamese") == AUGMENTATIONS
    assert (
        siamese_kinds("siamese", "digits")
        == siamese_kinds("siamese:auto", "digits")
        == parse_strategy("auto", "digits")
    )
    assert siamese_kinds("siamese:flip-crop", "digits") == ("flip", "crop")
    assert [siamese_kinds(text) for text in ("none", "crop", "siam")] == [None] * 3
    assert training_with(("flip", "crop")) == "siamese:flip-crop"
    assert training_with(()) == "none"
