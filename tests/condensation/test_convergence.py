"""The rule that ends a condensation early."""

from __future__ import annotations

import pytest

from nasproxy.condensation.convergence import has_converged


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
