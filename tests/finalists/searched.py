"""What a small search on a folder of images is given, and what it leaves."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_search import SPACE

# Dropout and batch statistics: what a resumed training must not lose.
NETS = SPACE.replace("nn.LazyLinear(num_classes)", "nn.LazyBatchNorm1d(), nn.Dropout(0.3), nn.LazyLinear(num_classes)")
CLASSES = ("a|cat", "dog <b>")


@dataclass(frozen=True)
class Searched:
    """A finished search and what it was given."""

    run: Path
    photos: Path
    space: Path

    def copy(self, folder: Path) -> Searched:
        """The same in another folder, to be spoilt."""
        shutil.copytree(self.run, folder / "run")
        shutil.copytree(self.photos, folder / "photos")
        return Searched(folder / "run", folder / "photos", self.space)

    def winner(self) -> str:
        """Its id."""
        return str(json.loads((self.run / "summary.json").read_text())["winner"]["id"])

    def scale_weights(self, factor: float, repeat: int = 0) -> None:
        """Multiplies what the winner learnt."""
        file = self.run / "finalists" / f"{self.winner()}-{repeat}.safetensors"
        kept = load_file(file)
        save_file({n: value * factor if value.is_floating_point() else value for n, value in kept.items()}, file)


def write_photos(folder: Path, count: int = 20) -> Path:
    """Noise, brighter for the second class, in files of two sizes."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            side = 8 if number % 3 else 12
            pixels = generator.integers(60 * label, 200 + 50 * label, (side, side), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder
