"""TensorBoard's event files."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from nasproxy.optional import require

Figures = tuple[float | None, float | None]
"""Mean cross-entropy in nats and accuracy."""


def check_tensorboard() -> None:
    """Makes sure that TensorBoard's event files can be written.

    Raises:
        MissingPackageError: the package is missing.
    """
    require("--tensorboard", "tensorboard")


class EventFile:
    """The curves of one training, and the configuration of the network, by which TensorBoard sorts and filters.

    Args:
        folder: to write; what an earlier invocation left there is replaced.
        config: the network's.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what TensorBoard imports warns of other things than ours
            from torch.utils.tensorboard import SummaryWriter
            from torch.utils.tensorboard.summary import hparams

            self._writer = cast("Any", SummaryWriter(str(folder)))
        # Not the first, which would name the choices of all networks: TensorBoard gathers them from the files.
        _, start, self._end = hparams({name: _shown(value) for name, value in config.items()}, {})
        self._writer.file_writer.add_summary(start)

    def add(
        self, epoch: int, train: Figures, validation: Figures, learning_rate: float, at: float | None = None
    ) -> None:
        """Adds the figures of an epoch; one that is None leaves a gap.

        Curves have the same names whichever command trains, so that they can be laid over each other.

        Args:
            epoch: its number.
            train: of the training images.
            validation: of the validation images.
            learning_rate: in it.
            at: when it ended, in seconds since 1970; None is now.
        """
        figures = {
            "loss/train": train[0],
            "loss/validation": validation[0],
            "accuracy/train": train[1],
            "accuracy/validation": validation[1],
            "schedule/learning rate": learning_rate,
        }
        for name, value in figures.items():
            if value is not None:
                self._writer.add_scalar(name, value, epoch, at)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.file_writer.add_summary(self._end)
        self._writer.close()


def _shown(value: Any) -> Any:
    return "none" if value is None else value  # which TensorBoard would leave out
