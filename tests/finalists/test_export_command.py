import importlib.util
import io
import json
import re
import runpy
import shutil
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from searched import CLASSES, NETS, Searched
from tiny_search import SPACE, invoke, search_words, write_space

from nasproxy.finalists.open import open_finalist


def _says(searched: Searched, image: Path) -> str:
    return invoke("predict", str(searched.run), str(image), "--json").json["images"][0]["class"]


def _run_the_cards_code(card: Path, folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the card's own code prints in ``folder`` for ``image``."""
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
    shutil.copy(image, folder / "image.png")
    (folder / "load.py").write_text(code)
    monkeypatch.chdir(folder)
    with redirect_stdout(io.StringIO()) as out:
        runpy.run_path("load.py")
    return out.getvalue().strip()


def test_a_folder_that_needs_no_nasproxy(searched: Searched, tmp_path: Path):
    said = invoke("export", str(searched.run), "--format", "torch", "--out", str(tmp_path / "net"), "--json")
    document = said.json
    summary = json.loads((searched.run / "summary.json").read_text())
    assert said.code == 0
    assert (document["schema"], document["format"], document["id"]) == (1, "torch", summary["winner"]["id"])
    assert document["difference"] < 1e-5
    assert document["latency_ms"] > 0
    assert {path.name for path in (tmp_path / "net").iterdir()} == {
        "README.md", "classify.py", "config.json", "weights.safetensors",
    }  # fmt: skip
    for name in ("classify.py", "weights.safetensors"):
        assert (tmp_path / "net" / name).read_bytes() == (searched.run / "winner" / name).read_bytes()
    images = sorted(searched.photos.rglob("*.png"))[::7]
    ours = invoke("predict", str(searched.run), *map(str, images), "--json").json["images"]
    theirs = runpy.run_path(str(tmp_path / "net" / "classify.py"))["classify"](images)
    assert [row["class"] for row in ours] == [name for name, _ in theirs]
    assert [row["probability"] for row in ours] == pytest.approx([share for _, share in theirs], abs=1e-5)


def test_the_card_says_where_the_network_comes_from(searched: Searched):
    text = (searched.run / "winner" / "README.md").read_text()
    winner = json.loads((searched.run / "summary.json").read_text())["winner"]
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    metric = facts["model-index"][0]["results"][0]["metrics"][0]
    assert facts["pipeline_tag"] == "image-classification"
    assert metric["value"] == winner["test_accuracy"]
    for fragment in (
        "a\\|cat",
        "dog \\<b\\>",
        winner["id"],
        "Wilson",
        "How far the two orders",
        "python classify.py",
        "ray ",
    ):
        assert fragment in body
    assert str(searched.photos.parent) not in text


def test_another_rank_is_another_network(searched: Searched, tmp_path: Path):
    top = json.loads((searched.run / "summary.json").read_text())["top"]
    found = {entry["rank"]: open_finalist(searched.run, entry["rank"]) for entry in top}
    assert {rank: finalist.description.id for rank, finalist in found.items()} == {1: top[0]["id"], 2: top[1]["id"]}
    for rank, finalist in found.items():
        kept = load_file(searched.run / "finalists" / f"{top[rank - 1]['id']}-0.safetensors")
        held = finalist.model().state_dict()
        assert all(torch.equal(held[name], value) for name, value in kept.items())


@pytest.mark.parametrize("form", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_one_file_with_all_that_running_it_takes(searched: Searched, tmp_path: Path, monkeypatch, form: str):
    if form == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    file = tmp_path / f"net.{form}"
    said = invoke("export", str(searched.run), "--rank", "2", "--format", form, "--out", str(file), "--json")
    document = said.json
    assert said.code == 0, said.err
    assert (document["rank"], document["any_batch"], document["bytes"]) == (2, True, file.stat().st_size)
    assert document["difference"] < 1e-5
    image = searched.photos / CLASSES[1] / "00.png"
    expected = invoke("predict", str(searched.run), str(image), "--rank", "2", "--json").json["images"][0]["class"]
    assert _run_the_cards_code(tmp_path / f"net.{form}.md", tmp_path, image, monkeypatch) == expected
    content = file.read_bytes()
    if form == "pt2":
        with zipfile.ZipFile(file) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(searched.space.parent).encode() not in content  # nobody learns where the user's files lie
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(("net", "."))}
    assert left == {f"net.{form}", f"net.{form}.md"}


@pytest.mark.slow
def test_onnx_is_checked_by_its_reference_where_onnxruntime_is_missing(searched: Searched, tmp_path: Path, monkeypatch):
    pytest.importorskip("onnxscript")
    _hide(monkeypatch, "onnxruntime")
    said = invoke("export", str(searched.run), "--format", "onnx", "--out", str(tmp_path), "--json")
    assert said.code == 0, said.err
    assert "reference" in said.json["checked_with"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "README.md"}


def _hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    real = importlib.util.find_spec
    for module in ("nasproxy.optional.importlib.util.find_spec", "nasproxy.export.program.find_spec"):
        monkeypatch.setattr(module, lambda name, *more: None if name in packages else real(name, *more))


def test_a_missing_package_is_named_with_the_command_that_installs_it(searched: Searched, tmp_path: Path, monkeypatch):
    _hide(monkeypatch, "onnx", "onnxscript")
    said = invoke("export", str(searched.run), "--format", "onnx", "--out", str(tmp_path / "net.onnx"), "--json")
    error = said.json["error"]
    assert (said.code, error["kind"]) == (2, "package")
    assert "python -m pip install onnx onnxscript" in error["hint"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--format", "onx"], ["'onx'", "Did you mean onnx"]),
        (["--rank", "3"], ["--rank 3", "1 to 2"]),
        (["--rank", "0"], ["--rank 0"]),
        (["--format", "pt2", "--out", "net.onnx"], ["net.onnx", ".pt2"]),
        (["--format", "pt2", "--out", "there.pt2"], ["there.pt2 is there already"]),
        (["--out", "full"], ["full is there already"]),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    searched: Searched, tmp_path: Path, monkeypatch, words: list[str], fragments: list[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt2").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    out = [] if "--out" in words else ["--out", "net"]
    said = invoke("export", str(searched.run), *words, *out)
    assert (said.code, said.out) == (2, "")
    for fragment in fragments:
        assert fragment in said.err
    assert {path.name for path in tmp_path.iterdir()} == {"there.pt2", "full"}


def _spoil(run: Path, how: str) -> None:
    finalists = sorted((run / "finalists").iterdir())
    match how:
        case "unfinished":
            (run / "summary.json").unlink()
        case "no weights":
            shutil.rmtree(run / "finalists")
        case "cut weights":
            for file in finalists:
                file.write_bytes(file.read_bytes()[:100])
        case "other weights":
            small, large = sorted(finalists, key=lambda file: file.stat().st_size)
            for file, content in ((small, large.read_bytes()), (large, small.read_bytes())):
                file.write_bytes(content)
        case "no description":
            (run / "winner" / "config.json").unlink()
        case "foreign description":
            (run / "winner" / "config.json").write_text('{"schema": 1, "class_names": 3}')
        case "foreign":
            (run / "run.json").write_text("{}")
        case "not a run":
            shutil.rmtree(run)
            run.mkdir()


@pytest.mark.parametrize(
    ("how", "fragment"),
    [
        ("unfinished", "has not come to its end"),
        ("no weights", "is missing"),
        ("cut weights", "cannot be read"),
        ("other weights", "do not fit"),
        ("no description", "config.json cannot be read"),
        ("foreign description", "config.json cannot be read"),
        ("foreign", "run.json cannot be read"),
        ("not a run", "holds no run.json"),
    ],
)
def test_a_run_that_is_not_whole_is_said(searched: Searched, tmp_path: Path, how: str, fragment: str):
    spoilt = searched.copy(tmp_path)
    _spoil(spoilt.run, how)
    said = invoke("export", str(spoilt.run), "--out", str(tmp_path / "net"), "--json")
    assert said.code == 2
    assert (said.json["error"]["kind"], fragment in said.json["error"]["message"]) == ("run", True), said.err
    assert not (tmp_path / "net").exists()


def test_code_that_was_never_named_here_is_not_run(searched: Searched, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    image = str(searched.photos / CLASSES[0] / "00.png")
    said = invoke("predict", str(searched.run), image)
    assert said.code == 2
    assert "--space" in said.err
    assert invoke("predict", str(searched.run), image, "--space", str(searched.space)).code == 0
    assert invoke("predict", str(searched.run), image).code == 0  # now it was


@pytest.mark.parametrize("given", [False, True])
def test_code_that_has_changed_since_the_search_is_refused(
    searched: Searched, tmp_path: Path, monkeypatch, given: bool
):
    changed = write_space(tmp_path, NETS.replace("nn.Tanh", "nn.GELU"))
    image = str(searched.photos / CLASSES[0] / "00.png")
    if given:
        said = invoke("predict", str(searched.run), image, "--space", str(changed))
    else:
        before = searched.space.read_text()
        searched.space.write_text(changed.read_text())
        said = invoke("predict", str(searched.run), image)
        searched.space.write_text(before)
    assert said.code == 2
    assert "another text" in said.err


def test_the_folder_that_the_command_runs_in_is_no_place_for_another(searched: Searched, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", str(tmp_path)):
        said = invoke("export", str(searched.run), "--out", out, "--json")
        assert (said.code, said.json["error"]["kind"]) == (2, "input")
        assert f"--out {out} is the folder that the command runs in" in said.json["error"]["message"]
    assert list(tmp_path.iterdir()) == []
    assert invoke("export", str(searched.run), "--out", "net").code == 0


UNTRACEABLE = SPACE.replace(
    "        return images\n", "        return images if images.isfinite().all() else images.nan_to_num()\n"
)


@pytest.mark.parametrize("there", [True, False])
def test_of_a_link_the_folder_that_it_leads_to_is_written(searched: Searched, tmp_path: Path, there: bool):
    link, folder = tmp_path / "links" / "net", tmp_path / "disk" / "net"
    link.parent.mkdir()
    (folder if there else folder.parent).mkdir(parents=True)
    link.symlink_to(folder)
    said = invoke("export", str(searched.run), "--out", str(link))
    assert said.code == 0, said.err
    assert link.is_symlink()
    assert "weights.safetensors" in {path.name for path in folder.iterdir()}
    assert [path.name for parent in (link.parent, folder.parent) for path in parent.iterdir()] == ["net", "net"]


def test_a_network_that_cannot_be_written_leaves_nothing_in_the_way(searched: Searched, tmp_path: Path):
    words = ["--dataset", str(searched.photos), "--precision", "float32", "--limit", "2", "--top-k", "1"]
    assert invoke(*search_words(write_space(tmp_path, UNTRACEABLE), tmp_path / "run", *words)).code == 0
    # What a search hands over says nothing of a file that is not there.
    assert {path.name for path in (tmp_path / "run" / "winner").iterdir()} == {"config.json", "weights.safetensors"}
    for _ in range(2):
        said = invoke("export", str(tmp_path / "run"), "--out", str(tmp_path / "net"), "--json")
        assert (said.code, said.json["error"]["kind"]) == (1, "export")
        assert not (tmp_path / "net").exists()
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert invoke("export", str(tmp_path / "run"), "--out", str(tmp_path / "link")).code == 1
    assert list((tmp_path / "link").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"run", "my_space.py", "disk", "link"}
