"""A test kit for search spaces and proxies of one's own: subclass a class of tests, say what to test, run pytest.

Nothing here imports pytest: the classes hold plain ``test_`` methods, which pytest collects from any class whose name
begins with ``Test``.

Example:
    >>> from nasproxy.testing import SpaceTests
    >>> class TestMySpace(SpaceTests):  # in test_my_space.py
    ...     spec = "my_space.py"
"""

from nasproxy.testing.data import tiny_dataset, with_other_held_out_images
from nasproxy.testing.methods import ProxyMethodTests
from nasproxy.testing.scores import CandidateScoreTests
from nasproxy.testing.spaces import SpaceTests

__all__ = [
    "CandidateScoreTests",
    "ProxyMethodTests",
    "SpaceTests",
    "tiny_dataset",
    "with_other_held_out_images",
]
