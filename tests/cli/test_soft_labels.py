"""``--soft-labels`` of condense, search and compare, and what becomes of soft labels in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_search import invoke, read_table, search_words, write_space

from nasproxy.condensation.evaluation import Evaluation
from nasproxy.proxies.proxy_file import load_proxy, save_proxy

DC = [
    "condense",
    "--ipc",
    "2",
    "--iterations",
    "1",
    "--inner-epochs",
    "1",
    "--real-batch",
    "4",
    "--precision",
    "float32",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three classes of 8×8 noise, on which the teacher is trained in a second."""
    root, source = tmp_path_factory.mktemp("photos"), torch.Generator().manual_seed(0)
    for label in range(3):
        (root / f"class{label}").mkdir()
        for number in range(12):
            pixels = 60 * label + torch.randint(120, (8, 8), generator=source, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(root / f"class{label}" / f"{number}.png")
    return str(root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that all tests share, so that the teacher is trained once."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(autouse=True)
def cache(folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASPROXY_CACHE", str(trained))


@pytest.fixture
def search(photos: str, folder: Path):
    space = write_space(folder / "space")

    def search(out: str, *more: str):
        words = [*more] if "--proxy" in more else ["--proxy", "random", *more]
        return invoke(*search_words(space, folder / out, "--dataset", photos, "--limit", "4", *words, "--json"))

    return search


def test_candidates_aim_at_them(search, folder):
    soft, hard = search("soft", "--soft-labels"), search("hard")
    assert (soft.code, hard.code) == (0, 0), soft.err + hard.err
    assert "Training the teacher of soft labels" in soft.err
    assert "teacher" not in hard.err
    proxies = [load_proxy(folder / name / "proxy.safetensors") for name in ("soft", "hard")]
    assert torch.equal(proxies[0].images, proxies[1].images)
    assert proxies[0].soft_labels.shape == (6, 3)
    assert proxies[1].soft_labels is None
    assert not read_table(folder / "soft").equals(read_table(folder / "hard"))
    given = search("given", "--proxy", str(folder / "soft" / "proxy.safetensors"))  # no option: the file has them
    assert given.code == 0
    assert read_table(folder / "soft").equals(read_table(folder / "given"))


def test_a_resumed_run_keeps_them_and_is_of_the_same_labels(search, folder):
    assert search("run", "--soft-labels").code == 0
    before = Path("run", "results.csv").read_bytes()
    again = search("run", "--soft-labels", "--resume")
    assert again.code == 0
    assert Path("run", "results.csv").read_bytes() == before
    other = search("run", "--resume")
    assert other.code == 2
    assert "soft_labels was True, now None" in other.json["error"]["message"]


def test_a_hard_file_gets_them_and_a_soft_one_keeps_its_own(search, folder):
    assert search("hard").code == 0
    file = folder / "hard" / "proxy.safetensors"
    assert search("soft", "--proxy", str(file), "--soft-labels").code == 0
    labelled = load_proxy(folder / "soft" / "proxy.safetensors")
    assert labelled.soft_labels is not None
    flat = torch.full_like(labelled.soft_labels, 1 / 3)
    save_proxy(type(labelled)(**{**vars(labelled), "soft_labels": flat}), folder / "flat.safetensors")
    kept = search("kept", "--proxy", str(folder / "flat.safetensors"), "--soft-labels")
    assert kept.code == 0
    assert torch.equal(load_proxy(folder / "kept" / "proxy.safetensors").soft_labels, flat)


@pytest.mark.slow
def test_workers_of_ray_aim_at_them_as_well(search, folder):
    assert search("inline", "--soft-labels").code == 0
    tune = search("tune", "--soft-labels", "--executor", "tune", "--workers", "1")
    assert tune.code == 0, tune.err
    assert read_table(folder / "inline").equals(read_table(folder / "tune"))


def test_what_trains_on_real_images_has_none(search):
    said = search("run", "--proxy", "early-stopping", "--soft-labels")
    assert said.code == 2
    assert "early-stopping makes none" in said.json["error"]["message"]
    assert not Path("run").exists()


def test_a_dry_run_counts_the_teacher_until_it_is_trained(search, folder, monkeypatch):
    monkeypatch.setenv("NASPROXY_CACHE", str(folder / "empty"))
    before = search("run", "--soft-labels", "--dry-run").json["seconds"]["condense"]
    assert before > 0
    assert search("run", "--soft-labels").code == 0
    assert search("other", "--soft-labels", "--dry-run").json["seconds"]["condense"] == 0
    assert search("third", "--dry-run").json["seconds"]["condense"] == 0


def test_a_comparison_says_which_sets_have_them(photos, folder):
    where = ["compare", "--dataset", photos, "--space", str(write_space(folder)), "--executor", "inline", "--ipc", "2"]
    where += [
        "--epochs",
        "1",
        "--finalist-epochs",
        "1",
        "--top-k",
        "3",
        "--sample",
        "4",
        "--limit",
        "4",
        "--soft-labels",
    ]
    said = invoke(*where, "--out", "run", "--proxies", "random,early-stopping", "--json")
    assert said.code == 0, said.err
    assert load_proxy(Path("run/proxies/random/proxy.safetensors")).soft_labels is not None
    assert "On random, candidates aim at soft labels" in " ".join(said.json["text"])
    assert json.loads(Path("run/scores.json").read_text())["proxies"]["random"]["making_seconds"] > 0
    nobody = invoke(*where, "--out", "none", "--proxies", "early-stopping,parameters", "--json")
    assert nobody.code == 2
    assert "none of early-stopping, parameters makes any" in nobody.json["error"]["message"]


def test_condense_writes_them_and_show_tells_of_them(photos, folder, monkeypatch):
    monkeypatch.setattr(Evaluation, "epochs", 2)
    words = [*DC, "--dataset", photos, "--soft-labels", "--evaluate-every", "1"]
    said = invoke(*words, "--out", "soft.safetensors", "--json")
    assert said.code == 0, said.err
    document = said.json
    assert 0 < document["soft_labels"]["entropy"] <= torch.tensor(3.0).log()
    assert document["seconds"] > document["seconds_per_iteration"] > 0
    assert len(document["evaluations"]) == 1
    proxy = load_proxy(Path("soft.safetensors"))
    assert proxy.soft_labels.shape == (6, 3)
    shown = invoke("proxy", "show", "soft.safetensors", "--json").json
    assert shown["soft_labels"] == document["soft_labels"]
    assert shown["recipe"]["soft_labels"]["epochs"] == 20
    plain = invoke(*DC, "--dataset", photos, "--out", "hard.safetensors", "--json").json
    assert (plain["soft_labels"], plain["cached"], plain["evaluations"]) == (None, True, [])
    assert invoke("proxy", "show", "hard.safetensors", "--json").json["soft_labels"] is None
    in_words = invoke(*DC, "--dataset", photos, "--soft-labels", "--out", "again.safetensors")
    assert "Soft labels: entropy" in in_words.out


@pytest.mark.parametrize(
    ("words", "named"), [(["--network", "vgg11"], "VGG-11"), (["--ipc", "99"], "99 images per class")], ids=str
)
def test_what_cannot_be_condensed_is_said_before_the_teacher_is_trained(photos, folder, monkeypatch, words, named):
    monkeypatch.setenv("NASPROXY_CACHE", str(folder / "empty"))
    said = invoke(*DC, "--dataset", photos, "--soft-labels", *words, "--json")
    assert said.code == 2
    assert named in said.json["error"]["message"]
    assert "teacher" not in said.err


def test_convert_says_what_a_format_cannot_hold(photos):
    assert invoke(*DC, "--dataset", photos, "--soft-labels", "--out", "soft.safetensors").code == 0
    for suffix in (".parquet", ".png"):
        said = invoke("proxy", "convert", "soft.safetensors", "--out", f"out{suffix}")
        assert said.code == 0
        assert f"A {suffix} file holds no soft labels" in said.err
        told = invoke("proxy", "convert", "soft.safetensors", "--out", f"out{suffix}", "--json").json
        assert (told["soft_labels_left_out"], told["lossy"]) == (True, True)
    copied = invoke("proxy", "convert", "soft.safetensors", "--out", "copy.safetensors")
    assert (copied.code, copied.err) == (0, "")
    assert torch.equal(
        load_proxy(Path("copy.safetensors")).soft_labels, load_proxy(Path("soft.safetensors")).soft_labels
    )
