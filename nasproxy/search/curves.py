"""TensorBoard's view of a search's finalists."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from nasproxy.analysis.event_file import EventFile
from nasproxy.errors import WriteError
from nasproxy.search.study import Measurement, Study
from nasproxy.search.task import WHOLE
from nasproxy.spaces.candidate import Candidate
from nasproxy.training.recipe import TrainingRecipe


def write_curves(
    folder: Path, finalists: Sequence[Candidate], study: Study, recipe: TrainingRecipe, repeats: int
) -> int:
    """Writes a run for each training of a finalist, named by rank and id; what was in ``folder`` is replaced.

    Args:
        folder: to write.
        finalists: in the order of their ranks.
        study: that holds their trainings.
        recipe: by which they were trained on the whole data.
        repeats: trainings of each.

    Returns:
        How many of the trainings were not watched, so that only their last epoch is known.

    Raises:
        WriteError: the disk is full, or the folder not writable.
    """
    unwatched = 0
    try:
        shutil.rmtree(folder, ignore_errors=True)
        for rank, candidate in enumerate(finalists, 1):
            for repeat in range(repeats):
                found = study.measurements.get((candidate.id, WHOLE, recipe.epochs, repeat))
                if found is None or found.failure is not None:
                    continue
                name = f"{rank:02}-{candidate.id}{f'-{repeat}' if repeat else ''}"
                _write(EventFile(folder / name, candidate.config), found, recipe)
                unwatched += not found.train_curve
    except OSError as error:
        raise WriteError(f"{folder} cannot be written: {error.strerror or error}.", "Free some space.") from error
    return unwatched


def _write(file: EventFile, found: Measurement, recipe: TrainingRecipe) -> None:
    began, last = time.time() - found.seconds, found.scores[-1].epoch
    for number, score in enumerate(found.scores):
        train = found.train_curve[number] if found.train_curve else (None, None)
        validation = (None if score.diverged else score.cross_entropy, score.accuracy)
        # Only the whole was measured: epochs count as equally long.
        at = began + found.seconds * score.epoch / last
        file.add(score.epoch, train, validation, recipe.learning_rate_at(score.epoch - 1), at)
    file.close()
