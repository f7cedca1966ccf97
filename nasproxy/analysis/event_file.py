"""TensorBoard's event files."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nasproxy.optional import require


def check_tensorboard() -> None:
    """Makes sure that TensorBoard's event files can be written.

    Raises:
        MissingPackageError: the package is missing.
    """
    require("--tensorboard", "tensorboard")


class EventFile:
    """The curves of one training.

    Args:
        folder: to write; what an earlier invocation left there is replaced.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what TensorBoard imports warns of other things than ours
            from torch.utils.tensorboard import SummaryWriter

            self._writer: Any = SummaryWriter(str(folder))

    def add(self, epoch: int, figures: Mapping[str, float | None]) -> None:
        """Adds the figures of an epoch by the names of their curves; one that is None leaves a gap."""
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
