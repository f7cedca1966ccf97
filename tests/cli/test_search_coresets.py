"""``nasproxy search --proxy`` with images that a training on the whole data chooses, and with a stranger's method."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from tiny_search import invoke, search_words, write_space

from nasproxy.analysis.proxy_images import proxy_grid
from nasproxy.files import cache_folder
from nasproxy.progress import Silent
from nasproxy.proxies.proxy_file import load_proxy
from nasproxy.search.run import run_search
from nasproxy.search.settings import SearchSettings

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


class Recorder(Silent):
    """Keeps what a search tells, stage by stage."""

    def __init__(self) -> None:
        self.stages: dict[str, list[str]] = {}
        self.parts: list[float] = []

    def stage(self, name: str, total: int, *, done: int = 0, work: float | None = None) -> None:
        self.stages[name] = []

    def advance(self, headline: str = "", work: float = 1.0) -> None:
        list(self.stages.values())[-1].append(headline)

    def within_step(self, work: float) -> None:
        self.parts.append(work)


def words(folder: Path, photos: Path, proxy: str, *more: str) -> list[str]:
    few = ["--limit", "2", "--top-k", "1", "--device", "cpu", "--dataset", str(photos), "--proxy", proxy]
    return search_words(write_space(folder), folder / "run", *few, *more)


def told(folder: Path, photos: Path, proxy: str) -> Recorder:
    recorder = Recorder()
    settings = SearchSettings(
        dataset=str(photos),
        space=str(write_space(folder)),
        proxy=proxy,
        ipc=2,
        epochs=2,
        finalist_epochs=1,
        limit=2,
        top_k=1,
        executor="inline",
        device="cpu",
        out=folder / "run",
    )
    assert run_search(settings, progress=recorder).summary["proxy"] == proxy
    return recorder


def test_searches_tell_what_coresets_do_and_share_a_training(folder: Path, photos: Path):
    for proxy in ("herding", "k-center", "forgetting"):
        stages = told(folder / proxy, photos, proxy).stages
        file = folder / proxy / "run" / "proxy.safetensors"
        losses = load_proxy(file).history
        assert stages["Selecting"] == [f"training loss {loss:.2f}" for loss in losses]
        assert len(losses) == 20
        assert "Condensing" not in stages
        shown = invoke("proxy", "show", str(file), "--json").json
        assert (shown["method"], shown["images"], shown["recipe"]["epochs"]) == (proxy, 6, 20)
        assert f"6 images ({proxy}) of photos" in [text.get_text() for text in proxy_grid(load_proxy(file)).texts]
    said = invoke(*words(folder, photos, "herding", "--ipc", "1"))
    assert said.code == 0, said.err
    assert "Selecting: 20 of 20" in said.err
    assert len(list((cache_folder() / "trainings").iterdir())) == 1


def test_searches_tell_how_far_an_iteration_of_condensing_is(folder: Path, photos: Path):
    recorder = told(folder, photos, "condensed")
    parts, iterations = recorder.parts, len(recorder.stages["Condensing"])
    assert len(parts) == iterations * 2 * 3  # two matching steps of three classes
    assert sum(part == 0 for part in parts) == iterations
    assert max(parts) < 1


@pytest.mark.parametrize("proxy", ["herding", "k-center", "forgetting"])
def test_a_dry_run_times_it_and_keeps_nothing(folder: Path, photos: Path, proxy: str):
    assert invoke(*words(folder, photos, proxy, "--dry-run", "--json")).json["seconds"]["condense"] > 0
    kept = {path.parent.name for path in cache_folder().rglob("*.safetensors")}
    assert kept <= {"images"}  # the folder's, decoded


def test_too_many_images_a_class_are_refused_at_once(folder: Path, photos: Path):
    said = invoke(*words(folder, photos, "herding", "--ipc", "13", "--json"))
    assert said.code == 2
    assert "13 images per class" in said.json["error"]["message"]
    assert not (folder / "run").exists()


def test_a_strangers_method_in_its_own_words(folder: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    info = folder / "site" / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nasproxy.proxies]\nslow = stranger_slow:Slow\n")
    (folder / "site" / "stranger_slow.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(folder / "site")
    recorder = told(folder, photos, "slow")
    assert recorder.stages["Pondering"] == ["doubt 1.00", "doubt 0.50"]
    assert not recorder.parts
    assert load_proxy(folder / "run" / "proxy.safetensors").method == "slow"
