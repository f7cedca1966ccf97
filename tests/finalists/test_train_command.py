import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from searched import CLASSES, Searched
from tiny_search import Said, finish, invoke, start

from nasproxy.finalists import further
from nasproxy.finalists.checkpoint import read_checkpoint

QUICK = ["--epochs", "4", "--batch-size", "8", "--augmentation", "crop-flip", "--threads", "1"]


def _train(searched: Searched, out: Path, *more: str) -> Said:
    return invoke("train", str(searched.run), *QUICK, "--out", str(out), *more)


def _kept(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint.safetensors")


def _check_equal(ours: Path, theirs: Path) -> None:
    kept, reference = _kept(ours), _kept(theirs)
    assert kept.keys() == reference.keys()
    assert all(torch.equal(kept[name], value) for name, value in reference.items())
    curves = [pd.read_csv(folder / "curves.csv").drop(columns="seconds") for folder in (ours, theirs)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    for name in ("best", "last"):
        files = [folder / name / "weights.safetensors" for folder in (ours, theirs)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.fixture(scope="module")
def trained(searched: Searched, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    out = tmp_path_factory.mktemp("trained") / "out"
    return out, _train(searched, out, "--json")


def test_best_is_by_validation_and_both_weights_are_handed_over(searched: Searched, trained: tuple[Path, Said]):
    out, said = trained
    document = said.json
    curves = pd.read_csv(out / "curves.csv")
    assert said.code == 0, said.err
    assert curves["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert curves["learning_rate"].tolist() == pytest.approx([0.01, 0.01, 0.01, 0.001, 0.001])
    order = curves.sort_values(["validation_accuracy", "validation_loss", "epoch"], ascending=[False, True, True])
    assert document["best"]["epoch"] == order["epoch"].iloc[0]
    assert document["best"]["validation_accuracy"] == curves["validation_accuracy"].max()
    assert document["last"]["epoch"] == 4
    # What it began with is what the search has left.
    winner = json.loads((searched.run / "summary.json").read_text())["winner"]
    assert curves["validation_accuracy"][0] == pytest.approx(winner["whole_accuracy"])
    with Image.open(out / "curves.png") as figure:
        assert figure.size == (1680, 680)
    for name, part in (("best", "best"), ("last", "model")):
        kept = {key.removeprefix(f"{part}:"): value for key, value in _kept(out).items() if key.startswith(f"{part}:")}
        weights = load_file(out / name / "weights.safetensors")
        assert all(torch.equal(weights[key], value) for key, value in kept.items())
        assert (out / name / "classify.py").exists()
        assert "After the search it was trained further" in (out / name / "README.md").read_text()


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path, monkeypatch
):
    real = further.Checkpoint.write

    def stopping(checkpoint: further.Checkpoint, file: Path) -> None:
        real(checkpoint, file)
        if checkpoint.history[-1].epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(further.Checkpoint, "write", stopping)
        said = _train(searched, tmp_path / "out")
    assert said.code == 130
    assert "--resume" in said.err
    assert len(read_checkpoint(tmp_path / "out" / "checkpoint.safetensors").history) == 3
    assert _train(searched, tmp_path / "out").code == 2  # not without --resume
    said = _train(searched, tmp_path / "out", "--resume")
    assert said.code == 0, said.err
    _check_equal(tmp_path / "out", trained[0])


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path
):
    out = tmp_path / "out"
    words = ["train", str(searched.run), *QUICK, "--out", str(out), "--resume"]
    kills = 0
    for epochs in (1, 3):
        process = start(words, seconds=0.3)
        while process.poll() is None:
            if (out / "checkpoint.safetensors").exists() and len(
                read_checkpoint(out / "checkpoint.safetensors").history
            ) > epochs:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.02)
        finish(process)
    assert kills == 2
    said = finish(start(words))
    assert said.code == 0, said.err
    _check_equal(out, trained[0])


def test_other_settings_are_another_training(searched: Searched, trained: tuple[Path, Said]):
    said = _train(searched, trained[0], "--resume", "--learning-rate", "0.1")
    assert said.code == 2
    assert "learning_rate was 0.01, now 0.1" in said.err


def test_a_folder_that_is_taken_is_refused_before_data_are_loaded(searched: Searched, trained: tuple[Path, Said]):
    said = _train(searched, trained[0], "--dataset", "nowhere")
    assert said.code == 2
    assert "--resume" in said.err
    with FileLock(trained[0] / ".lock"):
        said = _train(searched, trained[0], "--dataset", "nowhere", "--resume")
    assert said.code == 2
    assert "Another process is working" in said.err


def test_a_changed_dataset_is_refused(searched: Searched, tmp_path: Path):
    spoilt = searched.copy(tmp_path)
    whole = _train(spoilt, tmp_path / "out", "--dataset", str(spoilt.photos), "--epochs", "1")
    assert whole.code == 0, whole.err
    (spoilt.photos / CLASSES[0] / "03.png").unlink()
    said = _train(spoilt, tmp_path / "other", "--dataset", str(spoilt.photos), "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "dataset")
    assert "fingerprint" in said.json["error"]["message"]
    assert not (tmp_path / "other").exists()


def test_a_dataset_that_is_gone_can_be_named(searched: Searched, tmp_path: Path):
    facts = json.loads((searched.run / "run.json").read_text())
    moved = searched.copy(tmp_path)
    facts["settings"]["dataset"] = str(tmp_path / "gone")
    (moved.run / "run.json").write_text(json.dumps(facts))
    said = _train(moved, tmp_path / "out")
    assert said.code == 2
    assert "--dataset FOLDER" in said.err


def test_anew_begins_with_fresh_weights_that_the_seed_decides(searched: Searched, tmp_path: Path):
    firsts = []
    for name, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        said = _train(searched, tmp_path / name, "--anew", "--seed", seed, "--epochs", "1", "--json")
        assert said.code == 0, said.err
        firsts.append(_kept(tmp_path / name))
    weights = next(name for name in firsts[0] if name.startswith("model:") and name.endswith("weight"))
    assert torch.equal(firsts[0][weights], firsts[1][weights])
    assert not torch.equal(firsts[0][weights], firsts[2][weights])


def test_a_training_that_diverges_keeps_what_was_best(searched: Searched, tmp_path: Path):
    said = _train(searched, tmp_path / "out", "--learning-rate", "1e30", "--json")
    document = said.json
    assert (said.code, document["diverged"], document["best"]["epoch"]) == (1, True, 0)
    assert "finite numbers" in said.err


def test_what_was_trained_further_can_be_asked_and_exported(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path
):
    out, said = trained
    image = str(searched.photos / CLASSES[0] / "05.png")
    rows = invoke("predict", str(out), image, "--json").json["images"]
    done = subprocess.run(
        [sys.executable, str(out / "best" / "classify.py"), "--json", image], capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout)["images"]
    assert (rows[0]["class"], rows[0]["probability"]) == (
        theirs[0]["class"], pytest.approx(theirs[0]["probability"], abs=1e-5),
    )  # fmt: skip
    assert invoke("export", str(out), "--out", str(tmp_path / "net"), "--json").code == 0
    scores = json.loads((tmp_path / "net" / "config.json").read_text())["scores"]
    assert scores["test_accuracy"] == said.json["best"]["test_accuracy"]
    assert invoke("predict", str(out), image, "--rank", "1").code == 2


def test_tensorboard_shows_each_epoch_once_also_after_a_resume(searched: Searched, tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        assert _train(searched, tmp_path / "out", "--tensorboard", "--resume").code == 0
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    scalars = events.Scalars("accuracy/validation")
    assert [scalar.step for scalar in scalars] == curves["epoch"].tolist()
    assert [scalar.value for scalar in scalars] == pytest.approx(curves["validation_accuracy"].tolist())


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--epochs", "0"], "1 epoch or more"),
        (["--learning-rate", "0"], "learning rate"),
        (["--augmentation", "flop"], "'flop'"),
        (["--rank", "7"], "--rank 7"),
        (["--device", "tpu"], "'tpu'"),
        (["--threads", "0"], "--threads"),
    ],
)
def test_wrong_input_is_said_before_anything_is_written(
    searched: Searched, tmp_path: Path, words: list[str], fragment: str
):
    said = _train(searched, tmp_path / "out", *words)
    assert (said.code, said.out) == (2, "")
    assert fragment in said.err
    assert not (tmp_path / "out").exists()


def _beside(searched: Searched, trained: tuple[Path, Said], folder: Path) -> tuple[Searched, Path]:
    """Search and training in one folder, to be spoilt."""
    spoilt, out = searched.copy(folder), Path(shutil.copytree(trained[0], folder / "trained"))
    facts = json.loads((out / "run.json").read_text())
    facts["training"]["run"] = "../run"
    (out / "run.json").write_text(json.dumps(facts))
    return spoilt, out


def test_what_was_trained_stays_what_it_was_when_the_search_has_gone_on(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path
):
    spoilt, out = _beside(searched, trained, tmp_path)
    image = str(searched.photos / CLASSES[0] / "05.png")
    before = invoke("predict", str(out), image, "--json").json
    summary = json.loads((spoilt.run / "summary.json").read_text())
    for entry in summary["top"]:
        entry["rank"] = 3 - entry["rank"]
    (spoilt.run / "summary.json").write_text(json.dumps(summary))
    after = invoke("predict", str(out), image, "--json").json
    assert after["id"] == trained[1].json["id"]
    assert after["rank"] == 3 - before["rank"]
    assert after["images"] == before["images"]
    summary["top"] = [entry for entry in summary["top"] if entry["id"] != trained[1].json["id"]]
    (spoilt.run / "summary.json").write_text(json.dumps(summary))
    said = invoke("predict", str(out), image, "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "run")
    assert "no finalist" in said.json["error"]["message"]


def test_the_way_back_to_the_search_does_not_depend_on_links(searched: Searched, tmp_path: Path):
    (tmp_path / "a" / "disk" / "far" / "down").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(searched.run.parent)
    (tmp_path / "link").symlink_to(tmp_path / "a" / "disk" / "far" / "down")
    out = tmp_path / "link" / "out"
    found = invoke("train", str(tmp_path / "runs" / "run"), *QUICK, "--epochs", "1", "--out", str(out))
    assert found.code == 0, found.err
    image = str(searched.photos / CLASSES[0] / "05.png")
    for way in (out, out.resolve()):
        said = invoke("predict", str(way), image)
        assert said.code == 0, said.err


def test_a_training_has_no_report_and_says_whose_there_is(searched: Searched, trained: tuple[Path, Said]):
    out, _ = trained
    for words in (["report", str(out)], ["train", str(out), "--epochs", "1"]):
        said = invoke(*words, "--json")
        assert (said.code, said.json["error"]["kind"]) == (2, "run")
        assert f"{out} holds the training of one network" in said.json["error"]["message"]
        assert f"nasproxy report {searched.run.resolve()}" in said.json["error"]["hint"]
        assert "--resume" not in said.json["error"]["hint"]
    assert not (out / "report.html").exists()


def test_an_unfinished_training_is_finished_by_the_command_that_is_said(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path
):
    spoilt, out = _beside(searched, trained, tmp_path)
    (out / "summary.json").unlink()
    said = invoke("predict", str(out), str(searched.photos), "--json")
    command = f"nasproxy train {spoilt.run.resolve()} --out {out} --resume, and --epochs"
    assert (said.code, said.json["error"]["kind"]) == (2, "run")
    assert command in said.json["error"]["hint"]


def test_a_training_whose_checkpoint_is_gone_is_made_again_by_the_command_that_is_said(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path
):
    spoilt, out = _beside(searched, trained, tmp_path)
    (out / "checkpoint.safetensors").unlink()
    said = invoke("predict", str(out), str(searched.photos), "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "run")
    assert said.json["error"]["message"] == f"{out / 'checkpoint.safetensors'} is missing."
    assert f"nasproxy train {spoilt.run.resolve()} --out {out} --resume, and --epochs" in said.json["error"]["hint"]
    said = _train(spoilt, out, "--resume")
    assert said.code == 0, said.err
    _check_equal(out, trained[0])


def _history(file: Path) -> list[dict[str, Any]]:
    with safe_open(file, framework="pt") as opened:
        found: list[dict[str, Any]] = json.loads(opened.metadata()["nasproxy"])
    return found


def _other_shapes(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    return {name: value.new_zeros(3, 3) if name.startswith(part) else value for name, value in tensors.items()}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors, history: ({"images": torch.zeros(3)}, history),
        lambda tensors, history: ({"model:images": torch.zeros(3)}, history),
        lambda tensors, history: (_other_shapes(tensors, "model:"), history),
        lambda tensors, history: (_other_shapes(tensors, "momentum:"), history),
        lambda tensors, history: (_other_shapes(tensors, "best:"), history),
        lambda tensors, history: ({n: v for n, v in tensors.items() if not n.startswith("best:")}, history),
        lambda tensors, history: ({**tensors, "momentum:first": torch.zeros(3)}, history),
        lambda tensors, history: ({**tensors, "momentum:99": torch.zeros(3)}, history),
        lambda tensors, history: (tensors, []),
        lambda tensors, history: (tensors, history[1:]),
        lambda tensors, history: (tensors, {"epochs": 3}),
        lambda tensors, history: (tensors, [*history, 3]),
        lambda tensors, history: (tensors, [{**epoch, "validation_accuracy": "most"} for epoch in history]),
        lambda tensors, history: (tensors, [{**epoch, "seconds": None} for epoch in history]),
        lambda tensors, history: (tensors, [{**epoch, "more": 1} for epoch in history]),
    ],
)
def test_a_foreign_checkpoint_is_refused_whatever_is_in_it(
    searched: Searched, trained: tuple[Path, Said], tmp_path: Path, spoil
):
    _, out = _beside(searched, trained, tmp_path)
    file = out / "checkpoint.safetensors"
    tensors, history = spoil(load_file(file), _history(file))
    save_file(tensors, file, metadata={"nasproxy": json.dumps(history)})
    before = file.read_bytes()
    said = _train(searched, out, "--resume", "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "run"), said.err
    assert str(file) in said.json["error"]["message"]
    assert "another --out" in said.json["error"]["hint"]
    assert file.read_bytes() == before


def test_a_finalist_that_diverged_is_trained_anew_alone(searched: Searched, tmp_path: Path):
    spoilt, out = searched.copy(tmp_path), tmp_path / "out"
    spoilt.scale_weights(float("nan"))
    said = _train(spoilt, out, "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "run")
    assert "diverged in the search" in said.json["error"]["message"]
    assert "--anew" in said.json["error"]["hint"]
    assert not out.exists()
    assert _train(spoilt, out, "--anew").code == 0
    said = invoke("predict", str(out), str(searched.photos / CLASSES[0] / "05.png"))
    assert said.code == 0, said.err


def test_a_training_that_begins_without_finite_numbers_is_said_to(searched: Searched, tmp_path: Path):
    spoilt = searched.copy(tmp_path)
    spoilt.scale_weights(1e38)
    error = _train(spoilt, tmp_path / "out", "--json").json["error"]
    assert error["kind"] == "diverged"
    assert "begins with give no finite numbers" in error["message"]
    assert "--anew" in error["hint"]
