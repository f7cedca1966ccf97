"""What a finalist takes images for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from nasproxy.datasets.decoding import EXTENSIONS, decode_image, strict_pillow
from nasproxy.datasets.image_folder import files_below
from nasproxy.errors import InputError
from nasproxy.finalists.load import Finalist

_AT_ONCE = 64
_NOT_FINITE = "is not finite for this image, though it is for others; the values of its pixels may be the cause"


@dataclass(frozen=True)
class Prediction:
    """The most probable class of an image.

    Args:
        file: the image.
        class_name: its name; empty for a file that has none.
        probability: by the softmax of the logits.
        failure: why the file has no class, or None.
        read: whether the file could be read.
    """

    file: Path
    class_name: str = ""
    probability: float = 0.0
    failure: str | None = None
    read: bool = True


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The images that ``paths`` mean: files as they are, of folders all images at any depth, by name, but the hidden.

    Raises:
        InputError: a folder holds none or cannot be read. That a file is missing shows when it is read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = [file for file in files_below(path) if file.suffix.lower() in EXTENSIONS]
        except OSError as error:
            raise InputError(
                f"{error.filename or path} cannot be read: {error.strerror or error}.", "Check that you may read it."
            ) from error
        if not inside:
            raise InputError(f"The folder {path} holds no images.", f"Images end in {', '.join(sorted(EXTENSIONS))}.")
        found += inside
    return found


def predict(finalist: Finalist, files: Sequence[Path]) -> Iterator[Prediction]:
    """The class of each file in turn; images are read, resized and normalised as those of the training were.

    Raises:
        RunError: the network cannot be built, or diverged in its training.
    """
    model, about = finalist.model(), finalist.description
    for start in range(0, len(files), _AT_ONCE):
        portion = files[start : start + _AT_ONCE]
        read = [_read(file, about.image_size, about.channels) for file in portion]
        images = [image for image in read if not isinstance(image, str)]
        rows: Iterator[tuple[float, int]] = iter(())
        if images:
            with torch.inference_mode():
                pixels = about.normalisation.apply(torch.from_numpy(np.stack(images)))
                shares, labels = model(pixels).float().softmax(1).max(1)
                if bool(shares.isnan().any()) and bool(model(finalist.images()).float().softmax(1).isnan().any()):
                    raise finalist.diverged()
            rows = iter(list(zip(shares.tolist(), labels.tolist(), strict=True)))
        for file, image in zip(portion, read, strict=True):
            if isinstance(image, str):
                yield Prediction(file, failure=image, read=False)
                continue
            share, label = next(rows)
            if math.isnan(share):
                yield Prediction(file, failure=f"the output of the network {about.id} {_NOT_FINITE}")
            else:
                yield Prediction(file, about.class_names[label], share)


def _read(file: Path, size: tuple[int, int], channels: int) -> UInt8[np.ndarray, "c h w"] | str:
    """The pixels, or why there are none."""
    try:
        with strict_pillow():
            return np.ascontiguousarray(decode_image(file, size, channels))
    except FileNotFoundError:
        return "there is no such file"
    except Exception as error:  # Pillow raises nearly anything for a broken file
        return next(iter(str(error).splitlines()), type(error).__name__)
