"""Crops against every translation written out, flips against their mirror images; test_transforms has the others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.training.augmentation import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shifted(image, down, right):
    """``image`` moved by so many pixels; zeros move in."""
    _, height, width = image.shape
    moved = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                moved[:, y, x] = image[:, y - down, x - right]
    return moved


def found(image, result, reach_y, reach_x):
    """Which shifts turn ``image`` into ``result``."""
    return [
        (down, right)
        for down in range(-reach_y, reach_y + 1)
        for right in range(-reach_x, reach_x + 1)
        if torch.equal(shifted(image, down, right), result)
    ]


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 11), st.integers(2, 11), st.integers(1, 3), st.integers(0, 1000))
def test_a_crop_is_a_shift_by_at_most_an_eighth_and_at_least_one_pixel(height, width, channels, seed):
    images = 1 + torch.rand(4, channels, height, width, generator=generator(seed))
    results = augment(images, "crop", generator(seed))
    assert results.shape == images.shape
    assert results.dtype == images.dtype
    for image, result in zip(images, results, strict=True):
        assert len(found(image, result, max(1, height // 8), max(1, width // 8))) == 1


def test_a_batch_meets_every_shift_and_no_image_the_fate_of_its_neighbours():
    image = 1 + torch.rand(1, 8, 8, generator=generator())
    results = augment(image.expand(300, 1, 8, 8), "crop", generator())
    shifts = [found(image, result, 1, 1)[0] for result in results]
    assert set(shifts) == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert max(shifts.count(shift) for shift in set(shifts)) < 70  # 33 expected


def test_at_32_pixels_the_reach_is_the_usual_four():
    image = 1 + torch.rand(1, 32, 32, generator=generator())
    results = augment(image.expand(400, 1, 32, 32), "crop", generator())
    zero_rows = [(result == 0).all(2).flatten() for result in results]
    zero_columns = [(result == 0).all(1).flatten() for result in results]
    assert max(int(rows.sum()) for rows in zero_rows) == max(int(columns.sum()) for columns in zero_columns) == 4


def test_half_of_the_images_are_mirrored_if_asked():
    image = 1 + torch.rand(2, 8, 8, generator=generator())
    results = augment(image.expand(400, 2, 8, 8), "crop-flip", generator())
    straight = [bool(found(image, result, 1, 1)) for result in results]
    mirrored = [bool(found(image.flip(2), result, 1, 1)) for result in results]
    assert all(one != other for one, other in zip(straight, mirrored, strict=True))
    assert 150 < sum(mirrored) < 250


def test_siamese_draws_one_kind_for_a_batch_and_its_parameters_for_each_image():
    image, source = 1 + torch.rand(1, 8, 8, generator=generator()), generator()
    images, met = image.expand(24, 1, 8, 8), set()
    for _ in range(40):
        results = augment(images, "siamese:flip-crop", source)
        mirrors = [torch.equal(result, image.flip(2)) for result in results]
        flips = any(mirrors)
        met.add("flip" if flips else "crop")
        if flips:
            assert all(one or torch.equal(result, image) for one, result in zip(mirrors, results, strict=True))
            assert 3 < sum(mirrors) < 21
        else:
            shifts = [found(image, result, 1, 1) for result in results]
            assert all(shifts)
            assert len(set(map(tuple, shifts))) > 4  # of 9
        if len(met) == 2:
            return
    raise AssertionError(met)


def test_siamese_without_kinds_is_of_all_of_them():
    images = torch.rand(16, 1, 8, 8)
    for seed in range(12):
        every = augment(images, "siamese:color-crop-cutout-flip-scale-rotate", generator(seed))
        assert torch.equal(augment(images, "siamese", generator(seed)), every)
    assert augment(images, "siamese:none", generator()) is images


def test_nothing_is_done_if_nothing_is_asked():
    images = torch.rand(2, 1, 4, 4)
    source = generator()
    before = source.get_state()
    assert augment(images, "none", source) is images
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("kind", ["crop", "crop-flip", "siamese"])
def test_the_generator_alone_decides(kind):
    images = torch.rand(16, 1, 8, 8)
    torch.manual_seed(0)
    one = augment(images, kind, generator(1))
    torch.manual_seed(1)
    assert torch.equal(one, augment(images, kind, generator(1)))
    assert not torch.equal(one, augment(images, kind, generator(2)))


@pytest.mark.parametrize("kind", ["crop", "crop-flip", "siamese"])
def test_images_stay_on_their_device_while_the_generator_is_on_the_cpu(kind):
    results = augment(torch.empty(3, 2, 8, 6, device="meta"), kind, generator())
    assert results.device.type == "meta"
    assert results.shape == (3, 2, 8, 6)
