"""Transformations against torchvision's where those agree, against loops where they do not, and what is drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from nasproxy.training.strategy import AUGMENTATIONS
from nasproxy.training.transforms import color, cut_out, draw_transform, mirror, rotate, scale, shift

SIZES = [(8, 8), (7, 12), (13, 6)]
BILINEAR = InterpolationMode.BILINEAR


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(size=(8, 8), channels=3, count=2, seed=0):
    return torch.rand(count, channels, *size, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("degrees", [-15.0, 4.0, 90.0])
def test_rotation_is_torchvisions(size, degrees):
    images = batch(size)
    expected = tv.rotate(images, degrees, interpolation=BILINEAR)
    torch.testing.assert_close(rotate(images, degrees=degrees), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [1 / 1.2, 1.0, 1.1])
def test_even_scaling_is_torchvisions(size, factor):
    images = batch(size)
    expected = tv.affine(images, 0.0, [0, 0], factor, [0.0], interpolation=BILINEAR)
    torch.testing.assert_close(scale(images, vertical=factor, horizontal=factor), expected, rtol=0, atol=1e-6)


def test_each_direction_is_scaled_by_its_own_factor():
    ramp = torch.linspace(-1, 1, 9).expand(1, 1, 9, 9)  # grows to the right alone
    assert torch.allclose(scale(ramp, vertical=1.2, horizontal=1.0), ramp, atol=1e-6)
    assert torch.allclose(scale(ramp, vertical=1.0, horizontal=2.0), ramp / 2, atol=1e-6)
    assert torch.allclose(scale(ramp.mT, vertical=2.0, horizontal=1.0), ramp.mT / 2, atol=1e-6)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 0), (1, 2)])
def test_a_shift_is_torchvisions_translation(down, right):
    images = batch((7, 6))
    expected = tv.affine(images, 0.0, [right, down], 1.0, [0.0])
    assert torch.equal(shift(images, down=down, right=right), expected)


def test_a_mirror_is_torchvisions_flip():
    assert torch.equal(mirror(batch((7, 6))), tv.hflip(batch((7, 6))))


def test_a_cutout_is_torchvisions_erasure():
    images = batch((7, 6))
    assert torch.equal(cut_out(images, rows=(2, 5), columns=(1, 3)), tv.erase(images, 2, 1, 3, 2, torch.tensor(0.0)))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([1, 3]), st.floats(-0.5, 0.5), st.floats(0.0, 2.0), st.floats(0.5, 1.5), st.integers(0, 99))
def test_color_equals_the_loops(channels, brightness, saturation, contrast, seed):
    images = batch((3, 4), channels, seed=seed)
    results = color(images, brightness=brightness, saturation=saturation, contrast=contrast)
    for image, result in zip(images.numpy(), results.numpy(), strict=True):
        image = image + brightness
        for row, column in np.ndindex(3, 4):
            gray = sum(image[:, row, column]) / channels
            for channel in range(channels):
                image[channel, row, column] = gray + saturation * (image[channel, row, column] - gray)
        mean = image.sum() / image.size
        np.testing.assert_allclose(result, mean + contrast * (image - mean), rtol=0, atol=1e-12)


def test_contrast_of_gray_images_is_torchvisions():
    images = batch(channels=1)
    expected = tv.adjust_contrast(images, 0.7)  # below 1, where torchvision's clipping does nothing
    torch.testing.assert_close(color(images, brightness=0.0, saturation=1.0, contrast=0.7), expected)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_one_draw_treats_every_image_of_every_batch_alike(kind, size):
    transform = draw_transform((kind,), size, generator(3))
    images, others = batch(size, count=3), batch(size, count=2, seed=1)
    together = transform(torch.cat([images, others]))
    for one, alone in zip(together, [*images, *others], strict=True):
        torch.testing.assert_close(one, transform(alone[None])[0], rtol=0, atol=1e-12)
    assert together.shape == (5, 3, *size)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_a_draw_for_each_image_treats_it_as_it_would_be_by_itself(kind, size):
    transform = draw_transform((kind,), size, generator(3), count=20)
    images = batch(size, count=1).expand(20, 3, *size)
    together = transform(images)
    for position, one in enumerate(together):
        mine = {
            name: tuple(part[position] for part in value) if isinstance(value, tuple) else value[position]
            for name, value in transform.keywords.items()
        }
        torch.testing.assert_close(one, transform.func(images[:1], **mine)[0], rtol=0, atol=1e-12)
    assert len({one.numpy().tobytes() for one in together}) > (1 if kind == "flip" else 5)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_gradient_agrees_with_finite_differences(kind):
    transform = draw_transform((kind,), (4, 5), generator(1))
    images = batch((4, 5)).requires_grad_()
    assert torch.autograd.gradcheck(transform, images)
    (slope,) = torch.autograd.grad(transform(images).square().sum(), images)
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_generator_alone_decides(kind):
    images, draws = batch(), [generator(5), generator(5)]
    for _ in range(4):
        torch.manual_seed(torch.seed())
        one, again = (draw_transform((kind,), (8, 8), source)(images) for source in draws)
        assert torch.equal(one, again)
    results = {draw_transform((kind,), (8, 8), generator(seed))(images).numpy().tobytes() for seed in range(12)}
    assert len(results) > 1


def test_each_kind_is_drawn_as_often():
    source = generator()
    drawn = Counter(
        transform.func.__name__ for transform in (draw_transform(AUGMENTATIONS, (8, 8), source) for _ in range(1200))
    )
    for name in ("color", "shift", "cut_out", "mirror", "scale", "rotate"):
        assert drawn[name] == pytest.approx(200, abs=60)


def test_half_of_the_flips_are_flips():
    source, images = generator(), batch((7, 6))
    flipped = [not torch.equal(draw_transform(("flip",), (7, 6), source)(images), images) for _ in range(200)]
    assert sum(flipped) == pytest.approx(100, abs=45)
    chosen = draw_transform(("flip",), (7, 6), source, count=200).keywords["chosen"]
    assert int(chosen.sum()) == pytest.approx(100, abs=45)


def test_parameters_stay_within_the_published_ranges():
    source = generator()
    drawn = {kind: [draw_transform((kind,), (16, 32), source) for _ in range(300)] for kind in AUGMENTATIONS}

    def values_of(kind, name):
        found = [transform.keywords[name] for transform in drawn[kind]]
        return [tuple(map(int, value)) if isinstance(value, tuple) else value.item() for value in found]

    def span(kind, name):
        return min(values_of(kind, name)), max(values_of(kind, name))

    assert span("color", "brightness") == pytest.approx((-0.5, 0.5), abs=0.02)
    assert span("color", "saturation") == pytest.approx((0, 2), abs=0.05)
    assert span("color", "contrast") == pytest.approx((0.5, 1.5), abs=0.02)
    assert (span("crop", "down"), span("crop", "right")) == ((-2, 2), (-4, 4))
    assert span("scale", "vertical") == pytest.approx((1 / 1.2, 1.2), abs=0.01)
    assert span("rotate", "degrees") == pytest.approx((-15, 15), abs=0.5)
    for side, name, half in ((16, "rows", 8), (32, "columns", 16)):
        lengths = [last - first for first, last in values_of("cutout", name)]
        assert max(lengths) == half
        assert min(lengths) >= half // 2
        assert span("cutout", name)[0][0] == 0
        assert max(last for _, last in values_of("cutout", name)) == side


@pytest.mark.parametrize(("side", "reach"), [(3, 0), (4, 1), (12, 2), (20, 3), (28, 4), (32, 4)])
def test_a_crop_moves_by_an_eighth_rounded_half_up(side, reach):
    drawn = draw_transform(("crop",), (side, 32), generator(), count=500).keywords
    assert Counter(drawn["down"].tolist()).keys() == set(range(-reach, reach + 1))
    assert Counter(drawn["right"].tolist()).keys() == set(range(-4, 5))


@pytest.mark.parametrize(
    ("side", "spans"),
    [
        (5, [(0, 2), (0, 3), (1, 4), (2, 5), (3, 5)]),
        (6, [(0, 2), (0, 3), (1, 4), (2, 5), (3, 6), (4, 6)]),
        (8, [(0, 2), (0, 3), (0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 8), (6, 8)]),
    ],
)
def test_cutouts_of_even_length_are_centred_from_edge_to_edge_and_of_odd_length_on_a_pixel(side, spans):
    draws = 900
    drawn = draw_transform(("cutout",), (8, side), generator(), count=draws).keywords["columns"]
    found = Counter(zip(*(part.tolist() for part in drawn), strict=True))
    assert sorted(found) == spans
    for count in found.values():  # each as likely; some four standard deviations
        assert count == pytest.approx(draws / len(spans), abs=4 * (draws / len(spans)) ** 0.5)


def test_what_is_seen_of_a_side_is_uniform_and_not_the_magnification():
    drawn = draw_transform(("scale",), (8, 8), generator(), count=20_000).keywords
    for name in ("vertical", "horizontal"):
        seen = 1 / drawn[name]
        for part in (0.1, 0.5, 0.9):
            assert seen.quantile(part).item() == pytest.approx(1 / 1.2 + part * (1.2 - 1 / 1.2), abs=0.006)
    assert np.corrcoef(drawn["vertical"], drawn["horizontal"])[0, 1] == pytest.approx(0, abs=0.04)


def test_nothing_is_drawn_where_nothing_is_asked():
    source, images = generator(), batch()
    before = source.get_state()
    assert draw_transform((), (8, 8), source)(images) is images
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_single_pixel_and_another_device_are_no_trouble(kind):
    for seed in range(3):
        assert draw_transform((kind,), (1, 1), generator(seed))(torch.ones(2, 1, 1, 1)).shape == (2, 1, 1, 1)
        moved = draw_transform((kind,), (4, 6), generator(seed))(torch.empty(2, 3, 4, 6, device="meta"))
        assert (moved.device.type, moved.shape) == ("meta", (2, 3, 4, 6))
