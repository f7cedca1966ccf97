"""What is known of a trained network besides its weights: the ``config.json`` beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nasproxy.analysis.json_shape import ANY_OBJECT, EVERY, NUMBER, Shape, parse_object
from nasproxy.datasets.image_dataset import Normalisation
from nasproxy.spaces.space import Config

_SHAPE: Shape = {
    **dict.fromkeys(("id", "space", "dataset", "fingerprint"), (str,)),
    "config": ANY_OBJECT,
    "scores": {EVERY: NUMBER},
    "image_size": [(int,)],
    "channels": (int,),
    "class_names": [(str,)],
    "normalisation": {"mean": [(float, int)], "std": [(float, int)]},
    "versions": {EVERY: (str,)},
}


@dataclass(frozen=True)
class Description:
    """What whoever runs a network must know, and where it comes from.

    Args:
        id: the candidate's.
        space: name of the search space.
        config: the configuration it was built from.
        scores: what is known of its quality; fractions.
        dataset: name of what it was trained on.
        fingerprint: of that.
        image_size: (height, width) in pixels.
        channels: 1 for grayscale, 3 for colour.
        class_names: in the order of the logits.
        normalisation: of the pixels.
        versions: of the libraries that trained it.
    """

    id: str
    space: str
    config: Config
    scores: Mapping[str, float | int | None]
    dataset: str
    fingerprint: str
    image_size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    normalisation: Normalisation
    versions: Mapping[str, str]

    def of_entry(self, entry: Mapping[str, Any]) -> Description:
        """The same data's, of another of a search's finalists: ``entry`` is its entry in ``summary["top"]``."""
        scores = {name: entry[name] for name in ("proxy_accuracy", "whole_accuracy", "test_accuracy")}
        return replace(self, id=entry["id"], config=entry["config"], scores=scores)

    def as_json(self, parameters: int) -> dict[str, Any]:
        """The content of ``config.json``; scores that are not finite are null.

        Args:
            parameters: numbers that the network has.
        """
        return {
            "schema": 1,
            "id": self.id,
            "space": self.space,
            "config": self.config,
            "scores": {n: value if value is None or math.isfinite(value) else None for n, value in self.scores.items()},
            "parameters": parameters,
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "image_size": self.image_size,
            "channels": self.channels,
            "class_names": self.class_names,
            "normalisation": {"mean": self.normalisation.mean, "std": self.normalisation.std},
            "versions": dict(self.versions),
        }

    def text(self, parameters: int) -> str:
        """``config.json`` itself."""
        return json.dumps(self.as_json(parameters), indent=2) + "\n"


def parse_description(text: str) -> Description:
    """Reads ``config.json``.

    Raises:
        ValueError: it is truncated, or not what nasproxy writes; the message says where.
    """
    found = parse_object(text, _SHAPE)
    size, channels, names = found["image_size"], found["channels"], found["class_names"]
    mean, std = (tuple(map(float, found["normalisation"][name])) for name in ("mean", "std"))
    if len(size) != 2 or min(size) < 1 or channels not in (1, 3) or not len(mean) == len(std) == channels or not names:
        raise ValueError("its image size, channels, normalisation and classes do not belong together")
    return Description(
        found["id"],
        found["space"],
        found["config"],
        found["scores"],
        found["dataset"],
        found["fingerprint"],
        (size[0], size[1]),
        channels,
        tuple(names),
        Normalisation(mean, std),
        found["versions"],
    )
