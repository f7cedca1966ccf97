import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_dataset
from tiny_search import invoke

from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.proxy_file import save_proxy


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
    for word in ("method", "random", "images", "4", "[8, 8]"):
        assert word in said.out


def test_the_picture_goes_where_it_is_asked_to(proxy_file, folder):
    said = invoke("proxy", "show", str(proxy_file), "--png", "elsewhere.png")
    assert said.code == 0
    assert (folder / "elsewhere.png").exists()
    assert not proxy_file.with_suffix(".png").exists()


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
