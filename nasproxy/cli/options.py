"""The options that several commands share, and what their texts mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from nasproxy.cli.completion import among, dataset_names, space_names
from nasproxy.errors import InputError
from nasproxy.search.settings import DEVICES, EXECUTORS, NORM_STATISTICS
from nasproxy.training.recipe import AUGMENTATIONS, PRECISIONS

DATA, RANK, WHOLE, RUN = "Data", "Ranking", "Finalists", "Where it runs"  # panels of the help

Dataset = Annotated[
    str,
    typer.Option(
        help="A name (see `datasets list`) or a folder of images or Parquet files.",
        autocompletion=dataset_names,
        rich_help_panel=DATA,
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Where torchvision's datasets are, or go.", rich_help_panel=DATA)]
ImageSize = Annotated[str | None, typer.Option(help="Resize images to N or HEIGHTxWIDTH pixels.", rich_help_panel=DATA)]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read.", rich_help_panel=DATA)
]
Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, or mps.", autocompletion=among(*DEVICES), rich_help_panel=RUN),
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto, bfloat16, float32, or either with -direct (all convolutions by torch).",
        autocompletion=among(*PRECISIONS),
        rich_help_panel=RUN,
    ),
]
FEWER = ", fewer where --max-parameters or --max-multiply-adds leave some of them out"
SOFT_LABELS = (
    "Train on the class probabilities that a network trained on all the training images gives to those of the proxy,"
    " instead of on their classes."
)
ProxyAugmentation = Annotated[
    str,
    typer.Option(
        "--augmentation",
        help="Of trainings on a proxy's images: none (as the paper of dc), crop, crop-flip, siamese (all kinds of dsa"
        " and dm, but no flip of digits), or siamese:KINDS, spelt as condense takes them.",
        show_default="siamese; for dsa and dm by the kinds they condensed with",
        rich_help_panel=RANK,
    ),
]
NormStatistics = Annotated[
    str,
    typer.Option(
        help="Batch-norm statistics under which trainings on a proxy's images are scored: proxy (their own) or real (of"
        " 1,000 training images, unlabelled). early-stopping and whole train on real images anyway.",
        autocompletion=among(*NORM_STATISTICS),
        rich_help_panel=RANK,
    ),
]
LearningRate = Annotated[
    float, typer.Option(help="Learning rate on the proxy; whole takes --finalist-learning-rate.", rich_help_panel=RANK)
]
Repeats = Annotated[
    int | None,
    typer.Option(help="Trainings averaged for a score.", show_default="1; paper 5", rich_help_panel=RANK),
]
FinalistEpochs = Annotated[
    int | None, typer.Option(help="Epochs on the whole data.", show_default="8; paper 100", rich_help_panel=WHOLE)
]
FinalistLearningRate = Annotated[float, typer.Option(help="Learning rate on the whole data.", rich_help_panel=WHOLE)]
FinalistBatchSize = Annotated[
    int | None,
    typer.Option(
        help="Batch size on the whole data.",
        show_default="a sixteenth of the images, 16 to 256",
        rich_help_panel=WHOLE,
    ),
]
FinalistAugmentation = Annotated[
    str,
    typer.Option(help="none, crop, or crop-flip.", autocompletion=among(*AUGMENTATIONS), rich_help_panel=WHOLE),
]
Executor = Annotated[
    str,
    typer.Option(
        help="tune (Ray Tune) or inline (this process, without Ray).",
        autocompletion=among(*EXECUTORS),
        rich_help_panel=RUN,
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes.", show_default="fill the cores or GPUs", rich_help_panel=RUN)
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="PyTorch threads; fewer are faster where other work takes cores.",
        show_default="all cores",
        metavar="N",
        rich_help_panel=RUN,
    ),
]
ThreadsPerWorker = Annotated[int, typer.Option(help="PyTorch threads of each.", rich_help_panel=RUN)]
GpusPerWorker = Annotated[float, typer.Option(help="Share of a GPU each takes.", rich_help_panel=RUN)]
Run = Annotated[Path, typer.Argument(help="The directory of a finished search, or of a `nasproxy train`.")]
Rank = Annotated[
    int | None, typer.Option(help="Another finalist, by its rank in the search's table.", show_default="the winner")
]
RunSpace = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Where the code of the search's space is now; this runs it.",
        autocompletion=space_names,
        show_default="where the search found it",
    ),
]
Tensorboard = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write curves of trainings on the whole data for TensorBoard too (an optional package).",
        rich_help_panel=RUN,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """``32`` or ``24x32`` as (height, width) in pixels; None stays None.

    Raises:
        InputError: it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if match is None or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise InputError(f"--image-size must be N or HEIGHTxWIDTH in pixels, got {text!r}.", "Example: --image-size 32")
    height = int(match[1])
    return height, int(match[2] or height)
