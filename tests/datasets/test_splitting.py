from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasproxy.datasets.image_dataset import Split
from nasproxy.datasets.splitting import class_quotas, hold_out, validation_size


def numbered_split(counts: list[int]) -> Split:
    """Images that all differ: the number of each is written into its pixels."""
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    number = torch.arange(len(labels))
    images = torch.stack([number // 256, number % 256], dim=1).to(torch.uint8).view(-1, 1, 1, 2)
    return Split(images, labels)


def numbers(split: Split) -> list[int]:
    high, low = split.images.flatten(1).long().unbind(1)
    return (high * 256 + low).tolist()


counts_strategy = st.lists(st.integers(3, 60), min_size=2, max_size=8)


@given(counts_strategy, st.floats(0.0, 1 / 3))
def test_quotas_follow_shares(counts: list[int], fraction: float) -> None:
    size = int(fraction * sum(counts))
    quotas = class_quotas(counts, size)
    shares = [size * count / sum(counts) for count in counts]
    for quota, share, count in zip(quotas, shares, counts, strict=True):
        assert 1 <= quota <= count - 1
        assert quota == 1 or abs(quota - share) < 1
    # Small classes' single images may add to the total, nothing may be missing from it.
    assert sum(quotas) == max(size, sum(max(1, int(share)) for share in shares))


def test_quotas_of_large_remainders_are_rounded_up() -> None:
    # Shares 2.9, 2.9 and 4.2: the two largest remainders get the two images that rounding down leaves.
    assert class_quotas([29, 29, 42], 10) == [3, 3, 4]


def test_quotas_leave_one_image_of_each_class() -> None:
    assert class_quotas([3, 3, 90], 96) == [2, 2, 89]
    assert class_quotas([2, 2], 4) == [1, 1]


@settings(max_examples=40)
@given(counts_strategy, st.integers(1, 50))
def test_parts_partition_the_images(counts: list[int], size: int) -> None:
    split = numbered_split(counts)
    rest, held = hold_out(split, min(size, len(split) // 3), len(counts))
    assert sorted(numbers(rest) + numbers(held)) == list(range(len(split)))
    for part in (rest, held):
        assert numbers(part) == sorted(numbers(part)), "images keep their order"
        assert torch.equal(part.labels, split.labels[numbers(part)]), "images keep their labels"
        assert set(part.labels.tolist()) == set(range(len(counts))), "no class is empty"


@settings(max_examples=40)
@given(counts_strategy, st.integers(1, 50), st.randoms(use_true_random=False))
def test_order_of_images_does_not_matter(counts: list[int], size: int, random: object) -> None:
    split = numbered_split(counts)
    order = list(range(len(split)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = Split(split.images[order], split.labels[order])
    size = min(size, len(split) // 3)
    held, held_shuffled = (hold_out(s, size, len(counts))[1] for s in (split, shuffled))
    assert sorted(numbers(held)) == sorted(numbers(held_shuffled))


def test_random_state_does_not_matter() -> None:
    split = numbered_split([50, 30, 20])
    torch.manual_seed(0)
    first = hold_out(split, 20, 3)[1]
    torch.manual_seed(1)
    assert numbers(hold_out(split, 20, 3)[1]) == numbers(first)


def test_held_out_images_are_not_simply_the_first() -> None:
    held = numbers(hold_out(numbered_split([300, 300]), 200, 2)[1])
    # Uniform draws of 100 out of 0..299 have a mean near 149.5 (deviation about 7).
    assert 120 < sum(held[:100]) / 100 < 180


def test_one_image_more_moves_few_others() -> None:
    small, large = numbered_split([100, 100]), numbered_split([100, 101])
    moved = set(numbers(hold_out(small, 20, 2)[1])) ^ set(numbers(hold_out(large, 20, 2)[1]))
    assert len(moved) <= 4


def test_validation_sizes() -> None:
    assert validation_size(50_000) == 5_000  # CIFAR-10 as in the paper
    assert validation_size(1_438) == 400  # a tenth would be 144
    assert validation_size(600) == 200  # never more than a third
