"""The rule that ends a condensation early."""

from __future__ import annotations

import pytest

from nasproxy.condensation.convergence import has_converged, has_not_fallen


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([5, 4, 3, 2], 2, False),
        ([4, 4, 4, 4], 2, True),
        ([1, 5, 4, 3], 2, True),  # 3 and 3.5: higher, though the last is lower than the one before
        ([9, 9, 1, 5, 4, 3], 2, True),  # only the last four count
        ([3, 3, 3], 2, False),  # too few to tell
        ([3, 3], 1, True),
        ([3, 2], 1, False),
        ([4, 4, 4, 4], 0, False),
        ([], 0, False),
        ([], 1, False),
    ],
)
def test_means_of_neighbouring_windows_are_compared(losses, patience, expected):
    assert has_converged([float(loss) for loss in losses], patience) is expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([4, 4, 4, 4], True),
        ([4, 9, 9, 3], False),
        ([3, 5, 0, 0, 0, 0, 1, 6], False),  # 4 and 3.5, though the last is above the first
        ([3, 4, 0, 0, 0, 0, 6, 1], True),  # 3.5 both
        ([3, 4, 5], False),  # too few to tell
        ([], False),
    ],
)
def test_the_last_quarter_is_compared_with_the_first(losses, expected):
    assert has_not_fallen([float(loss) for loss in losses]) is expected
