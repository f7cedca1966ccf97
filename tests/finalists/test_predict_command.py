import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from searched import CLASSES, Searched
from tiny_search import invoke

from nasproxy.finalists.open import open_finalist


def test_classes_and_probabilities_are_the_networks(searched: Searched):
    folder = searched.photos / CLASSES[1]
    said = invoke("predict", str(searched.run), str(folder), "--json")
    files = sorted(folder.iterdir())
    about = json.loads((searched.run / "winner" / "config.json").read_text())
    pixels = [np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BILINEAR), np.float32) for file in files]
    images = (torch.from_numpy(np.stack(pixels))[:, None] / 255 - about["normalisation"]["mean"][0]) / about[
        "normalisation"
    ]["std"][0]
    with torch.no_grad():
        shares, labels = open_finalist(searched.run).model()(images).softmax(1).max(1)
    rows = said.json["images"]
    assert (said.code, said.json["failed"]) == (0, [])
    assert [row["file"] for row in rows] == [str(file) for file in files]
    assert [row["class"] for row in rows] == [CLASSES[label] for label in labels]
    assert [row["probability"] for row in rows] == pytest.approx(shares.tolist(), abs=1e-5)


def test_unreadable_images_are_reported_and_the_rest_predicted(searched: Searched, tmp_path: Path):
    good = str(searched.photos / CLASSES[0] / "00.png")
    (tmp_path / "broken.png").write_bytes(Path(good).read_bytes()[:40])
    (tmp_path / "text[red].jpg").write_text("no image")
    words = [str(tmp_path), good, str(tmp_path / "gone.png")]
    said = invoke("predict", str(searched.run), *words)
    assert said.code == 1
    assert good.rpartition("/")[2] in said.out
    for name in ("broken.png", "text[red].jpg", "gone.png"):
        assert f"{name} cannot be read" in said.err
        assert name not in said.out
    document = invoke("predict", str(searched.run), *words, "--json").json
    assert [row["file"] for row in document["images"]] == [good]
    assert [Path(row["file"]).name for row in document["failed"]] == ["broken.png", "text[red].jpg", "gone.png"]
    assert all(row["reason"] for row in document["failed"])


def test_a_folder_without_images_is_wrong_input(searched: Searched, tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    said = invoke("predict", str(searched.run), str(tmp_path))
    assert (said.code, said.out) == (2, "")
    assert "holds no images" in said.err
