from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_search import FINALISTS, SPACE, Said, invoke, read_table, recorded_trainings, search_words, write_space

EPOCHS = 3
WORDS = ["--finalist-epochs", str(EPOCHS), "--precision", "float32"]


def _search(home: Path, name: str, *more: str) -> Said:
    return invoke(*search_words(write_space(home), home / name, *WORDS, *more))


def _curves(run: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """(epoch, value) of each curve of each run that TensorBoard finds in the folder that the search names."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for folder in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(folder)).Reload()
        found[folder.name] = {
            tag: [(scalar.step, scalar.value) for scalar in events.Scalars(tag)] for tag in events.Tags()["scalars"]
        }
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorboard")
    return tmp_path_factory.mktemp("tensorboard")


@pytest.fixture(scope="module")
def said(home: Path) -> Said:
    return _search(home, "curves", "--tensorboard")


def test_every_finalist_has_its_curves_up_to_the_score_in_the_table(said: Said, home: Path):
    assert said.code == 0, said.err
    top = json.loads((home / "curves" / "summary.json").read_text())["top"]
    found = _curves(home / "curves")
    assert list(found) == [f"{entry['rank']:02}-{entry['id']}" for entry in top]
    for curves, entry in zip(found.values(), top, strict=True):
        names = ["accuracy/train", "accuracy/validation", "loss/train", "loss/validation", "schedule/learning rate"]
        assert sorted(curves) == names
        assert all([epoch for epoch, _ in curve] == [1, 2, 3] for curve in curves.values())
        assert curves["accuracy/validation"][-1][1] == pytest.approx(entry["whole_accuracy"])
        rates = [rate for _, rate in curves["schedule/learning rate"]]
        assert rates == pytest.approx([0.01, 0.01, 0.001])
        # Digits are learnt: worse than chance before the first steps, better at the end.
        assert curves["loss/train"][0][1] > curves["loss/train"][-1][1]
    assert f"tensorboard --logdir {home / 'curves' / 'tensorboard'}" in said.out


def test_every_finalist_tells_its_configuration_and_how_long_it_trained(said: Said, home: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data

    assert said.code == 0
    top = json.loads((home / "curves" / "summary.json").read_text())["top"]
    taken = pd.read_csv(home / "curves" / "results.csv").set_index("id")["whole_seconds"]
    for entry in top:
        events = EventAccumulator(str(home / "curves" / "tensorboard" / f"{entry['rank']:02}-{entry['id']}")).Reload()
        content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
        told = parse_session_start_info_plugin_data(content).hparams
        assert told["width"].number_value == entry["config"]["width"]
        assert told["activation"].string_value == entry["config"]["activation"]
        first, *_, last = [scalar.wall_time for scalar in events.Scalars("accuracy/validation")]
        assert last - first == pytest.approx(taken[entry["id"]] * (1 - 1 / EPOCHS), abs=1e-5)


def test_watching_changes_no_score(said: Said, home: Path):
    assert _search(home, "plain").code == 0
    assert not (home / "plain" / "tensorboard").exists()
    pd.testing.assert_frame_equal(read_table(home / "curves"), read_table(home / "plain"), check_exact=True)


def test_a_resumed_run_shows_each_epoch_once_and_trains_nothing_again(said: Said, home: Path):
    before, trainings = _curves(home / "curves"), recorded_trainings(home / "curves")
    assert _search(home, "curves", "--tensorboard", "--resume").code == 0
    assert _curves(home / "curves") == before
    assert recorded_trainings(home / "curves") == trainings


def test_finalists_of_before_are_shown_with_what_is_known(home: Path):
    assert _search(home, "late").code == 0
    late = _search(home, "late", "--tensorboard", "--resume")
    assert late.code == 0
    assert "Trainings of finalists from before --tensorboard was asked for: 2." in late.err
    for curves in _curves(home / "late").values():
        assert sorted(curves) == ["accuracy/validation", "loss/validation", "schedule/learning rate"]
        assert [epoch for epoch, _ in curves["accuracy/validation"]] == [EPOCHS]


def test_an_interrupted_calibration_of_a_finished_run_leaves_the_finalists_as_they_were(home: Path):
    text = SPACE.replace(
        "        if self.training:",
        '        if self.training and os.path.exists(__file__ + ".interrupt"):\n            raise KeyboardInterrupt\n'
        "        if self.training:",
    )
    space = write_space(home, text, "interrupted.py")
    words = search_words(space, home / "interrupted", *WORDS, "--tensorboard")
    assert invoke(*words).code == 0
    table, curves = read_table(home / "interrupted"), _curves(home / "interrupted")
    assert table["whole_accuracy"].notna().sum() == len(curves) == FINALISTS
    interrupt = home / "interrupted.py.interrupt"
    interrupt.touch()
    assert invoke(*words, "--resume", "--calibrate", "12").code == 130
    pd.testing.assert_frame_equal(read_table(home / "interrupted"), table)
    assert _curves(home / "interrupted") == curves
    interrupt.unlink()
    assert invoke(*words, "--resume", "--calibrate", "12").code == 0
    pd.testing.assert_frame_equal(read_table(home / "interrupted"), table)


def test_a_finalist_that_diverges_ends_where_it_left_the_finite_numbers(home: Path):
    _search(home, "wild", "--tensorboard", "--finalist-learning-rate", "1e30")
    for curves in _curves(home / "wild").values():
        assert curves["accuracy/validation"] == [(1, 0.0)]
        assert all(math.isfinite(value) for curve in curves.values() for _, value in curve)


def test_a_missing_package_is_named_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    there = importlib.util.find_spec

    def find_spec(name: str, *more: Any) -> Any:
        return None if name == "tensorboard" else there(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    said = _search(tmp_path, "run", "--tensorboard")
    assert (said.code, said.out) == (2, "")
    assert "--tensorboard takes tensorboard, not installed here." in said.err
    assert "pip install tensorboard" in said.err
    assert not (tmp_path / "run").exists()
