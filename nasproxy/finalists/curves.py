"""The course of a training for the eye: CSV, a figure, TensorBoard's curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nasproxy.analysis.canvas import BLUE, STYLE, VERMILLION, in_percent
from nasproxy.analysis.event_file import EventFile
from nasproxy.files import csv_text
from nasproxy.finalists.checkpoint import Epoch


def curves_csv(history: Sequence[Epoch]) -> bytes:
    """A row for each epoch; what it has no figure for is empty."""
    return csv_text([[field.name for field in fields(Epoch)], *map(astuple, history)]).encode()


def curves_figure(history: Sequence[Epoch], best: int | None) -> Figure:
    """Cross-entropy and accuracy against the epoch, of the training and the validation images.

    Args:
        history: the epochs.
        best: number of the one whose weights are kept; None for none.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.4), dpi=200, layout="constrained")
        for axes, kind, label in zip(
            figure.subplots(1, 2), ("loss", "accuracy"), ("cross-entropy (nats)", "accuracy (%)"), strict=True
        ):
            for part, title, color in (("train", "training images", BLUE), ("validation", "validation", VERMILLION)):
                points = [
                    (epoch.epoch, value) for epoch in history if (value := getattr(epoch, f"{part}_{kind}")) is not None
                ]
                axes.plot(*zip(*points, strict=True), color=color, marker=".", label=title) if points else None
            if best is not None:
                axes.axvline(best, color="#666666", linewidth=0.8, linestyle=":", label="weights kept as best")
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(visible=True)
        in_percent(axes, "y")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return figure


def add_epoch(events: EventFile, epoch: Epoch, at: float | None = None) -> None:
    """Adds an epoch, which ended at ``at`` (None is now), to what TensorBoard shows."""
    train = (epoch.train_loss, epoch.train_accuracy)
    validation = (epoch.validation_loss, epoch.validation_accuracy)
    events.add(epoch.epoch, train, validation, epoch.learning_rate, at)
