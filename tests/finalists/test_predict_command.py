import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from searched import CLASSES, NETS, Searched
from tiny_search import invoke, search_words, write_space

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


def test_hidden_files_are_left_out_and_links_followed(searched: Searched, tmp_path: Path):
    photos = tmp_path / ".photos"
    (photos / ".trash").mkdir(parents=True)
    shutil.copy(searched.photos / CLASSES[0] / "00.png", photos / "a.png")
    shutil.copy(photos / "a.png", photos / ".trash" / "b.png")
    (photos / "._a.png").write_bytes(b"left by a file manager")
    (photos / "more").symlink_to(searched.photos / CLASSES[1])
    (photos / "more again").symlink_to(photos)
    said = invoke("predict", str(searched.run), str(photos), "--json")
    assert (said.code, said.json["failed"]) == (0, [])
    more = [str(photos / "more" / file.name) for file in sorted((searched.photos / CLASSES[1]).iterdir())]
    assert [row["file"] for row in said.json["images"]] == [str(photos / "a.png"), *more]


def test_a_hidden_file_that_is_named_is_meant(searched: Searched, tmp_path: Path):
    shutil.copy(searched.photos / CLASSES[0] / "00.png", tmp_path / ".a.png")
    said = invoke("predict", str(searched.run), str(tmp_path / ".a.png"), "--json")
    assert [row["file"] for row in said.json["images"]] == [str(tmp_path / ".a.png")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_wrong_input(searched: Searched, tmp_path: Path):
    shutil.copytree(searched.photos, tmp_path / "photos")
    (tmp_path / "photos" / CLASSES[0]).chmod(0)
    said = invoke("predict", str(searched.run), str(tmp_path))
    (tmp_path / "photos" / CLASSES[0]).chmod(0o700)
    assert (said.code, said.out) == (2, "")
    assert "cannot be read: Permission denied" in said.err


def test_a_folder_without_images_is_wrong_input(searched: Searched, tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    said = invoke("predict", str(searched.run), str(tmp_path))
    assert (said.code, said.out) == (2, "")
    assert "holds no images" in said.err


@pytest.mark.parametrize(
    "factor", [pytest.param(float("nan"), id="not a number"), pytest.param(1e38, id="too large to compute with")]
)
def test_a_finalist_that_diverged_is_said_to_have(searched: Searched, tmp_path: Path, factor: float):
    spoilt = searched.copy(tmp_path)
    spoilt.scale_weights(factor)
    said = invoke("predict", str(spoilt.run), str(searched.photos / CLASSES[0] / "00.png"), "--json")
    error = said.json["error"]
    assert (said.code, error["kind"]) == (2, "run")
    assert f"({searched.winner()}) of {spoilt.run} diverged in the search" in error["message"]
    assert f"nasproxy train {spoilt.run} --rank " in error["hint"]
    assert "--anew" in error["hint"]


def test_an_image_that_a_sound_network_gives_no_finite_numbers_for_is_named(searched: Searched, tmp_path: Path):
    wild = "images * torch.where(images.mean((1, 2, 3), keepdim=True) > 2, float('inf'), 1.0)"
    text = NETS.replace("from torch import nn", "import torch\nfrom torch import nn").replace(
        "return images", f"return {wild}"
    )
    words = ["--dataset", str(searched.photos), "--limit", "1", "--top-k", "1"]
    assert invoke(*search_words(write_space(tmp_path, text), tmp_path / "run", *words)).code == 0
    white, good = tmp_path / "white.png", searched.photos / CLASSES[0] / "00.png"
    Image.new("L", (8, 8), 255).save(white)
    asked = ["predict", str(tmp_path / "run"), str(white), str(good)]
    said = invoke(*asked, "--json")
    assert (said.code, [row["file"] for row in said.json["images"]]) == (1, [str(good)])
    assert [row["file"] for row in said.json["failed"]] == [str(white)]
    said = invoke(*asked)
    assert f"{white} cannot be classified: the output of the network" in said.err
    assert "may be the cause" in said.err
    assert "diverged" not in said.err


def test_of_several_repeats_one_that_did_not_diverge_is_asked(searched: Searched, tmp_path: Path):
    spoilt, image = searched.copy(tmp_path), str(searched.photos / CLASSES[0] / "00.png")
    facts = json.loads((spoilt.run / "run.json").read_text())
    facts["settings"]["repeats"] = 2
    (spoilt.run / "run.json").write_text(json.dumps(facts))
    first = spoilt.run / "finalists" / f"{searched.winner()}-0.safetensors"
    shutil.copy(first, first.with_name(f"{searched.winner()}-1.safetensors"))
    spoilt.scale_weights(float("nan"))
    said = invoke("predict", str(spoilt.run), image, "--json")
    assert said.json["images"] == invoke("predict", str(searched.run), image, "--json").json["images"]
