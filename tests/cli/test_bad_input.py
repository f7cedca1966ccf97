"""Each wrong input: exit code 2, one message that names it and what to do, no traceback, nothing written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_search import invoke, search_words, write_space

from nasproxy.datasets.load import load_dataset
from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.proxy_file import save_proxy


def write_images(folder: Path, count: int, *, size: int = 8) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng([number, *folder.name.encode()]).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


@pytest.fixture
def world(folder: Path) -> Path:
    """A space, and folders and files of all kinds that are no good."""
    write_space(folder)
    for name, counts in {"pets": (40, 40), "one": (40,), "few": (40, 4)}.items():
        for number, count in enumerate(counts):
            write_images(folder / name / f"class{number}", count)
    for part in ("class0", "class1"):
        write_images(folder / "torn" / part, 40)
        (folder / "torn" / part / "007.png").write_bytes((folder / "torn" / part / "007.png").read_bytes()[:40])
    (folder / "empty").mkdir()
    (folder / "classes_without_images" / "a").mkdir(parents=True)
    (folder / "classes_without_images" / "b").mkdir()
    (folder / "parquet").mkdir()
    (folder / "parquet" / "train.parquet").write_bytes(b"PAR1 not really")
    proxies = folder / "proxies"
    proxies.mkdir()
    digits = load_dataset("digits")
    good = save_proxy(random_proxy(digits, 2, seed=0), proxies / "good.safetensors")
    (proxies / "cut.safetensors").write_bytes(good.read_bytes()[:-9])
    (proxies / "pickle.pt").write_bytes(b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.")
    save_file(load_file(good), proxies / "foreign.safetensors")
    save_proxy(random_proxy(load_dataset("pets"), 2, seed=0), proxies / "pets.safetensors")
    save_proxy(random_proxy(load_dataset("digits", image_size=8), 2, seed=0), proxies / "small.safetensors")
    other = digits.__class__(**{**vars(digits), "fingerprint": "0" * 32})
    save_proxy(random_proxy(other, 2, seed=0), proxies / "twin.safetensors")
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.tex").write_text("precious")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


WRONG = {
    "unknown dataset": (["--dataset", "digts"], "dataset", ["digts", "Did you mean digits?", "cifar10"]),
    "dataset not there": (["--dataset", "./nowhere"], "dataset", ["nowhere"]),
    "empty folder": (["--dataset", "empty"], "dataset", ["empty"]),
    "classes without images": (["--dataset", "classes_without_images"], "dataset", ["classes_without_images"]),
    "a file for a dataset": (["--dataset", "my_space.py"], "dataset", ["my_space.py"]),
    "no dataset": (["--dataset", ""], "dataset", ["dataset"]),
    "one class": (["--dataset", "one"], "dataset", ["one", "class"]),
    "a small class": (["--dataset", "few", "--ipc", "10"], "dataset", ["class1", "10"]),
    "broken images": (["--dataset", "torn"], "dataset", ["007.png", "--skip-broken"]),
    "broken Parquet": (["--dataset", "parquet"], "dataset", ["train.parquet"]),
    "large ipc": (["--ipc", "1000"], "dataset", ["--ipc", "1000"]),
    "unknown space": (["--space", "convnet700"], "space", ["convnet700", "Did you mean convnet720?"]),
    "space file not there": (["--space", "my_spce.py"], "space", ["my_spce.py", "Did you mean my_space.py?"]),
    "space attribute": (["--space", "my_space.py:Tyni"], "space", ["Tyni", "Did you mean Tiny?"]),
    "unknown proxy": (["--proxy", "condesed"], "input", ["condesed", "Did you mean condensed?", "random"]),
    "proxy not there": (["--proxy", "nowhere.safetensors"], "input", ["nowhere.safetensors"]),
    "proxy a folder": (["--proxy", "proxies"], "input", ["proxies"]),
    "truncated proxy": (["--proxy", "proxies/cut.safetensors"], "proxy", ["cut.safetensors"]),
    "hostile proxy": (["--proxy", "proxies/pickle.pt"], "proxy", ["pickle.pt", "safetensors"]),
    "foreign proxy": (["--proxy", "proxies/foreign.safetensors"], "proxy", ["foreign.safetensors"]),
    "proxy of other images": (["--proxy", "proxies/pets.safetensors"], "proxy", ["8×8", "16×16"]),
    "proxy of another size": (["--proxy", "proxies/small.safetensors"], "proxy", ["8×8", "16×16", "--image-size"]),
    "proxy of a twin": (["--proxy", "proxies/twin.safetensors"], "proxy", ["fingerprint"]),
    "unknown preset": (["--preset", "quik"], "input", ["quik", "Did you mean quick?"]),
    "unknown executor": (["--executor", "ray"], "input", ["ray", "tune", "inline"]),
    "unknown scheduler": (["--scheduler", "halvin"], "input", ["halvin", "Did you mean halving?"]),
    "unknown precision": (["--precision", "float16"], "input", ["float16", "bfloat16"]),
    "unknown augmentation": (["--finalist-augmentation", "flip"], "input", ["flip", "crop-flip"]),
    "unknown device": (["--device", "gpu"], "input", ["gpu", "cuda"]),
    "limit 0": (["--limit", "0"], "input", ["--limit must be 1 or more, got 0"]),
    "limit too high": (["--limit", "13"], "input", ["--limit 13", "12"]),
    "epochs -1": (["--epochs", "-1"], "input", ["--epochs must be 1 or more, got -1"]),
    "finalist epochs 0": (["--finalist-epochs", "0"], "input", ["--finalist-epochs must be 1 or more, got 0"]),
    "repeats -2": (["--repeats", "-2"], "input", ["--repeats must be 1 or more, got -2"]),
    "ipc 0": (["--ipc", "0"], "input", ["--ipc must be 1 or more, got 0"]),
    "top-k 0": (["--top-k", "0"], "input", ["--top-k must be 1 or more, got 0"]),
    "top-k too high": (["--top-k", "13"], "input", ["--top-k 13", "12 candidates", "--top-k 12"]),
    "top-k above limit": (["--limit", "5", "--top-k", "6"], "input", ["--top-k 6", "5 candidates"]),
    "workers 0": (["--workers", "0"], "input", ["--workers must be 1 or more, got 0"]),
    "too many workers": (["--executor", "tune", "--workers", "9999"], "input", ["9999", "cores", "--workers"]),
    "too many threads": (["--threads-per-worker", "9999"], "input", ["9999", "cores"]),
    "no share of a GPU": (["--gpus-per-worker", "0"], "input", ["--gpus-per-worker"]),
    "learning rate": (["--finalist-learning-rate", "-1"], "input", ["-1"]),
    "learning rate on the proxy": (["--learning-rate", "0"], "input", ["learning rate", "got 0.0"]),
    "seed -1": (["--seed", "-1"], "input", ["--seed must be ", "got -1"]),
    "huge seed": (["--seed", str(2**70)], "input", ["--seed"]),
    "image size 0": (["--image-size", "0"], "input", ["--image-size"]),
    "image size in words": (["--image-size", "large"], "input", ["--image-size", "large"]),
    "storage": (["--storage", "nonsense"], "run", ["nonsense", "sqlite:///"]),
    "a database that is not there yet": (["--dataset", "digts", "--storage", "sqlite:///new.db"], "dataset", ["digts"]),
    "directory of something else": (["--out", "thesis"], "run", ["thesis", "--out"]),
    "directory a file": (["--out", "thesis/chapter.tex"], "run", ["chapter.tex", "--out"]),
    "directory below a file": (["--out", "thesis/chapter.tex/run"], "write", ["chapter.tex"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_search_refuses(world: Path, case: str):
    words, kind, fragments = WRONG[case]
    before = content(world)
    said = invoke(*search_words(Path("my_space.py"), Path("run")), *words, "--json")
    assert content(world) == before
    assert said.code == 2, said.err
    document = said.json
    assert list(document) == ["schema", "error"]
    assert document["schema"] == 1
    error = document["error"]
    assert list(error) == ["kind", "message", "hint"]
    assert error["kind"] in (kind, "input"), error
    for fragment in fragments:
        assert fragment in error["message"] + " " + error["hint"], error
    assert "Traceback" not in said.err
    assert said.err.count("Error:") == 1
    assert error["message"] in said.err


def test_without_json_stdout_stays_empty(world: Path):
    said = invoke(*search_words(Path("my_space.py"), Path("run")), "--dataset", "digts")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Error: There is no dataset called 'digts'")


def test_broken_images_are_left_out_and_counted_on_demand(world: Path):
    words = ["--dataset", "torn", "--skip-broken", "--limit", "1", "--top-k", "1"]
    said = invoke(*search_words(Path("my_space.py"), Path("run")), *words)
    assert said.code == 0, said.err
    assert "2 broken images were skipped: class0/007.png, class1/007.png." in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_may_not_be_read_or_written_is_refused(world: Path):
    (world / "pets").chmod(0)
    said = invoke(*search_words(Path("my_space.py"), Path("run")), "--dataset", "pets", "--json")
    assert (said.code, said.json["error"]["kind"]) == (2, "dataset")
    (world / "empty").chmod(0o500)
    said = invoke(*search_words(Path("my_space.py"), Path("empty/run")), "--json")
    assert said.code in (1, 2)
    assert said.json["error"]["kind"] == "write"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_asked_for_where_none_is(world: Path):
    before = content(world)
    said = invoke(*search_words(Path("my_space.py"), Path("run")), "--device", "cuda", "--json")
    assert said.code == 2
    assert "--device cuda" in said.json["error"]["message"]
    assert "cpu" in said.json["error"]["hint"]
    assert content(world) == before


def test_a_directory_that_holds_a_different_run(world: Path):
    words = search_words(Path("my_space.py"), Path("run"), "--limit", "1", "--top-k", "1", "--json")
    assert invoke(*words).code == 0
    before = content(world)
    for more, fragment in (
        ([], "already holds a run"),
        (["--resume", "--seed", "1"], "seed was 0, now 1"),
        (["--resume", "--dataset", "pets"], "dataset was 'digits', now 'pets'"),
        (["--resume", "--space", "convnet720"], "space was 'my_space.py', now 'convnet720'"),
    ):
        said = invoke(*words, *more)
        assert said.code == 2
        assert said.json["error"]["kind"] == "run"
        assert fragment in said.json["error"]["message"]
        assert content(world) == before


def test_no_message_is_longer_than_a_person_reads(world: Path):
    for words, *_ in WRONG.values():
        said = invoke(*search_words(Path("my_space.py"), Path("run")), *words, "--json")
        assert len(json.dumps(said.json["error"]["message"])) < 600


@pytest.mark.parametrize(
    "words",
    [
        ["report", "{}"],
        ["export", "{}", "--out", "net"],
        ["condense", "--iterations", "1", "--out", "{}"],
        ["search", "--proxy", "random", "--storage", "sqlite:///{}"],
    ],
)
def test_a_path_that_the_system_refuses_to_look_at_is_named(folder: Path, words: list[str]):
    said = invoke(*(word.format("a" * 300) for word in words), "--json")
    assert said.code == 2
    error = said.json["error"]
    assert error["kind"] != "internal"
    assert "a" * 300 in error["message"]
    assert error["hint"]
    assert not list(folder.iterdir())
