import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset
from tiny_search import invoke, search_words, write_space

from nasproxy.datasets.load import load_dataset
from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy

NOTHING = "\N{EN DASH}"


@pytest.fixture
def proxy_file(folder: Path) -> Path:
    return save_proxy(random_proxy(tiny_dataset(), 2, seed=0), folder / "tiny.safetensors")


def test_show_says_what_is_in_it_and_draws_it(proxy_file):
    document = invoke("proxy", "show", str(proxy_file), "--json").json
    assert document["schema"] == 1
    expected = {"method": "random", "images": 4, "classes": 2, "image_size": [8, 8], "channels": 1, "dataset": "tiny"}
    assert {name: document[name] for name in expected} == expected
    assert document["recipe"] == {"ipc": 2, "seed": 0}
    assert document["fingerprint"] == tiny_dataset().fingerprint
    assert Path(document["png"]) == proxy_file.with_suffix(".png")
    with Image.open(document["png"]) as drawn:
        assert drawn.format == "PNG"
        assert min(drawn.size) > 16


def test_show_in_words(proxy_file):
    said = invoke("proxy", "show", str(proxy_file))
    assert (said.code, said.err) == (0, "")
    for word in ("method", "random", "images", "4", "8×8"):
        assert word in said.out


def test_what_there_is_not_and_numbers_are_shown_for_a_reader(proxy_file, folder):
    plain = load_proxy(proxy_file)
    assert (
        shown(proxy_file)
        >= {
            "soft labels": NOTHING,
            "recipe": "ipc=2, seed=0",
            "loss": NOTHING,
            "evaluations": NOTHING,
            "finished": "yes",
        }.items()
    )
    made = replace(
        plain,
        recipe={"ipc": 2, "initial": "real", "network": None, "digest": "", "soft_labels": {"epochs": 3, "flip": True}},
        history=(5.0, 163.0723876953125),
        evaluations=((5, 0.5), (10, 0.71249)),
        finished=False,
        soft_labels=torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.8, 0.2]]),
    )
    assert (
        shown(save_proxy(made, folder / "made.safetensors"))
        >= {
            "soft labels": "entropy 0.505 nats, 75.0\N{NO-BREAK SPACE}% agree with the class",
            "recipe": "ipc=2, initial=real, soft_labels.epochs=3, soft_labels.flip=true",
            "loss": "163",
            "evaluations": "5: 50.0\N{NO-BREAK SPACE}%, 10: 71.2\N{NO-BREAK SPACE}%",
            "finished": "no",
        }.items()
    )


def shown(file: Path):
    lines = invoke("proxy", "show", str(file)).out.splitlines()
    return {tuple(map(str.strip, line.split("  ", 1))) for line in lines}


def test_the_picture_goes_where_it_is_asked_to(proxy_file, folder):
    said = invoke("proxy", "show", str(proxy_file), "--png", "elsewhere.png")
    assert said.code == 0
    assert (folder / "elsewhere.png").exists()
    assert not proxy_file.with_suffix(".png").exists()


def test_no_other_picture_and_no_proxy_is_drawn_over(proxy_file, folder):
    (folder / "photo.png").write_text("mine")
    odd = proxy_file.rename(folder / "odd.png")
    whole = odd.read_bytes()
    for words in (["--png", "photo.png"], ["--png", "odd.png"], []):
        said = invoke("proxy", "show", "odd.png", *words, "--json")
        assert (said.code, said.json["error"]["kind"]) == (2, "input")
        assert "would be overwritten" in said.json["error"]["message"]
    assert ((folder / "photo.png").read_text(), odd.read_bytes()) == ("mine", whole)
    proxy_file = odd.rename(proxy_file)
    assert [invoke("proxy", "show", str(proxy_file)).code for _ in range(2)] == [0, 0]
    beside = (folder / "photo.png").rename(proxy_file.with_suffix(".png"))
    said = invoke("proxy", "show", str(proxy_file), "--json")
    assert (said.code, said.json["error"]["kind"], beside.read_text()) == (2, "input", "mine")


def test_a_picture_in_a_folder_that_is_not_there_is_an_error(proxy_file):
    said = invoke("proxy", "show", str(proxy_file), "--png", "nowhere/elsewhere.png", "--json")
    assert said.code in (1, 2)
    assert said.json["error"]["kind"] != "internal"
    assert "nowhere" in said.json["error"]["message"]


def test_a_picture_of_an_unknown_kind_is_refused(proxy_file):
    said = invoke("proxy", "show", str(proxy_file), "--png", "elsewhere.doc", "--json")
    assert said.code == 2
    assert "doc" in said.json["error"]["message"]


def refused(path: str) -> dict:
    said = invoke("proxy", "show", path, "--json")
    assert said.code == 2
    assert said.json["error"]["kind"] == "proxy"
    assert Path(path).name in said.json["error"]["message"]
    assert said.json["error"]["hint"]
    assert not Path(path).with_suffix(".png").exists()
    return said.json["error"]


def test_a_file_that_is_none_of_ours_is_refused(proxy_file, folder):
    refused("nothing.safetensors")
    refused(str(folder))
    (folder / "words.safetensors").write_text("words, and more of them")
    refused("words.safetensors")
    (folder / "empty.safetensors").touch()
    refused("empty.safetensors")
    save_file(load_file(proxy_file), folder / "foreign.safetensors")
    refused("foreign.safetensors")
    save_file(load_file(proxy_file), folder / "odd.safetensors", metadata={"nasproxy": json.dumps({"schema": 1})})
    refused("odd.safetensors")


