"""``nasproxy search --proxy`` with images that a training on the whole data chooses, and with a stranger's method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_search import Said, invoke, search_words, write_space

from nasproxy.files import cache_folder

STRANGER = """
from dataclasses import dataclass
from typing import ClassVar

from nasproxy.coresets.random import RandomImages


@dataclass(frozen=True)
class Slow(RandomImages):
    name: ClassVar[str] = "slow"
    verb: ClassVar[str] = "Pondering"
    loss_name: ClassVar[str] = "doubt"

    @property
    def steps(self):
        return 2

    def make(self, dataset, *, on_iteration=None, **where):
        for step in (1, 2):
            if on_iteration:
                on_iteration(step, 1 / step)
        return super().make(dataset, **where)
"""


@pytest.fixture
def photos(folder: Path) -> Path:
    """A colour dataset of three classes, whose training on the whole takes a moment."""
    for label in range(3):
        (folder / "photos" / f"class {label}").mkdir(parents=True)
        for number in range(12):
            image = Image.effect_noise((8, 8), 40 + 60 * label).convert("RGB")
            image.save(folder / "photos" / f"class {label}" / f"{number}.png")
    return folder / "photos"


def search(folder: Path, photos: Path, proxy: str, *more: str) -> Said:
    words = search_words(write_space(folder), folder / f"run-{proxy}", "--dataset", str(photos), *more)
    return invoke(*words, "--proxy", proxy, "--limit", "3", "--device", "cpu")


@pytest.mark.parametrize("proxy", ["herding", "k-center", "forgetting"])
def test_a_search_by_a_coreset(folder: Path, photos: Path, proxy: str):
    dry = search(folder, photos, proxy, "--dry-run", "--json").json
    assert dry["seconds"]["condense"] > 0
    assert not list(cache_folder().rglob("*.safetensors"))

    said = search(folder, photos, proxy)
    assert said.code == 0, said.err
    assert "Selecting" in said.err
    assert "training loss" in said.err
    assert "ondens" not in said.out + said.err

    file = folder / f"run-{proxy}" / "proxy.safetensors"
    shown = invoke("proxy", "show", str(file), "--json").json
    assert (shown["method"], shown["images"], shown["recipe"]["epochs"]) == (proxy, 6, 20)
    assert Path(shown["png"]).is_file()
    assert proxy in invoke("proxy", "show", str(file)).out


def test_too_many_images_a_class_are_refused_at_once(folder: Path, photos: Path):
    said = search(folder, photos, "herding", "--ipc", "13", "--json")
    assert said.code == 2
    assert "13 images per class" in said.json["error"]["message"]
    assert not (folder / "run-herding").exists()


def test_a_strangers_method(folder: Path, photos: Path):
    info = folder / "site" / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nasproxy.proxies]\nslow = stranger_slow:Slow\n")
    (folder / "site" / "stranger_slow.py").write_text(STRANGER)
    words = search_words(write_space(folder), folder / "run", "--dataset", str(photos), "--limit", "3")
    path = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [str(Path(sys.executable).with_name("nasproxy")), *words, "--proxy", "slow"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Pondering" in done.stderr
    assert "doubt" in done.stderr
    assert invoke("proxy", "show", str(folder / "run" / "proxy.safetensors"), "--json").json["method"] == "slow"
