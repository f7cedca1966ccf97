"""The ConvNets of the paper's search space that two cores can train on the whole data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nasproxy.search_spaces.convnet720 import ConvNet720  # type: ignore[import-not-found]  # setuptools puts it there

from nasproxy.spaces.space import Scalar


class NarrowConvNets(ConvNet720):  # type: ignore[misc]
    """The 540 of at most 128 filters."""

    name = "convnet720-to-128"
    choices: Mapping[str, Sequence[Scalar]] = {**ConvNet720.choices, "width": (32, 64, 128)}