def test_a_file_cut_anywhere_is_refused(proxy_file, folder):
    whole = proxy_file.read_bytes()
    for length in {0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1}:
        (folder / "cut.safetensors").write_bytes(whole[:length])
        refused("cut.safetensors")


@pytest.fixture
def legacy(folder: Path) -> Path:
    """What the published code would write of digits."""
    images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10).repeat_interleave(2)
    torch.save({"data": [[images, labels]], "accs_all_exps": {"ConvNet": [0.5]}}, folder / "digits.pt")
    return folder / "digits.pt"


IMPORT = ["--dataset", "digits", "--image-size", "8", "--normalisation", "own"]


def test_a_file_of_the_authors_becomes_a_proxy_that_search_takes(legacy, folder):
    said = invoke("proxy", "convert", str(legacy), *IMPORT, "--json")
    assert said.code == 0, said.err
    assert said.json == {
        "schema": 1,
        "proxy": str(legacy),
        "out": str(folder / "digits.safetensors"),
        "images": 20,
        "dataset": "digits",
        "lossy": False,
        "clipped": None,
        "soft_labels_left_out": False,
    }
    assert said.err.count("full training split") == said.err.count("\n") == 1
    proxy = load_proxy(folder / "digits.safetensors")
    proxy.check_matches(load_dataset("digits", image_size=8))
    words = search_words(write_space(folder / "space"), folder / "run", "--image-size", "8", "--json")
    said = invoke(*words, "--proxy", "digits.safetensors", "--limit", "2", "--top-k", "1")
    assert said.code == 0, said.err
    assert said.json["evaluated"] == 2
    assert said.err.count("full training split") == 1
    said = invoke(*words, "--out", "other", "--proxy", "digits.pt")
    assert said.code == 2
    assert "nasproxy proxy convert digits.pt --dataset" in said.json["error"]["hint"]


def test_an_import_overwrites_nothing_but_a_proxy(legacy, folder):
    (folder / "digits.safetensors").write_text("mine")
    said = invoke("proxy", "convert", str(legacy), *IMPORT, "--json")
    assert said.code == 2
    assert "digits.safetensors would be overwritten" in said.json["error"]["message"]
    assert (folder / "digits.safetensors").read_text() == "mine"


def huge_picture() -> bytes:
    """The beginning of a PNG of more pixels than Pillow opens."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("suffix", [".parquet", ".png"])
def test_an_export_overwrites_nothing_but_an_export(proxy_file, folder, suffix):
    target = folder / f"train{suffix}"
    words = ["proxy", "convert", str(proxy_file), "--out", target.name, "--json"]
    assert [invoke(*words).code for _ in range(2)] == [0, 0]
    if suffix == ".png":
        Image.new("L", (8, 8)).save(target)
    else:
        pq.write_table(pq.read_table(target).replace_schema_metadata(), target)
    for content in (target.read_bytes(), b"mine", huge_picture()):
        target.write_bytes(content)
        said = invoke(*words)
        assert (said.code, said.json["error"]["kind"]) == (2, "input")
        assert f"{target.name} would be overwritten" in said.json["error"]["message"]
        assert target.read_bytes() == content


def test_a_proxy_becomes_parquet_and_a_picture(proxy_file, folder):
    (folder / "images").mkdir()
    said = invoke("proxy", "convert", str(proxy_file), "--out", "images/train.parquet")
    assert said.code == 0
    assert "images/train.parquet: 4 images of tiny" in said.out
    assert "256 levels" in said.err
    said = invoke("proxy", "convert", str(proxy_file), "--out", "grid.png", "--json")
    assert said.json["lossy"]
    with Image.open("grid.png") as drawn:
        assert drawn.format == "PNG"
    assert invoke("proxy", "convert", str(proxy_file), "--out", "copy.safetensors").code == 0
    assert Path("copy.safetensors").read_bytes() == proxy_file.read_bytes()


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["digits.pt"], ["--dataset"]),
        (["digits.pt", "--dataset", "digits", "--image-size", "8"], ["--normalisation"]),
        (["digits.pt", "--dataset", "digits", "--normalisation", "own"], ["8×8", "16×16"]),
        (["digits.pt", *IMPORT, "--experiment", "1"], ["1 experiments"]),
        (["digits.pt", *IMPORT, "--out", "a.jpg"], ["'.jpg'", ".safetensors"]),
        (["digits.pt", *IMPORT, "--out", "nowhere/a.safetensors"], ["nowhere"]),
        (["nothing.pt", *IMPORT], ["nothing.pt"]),
        (["tiny.safetensors"], ["--out"]),
        (["tiny.safetensors", "--out", "tiny.safetensors"], ["is the file itself"]),
        (["tiny.safetensors", "--out", "a.png", "--dataset", "digits"], ["Leave out --dataset"]),
        (["tiny.safetensors", "--out", "a.png", "--image-size", "16"], ["--image-size is for .pt files"]),
        (["tiny.safetensors", "--out", "a.png", "--data-dir", "data"], ["--data-dir is for .pt files"]),
        (["nothing.safetensors", "--out", "a.png"], ["nothing.safetensors"]),
    ],
)
def test_what_cannot_be_converted_is_one_message_and_writes_nothing(proxy_file, legacy, folder, words, fragments):
    before = sorted(folder.iterdir())
    said = invoke("proxy", "convert", *words, "--json")
    assert said.code == 2, said.err
    for fragment in fragments:
        assert fragment in said.json["error"]["message"] + said.json["error"]["hint"]
    assert sorted(folder.iterdir()) == before
