import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasproxy.cli.options import parse_image_size
from nasproxy.errors import InputError

sides = st.integers(1, 10**6)


def test_none_stays_none():
    assert parse_image_size(None) is None


@given(sides)
def test_one_number_is_a_square(side):
    assert parse_image_size(str(side)) == parse_image_size(f" {side}\n") == (side, side)


@given(sides, sides, st.sampled_from("x×"))
def test_two_numbers_are_height_and_width(height, width, cross):
    assert parse_image_size(f"{height}{cross}{width}") == (height, width)


@pytest.mark.parametrize(
    "text", ["", "0", "0x8", "8x0", "-8", "8x-8", "8 x 8", "8x", "x8", "8x8x8", "8.5", "1e3", "big", "8*8", "²"]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="--image-size") as caught:
        parse_image_size(text)
    assert repr(text) in caught.value.message
    assert "--image-size 32" in caught.value.hint


@given(st.text("0123456789x×.- \n²٣", max_size=6))
def test_no_text_gives_a_size_below_one(text):
    try:
        size = parse_image_size(text)
    except InputError:
        return
    assert size is not None
    assert min(size) >= 1
