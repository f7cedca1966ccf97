"""Whole comparisons of a few small networks: shared work, resuming from any point, proxies that fail."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from disturbed_search import wait_until
from tiny_search import finish, invoke, journal_lines, recorded_trainings, start, write_space

from nasproxy.compare.plan import plan_comparison
from nasproxy.compare.run import run_compare
from nasproxy.compare.scores import ComparisonScores, load_scores
from nasproxy.compare.settings import CompareSettings, asked_before
from nasproxy.datasets.load import load_dataset
from nasproxy.errors import DatasetError, InputError, ProxyError, RunError
from nasproxy.progress import Silent
from nasproxy.proxies.make import random_proxy
from nasproxy.proxies.proxy_file import load_proxy, save_proxy
from nasproxy.search.run import run_search
from nasproxy.search.settings import SearchSettings
from nasproxy.spaces.candidate import Candidate

PROXIES = ("random", "parameters", "snip", "naswot")
WORDS = ["--ipc", "2", "--epochs", "2", "--finalist-epochs", "1", "--top-k", "3", "--sample", "6", "--repeats", "2"]


def settings_of(space: Path, out: Path, proxies: tuple[str, ...] = PROXIES, **changed: Any) -> CompareSettings:
    search = {"space": str(space), "ipc": 2, "epochs": 2, "finalist_epochs": 1, "top_k": 3, "repeats": 2}
    sample = changed.pop("sample", 6)
    return CompareSettings(SearchSettings(**{**search, **changed}, executor="inline", out=out), proxies, sample)


def words_of(space: Path, out: Path, *more: str) -> list[str]:
    where = ["--space", str(space), "--out", str(out), "--executor", "inline"]
    return ["compare", *where, "--proxies", ",".join(PROXIES), *WORDS, *more]


def scores_without_times(scores: ComparisonScores) -> dict[str, list[str]]:
    return {name: texts for name, texts in scores.columns.items() if "seconds" not in name}


def document_without_times(directory: Path) -> dict[str, Any]:
    document = json.loads((directory / "comparison.json").read_text())
    rows = [{**row, "minutes": 0, "making_minutes": 0} for row in document["rows"]]
    return {**document, "rows": rows, "run": ""}


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def finished(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    result = run_compare(settings_of(space, out))
    assert result.failed == 0
    shown = ["ComparisonScores(12 candidates of tiny on digits", f"  by {', '.join(PROXIES)})"]
    assert repr(load_scores(out)).splitlines() == shown
    assert repr(result).splitlines() == [f"CompareResult({out}: 0 failed", f"  {shown[0]}", f"{shown[1]})"]
    return out


def test_every_candidate_has_every_score_and_those_that_matter_a_whole_one(finished: Path):
    scores = load_scores(finished)
    assert len(scores) == 12
    for name in ("random", "parameters", "snip"):
        assert not np.isnan(scores.repeats(name)).any()
    relu = np.array([value == "relu" for value in scores.choice("activation")])
    # Two hidden units cannot switch in 128 different ways, nor can any of these widths.
    assert np.isnan(scores.repeats("naswot")).any(axis=1).sum() >= (~relu).sum()
    trained = ~np.isnan(scores.repeats("whole")).any(axis=1)
    assert trained[scores.sampled].all()
    assert scores.sampled.sum() == 6
    for name in ("random", "snip"):
        best = np.argsort(-scores.repeats(name).mean(1), kind="stable")[0]
        assert trained[best]
    np.testing.assert_array_equal(trained, ~np.isnan(scores.repeats("test")).any(axis=1))
    widths = scores.choice("width")
    assert list(scores.repeats("parameters")[:, 0]) == [256 * w + w + 10 * w + 10 for w in widths]
    assert list(scores.numbers("parameters")) == list(scores.repeats("parameters")[:, 1])


def test_each_is_trained_on_the_whole_data_once(finished: Path):
    scores = load_scores(finished)
    trained = int((~np.isnan(scores.repeats("whole")).any(axis=1)).sum())
    recorded = recorded_trainings(finished / "whole")
    assert set(recorded.values()) == {1}
    assert len(recorded) == 2 * trained
    for name in PROXIES:
        assert not any(kind.startswith("whole") for _, kind in recorded_trainings(finished / "proxies" / name))


def test_scores_by_images_are_those_of_a_search(finished: Path, space: Path, tmp_path: Path):
    search = settings_of(space, tmp_path / "search").search
    options = {"proxy": "random", "scheduler": "none", "executor": "inline", "out": tmp_path / "search"}
    names = ("space", "ipc", "epochs", "finalist_epochs", "top_k", "repeats")
    found = run_search(SearchSettings(**{name: getattr(search, name) for name in names}, **options))
    scores = load_scores(finished)
    by_id = dict(zip(scores.columns["id"], scores.repeats("random").mean(1), strict=True))
    for row in found.table.to_dict("records"):
        assert by_id[row["id"]] == pytest.approx(row["proxy_accuracy"])
        if row["whole_accuracy"] == row["whole_accuracy"]:
            config = {"width": row["params_width"], "activation": row["params_activation"]}
            whole = scores.query(config)
            assert np.isnan(whole) or whole == pytest.approx(row["whole_accuracy"])


def test_the_directory_holds_the_table_in_every_form(finished: Path):
    names = {path.name for path in finished.iterdir()} - {".lock"}
    assert names == {
        "run.json", "proxies", "whole", "scores.csv", "scores.json", "within.csv", "tops.csv", "report.html", "figures",
        "comparison.csv", "comparison.json", "comparison.md", "comparison.tex",
    }  # fmt: skip
    assert {path.name for path in (finished / "proxies").iterdir()} == {*PROXIES}
    names = ("scatters", "cost", "rank_flow", "within", "images")
    assert {path.name for path in (finished / "figures").iterdir()} == {
        f"{n}.{s}" for n in names for s in ("png", "pdf")
    }


def cut_journals(run: Path, share: float) -> None:
    """What a comparison leaves that is killed after ``share`` of all that it records, half-written line included."""
    journals = [run / "proxies" / name / "study.log" for name in PROXIES] + [run / "whole" / "study.log"]
    left = int(share * sum(journal.stat().st_size for journal in journals))
    for path in (*run.glob("comparison.*"), *run.glob("scores.*"), run / "within.csv"):
        path.unlink()
    for journal in journals:
        size = journal.stat().st_size
        if left <= 0:
            shutil.rmtree(journal.parent)
        elif left < size:
            journal.write_bytes(journal.read_bytes()[:left])
        left -= size


SLOW = pytest.mark.slow


@pytest.mark.parametrize("share", [pytest.param(0.0, marks=SLOW), 0.3, pytest.param(0.6, marks=SLOW), 0.97])
def test_cut_off_anywhere_and_resumed_the_table_is_the_same(finished: Path, space: Path, tmp_path: Path, share: float):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    cut_journals(out, share)
    result = run_compare(settings_of(space, out), resume=True)
    assert scores_without_times(result.scores) == scores_without_times(load_scores(finished))
    assert document_without_times(out) == document_without_times(finished)
    assert Counter(recorded_trainings(out / "whole").values()).keys() == {1}


@pytest.mark.slow
def test_killed_in_a_process_of_its_own_and_resumed(finished: Path, space: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = start(words_of(space, out), seconds=0.01)
    wait_until(lambda: len(journal_lines(out / "proxies" / "random")) >= 6, process)
    process.kill()
    assert finish(process).code == -signal.SIGKILL
    said = invoke(*words_of(space, out, "--resume"))
    assert said.code == 0, said.err
    assert "done before" in said.err
    assert scores_without_times(load_scores(out)) == scores_without_times(load_scores(finished))


def test_a_run_that_is_there_is_only_resumed_as_it_was(finished: Path, space: Path):
    with pytest.raises(RunError, match="already holds"):
        run_compare(settings_of(space, finished))
    with pytest.raises(RunError, match="sample was 6, now 7"):
        run_compare(settings_of(space, finished, sample=7), resume=True)


def others(mine: Path) -> tuple[str, ...]:
    return ("random", "random+random", str(mine), f"early-stopping+{mine}")


@pytest.fixture(scope="module")
def changed(finished: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison, resumed with other proxies: two left out, a file and what takes trainings added."""
    out = tmp_path_factory.mktemp("changed") / "run"
    shutil.copytree(finished, out)
    shutil.copy(out / "proxies" / "random" / "proxy.safetensors", out.parent / "mine.safetensors")
    run_compare(settings_of(space, out, others(out.parent / "mine.safetensors")), resume=True)
    return out


def test_a_resumed_comparison_may_be_of_other_proxies_and_trains_only_what_is_new(finished: Path, changed: Path):
    rows = {row["proxy"]: row for row in json.loads((changed / "comparison.json").read_text())["rows"]}
    assert list(rows) == ["random", "random+random", "mine", "early-stopping", "early-stopping+mine"]
    for name in PROXIES:
        journal = Path("proxies", name, "study.log")
        assert (changed / journal).read_bytes() == (finished / journal).read_bytes()
    assert set(recorded_trainings(changed / "whole").values()) == {1}
    before, scores = load_scores(finished), load_scores(changed)
    np.testing.assert_array_equal(scores.repeats("random"), before.repeats("random"))
    # The same images under another name; the trainings' seeds are the same too.
    np.testing.assert_array_equal(scores.repeats("mine"), before.repeats("random"))
    sampled = scores.sampled
    np.testing.assert_array_equal(scores.repeats("whole")[sampled], before.repeats("whole")[sampled])
    assert asked_before(changed) == others(changed.parent / "mine.safetensors")
    assert asked_before(changed.parent) is None


def test_what_a_mixture_names_twice_is_made_and_trained_twice(finished: Path, changed: Path):
    rows = {row["proxy"]: row for row in json.loads((changed / "comparison.json").read_text())["rows"]}
    assert rows["random+random"]["storage_images"] == 2 * rows["random"]["storage_images"]
    assert rows["random+random"]["minutes"] > rows["random"]["minutes"]
    images = [load_proxy(changed / "proxies" / name / "proxy.safetensors").images for name in ("random", "random#2")]
    assert not torch.equal(*images)
    # Twice the mean without the first's standardised scores is the second's, which are not the first's.
    first, both = load_scores(finished).repeats("random"), load_scores(changed).repeats("random+random")
    standardised = (first - first.mean()) / first.mean(1).std()
    assert np.abs(2 * both - 2 * standardised).max() > 0.1
    assert (2 * both - standardised).mean(1).std() == pytest.approx(1)


@pytest.mark.slow
def test_begun_with_the_other_proxies_the_table_is_the_same(changed: Path, space: Path, tmp_path: Path):
    fresh = run_compare(settings_of(space, tmp_path / "run", others(changed.parent / "mine.safetensors")))
    assert scores_without_times(fresh.scores) == scores_without_times(load_scores(changed))
    assert document_without_times(tmp_path / "run") == document_without_times(changed)


def test_a_file_of_other_data_is_refused_before_anything_is_made(finished: Path, space: Path, tmp_path: Path):
    proxy = load_proxy(finished / "proxies" / "random" / "proxy.safetensors")
    save_proxy(replace(proxy, fingerprint="0" * 32), tmp_path / "strange.safetensors")
    with pytest.raises(ProxyError, match="fingerprint 0000"):
        run_compare(settings_of(space, tmp_path / "run", ("random", str(tmp_path / "strange.safetensors"))))
    assert not (tmp_path / "run").exists()


def test_that_a_file_has_seen_validation_images_is_said(space: Path, tmp_path: Path):
    proxy = random_proxy(load_dataset("digits"), 2, seed=0)
    for name, sources in (("mine", {}), ("theirs", {"sources": "full training split"})):
        save_proxy(replace(proxy, recipe={**proxy.recipe, **sources}), tmp_path / f"{name}.safetensors")
    files = tuple(str(tmp_path / f"{name}.safetensors") for name in ("mine", "theirs"))
    plan = plan_comparison(settings_of(space, tmp_path / "run", files), resume=False, progress=Silent())
    assert [note.partition(":")[0] for note in plan.notes if "full training split" in note] == ["theirs"]


FAILING = """
from dataclasses import dataclass
from nasproxy import CandidateScore, ProxyMethod

@dataclass(frozen=True)
class Broken(ProxyMethod):
    name = "broken"
    def make(self, dataset, **options):
        raise OSError("the camera is off")

@dataclass(frozen=True)
class Width(CandidateScore):
    name = "width"
    looks_at_images = False
    def score(self, model, images, labels):
        return -float(model[2].out_features)
"""


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers a proxy which fails, and a score."""
    info = tmp_path / "site" / "strangers-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    entries = "broken = strangers_proxies:Broken\nwidth = strangers_proxies:Width\n"
    info.joinpath("entry_points.txt").write_text(f"[nasproxy.proxies]\n{entries}")
    (tmp_path / "site" / "strangers_proxies.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.mark.usefixtures("strangers")
def test_a_proxy_that_fails_is_a_row_that_says_why_and_a_strangers_score_takes_part(space: Path, tmp_path: Path):
    out = tmp_path / "run"
    result = run_compare(settings_of(space, out, ("broken", "width"), repeats=1))
    broken, width = result.document["rows"]
    assert broken["reason"] == "OSError: the camera is off"
    assert {value for name, value in broken.items() if name not in ("proxy", "reason")} == {None}
    assert result.failed == 1
    assert list(result.scores.repeats("width")[:, 0]) == [-float(w) for w in result.scores.choice("width")]
    # The smallest are put first: three activations of width 2.
    assert width["winners"] is not None
    assert set(load_scores(out).proxies) == {"broken", "width"}


RETURNED = """
import numpy as np
import torch
from dataclasses import dataclass
from nasproxy import CandidateScore
from nasproxy.errors import ScoreError

def score_of(found):
    @dataclass(frozen=True)
    class Found(CandidateScore):
        name = "found"
        looks_at_images = False
        def score(self, model, images, labels):
            return found(model[2].out_features)
    return Found

Tensor = score_of(lambda width: torch.tensor(width * 0.5, requires_grad=True))
Numpy = score_of(np.float32)
Array = score_of(np.array)
Bool = score_of(bool)
Nothing = score_of(lambda width: None)
Complex = score_of(complex)
Text = score_of(str)
Vector = score_of(lambda width: torch.ones(1))

def undefined(width):
    raise ScoreError("nothing to see")
Undefined = score_of(undefined)
"""
TAKEN = ("tensor", "numpy", "array")
REFUSED = {
    "bool": "a bool",
    "nothing": "a NoneType",
    "complex": "a complex",
    "text": "a str",
    "vector": "a Tensor of shape (1,)",
}
COMPARED = """
import sys
from pathlib import Path
from nasproxy import CompareSettings, SearchSettings, run_compare
space, out, *names = sys.argv[1:]
search = SearchSettings(space=space, ipc=2, epochs=1, finalist_epochs=1, top_k=3, executor="inline", out=out)
print(run_compare(CompareSettings(search, tuple(names), 3)).failed)
"""


def test_a_score_is_any_real_number_and_what_else_comes_is_a_failure_by_name(space: Path, tmp_path: Path):
    """In processes of their own: under the tests what is returned is checked against its annotation."""
    site, names = tmp_path / "site", (*TAKEN, *REFUSED, "undefined")
    info = site / "returned-1.0.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: returned\nVersion: 1.0\n")
    entries = "\n".join(f"{name} = returned_scores:{name.capitalize()}" for name in names)
    info.joinpath("entry_points.txt").write_text(f"[nasproxy.proxies]\n{entries}\n")
    (site / "returned_scores.py").write_text(RETURNED)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    out, failed = tmp_path / "run", 12 * len(REFUSED)  # of the undefined score none is a failure
    words = [sys.executable, "-c", COMPARED, str(space), str(out), *names]
    said = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert said.stdout == f"{failed}\n"
    scores = load_scores(out)
    for name in TAKEN:
        times = 0.5 if name == "tensor" else 1.0
        assert list(scores.repeats(name)[:, 0]) == [width * times for width in scores.choice("width")]
    assert list(scores.proxies["undefined"]["failures"]) == ["ScoreError: nothing to see"]
    rows = json.loads((out / "comparison.json").read_text())["rows"]
    reasons = {row["proxy"]: row["reason"] for row in rows}
    for name, what in REFUSED.items():
        assert f"Found.score must return a number, but returned {what}" in reasons[name]


def test_what_is_wrong_is_said_before_anything_is_made(space: Path, tmp_path: Path):
    out = tmp_path / "run"
    for changed, message in (
        ({"proxies": ("random", "synflo")}, "Did you mean synflow"),
        ({"proxies": ()}, "no proxy to compare"),
        ({"proxies": ("snip", "snip")}, "more than once"),
        ({"sample": 2}, "3 or more"),
        ({"sample": 13}, "more than the 12"),
        ({"limit": 2}, "--top-k 3"),
        ({"scheduler": "halving"}, "every candidate in full"),
        ({"scheduler": "asha", "repeats": 1}, "every candidate in full"),
        ({"scheduler": "hyperband", "repeats": 1}, "every candidate in full"),
        ({"time_budget": 5.0}, "no time budget"),
        ({"objectives": ("accuracy", "parameters")}, "ranks by accuracy alone"),
        ({"storage": "sqlite:///study.db"}, "keeps the studies of its proxies in its directory"),
        ({"tensorboard": True}, "no curves for TensorBoard"),
    ):
        with pytest.raises(InputError, match=message):
            run_compare(settings_of(space, out, **changed))
    assert not out.exists()


def test_classes_are_as_large_as_asked_only_where_a_proxy_makes_images(space: Path, tmp_path: Path):
    save_proxy(random_proxy(load_dataset("digits"), 2, seed=0), tmp_path / "mine.safetensors")
    names = ("parameters", "early-stopping", str(tmp_path / "mine.safetensors"))
    plan = plan_comparison(settings_of(space, tmp_path / "run", names, ipc=2000), resume=False, progress=Silent())
    assert list(plan.proxies) == ["parameters", "early-stopping", "mine"]
    with pytest.raises(DatasetError, match="2000 images per class were asked for"):
        run_compare(settings_of(space, tmp_path / "run", ("parameters", "snip+random"), ipc=2000))
    assert not (tmp_path / "run").exists()
    result = run_compare(settings_of(space, tmp_path / "run", ("parameters",), ipc=2000, repeats=1, sample=3))
    assert result.failed == 0


def test_how_many_are_left_out_is_said_whatever_was_said_before(space: Path, tmp_path: Path):
    settings = settings_of(space, tmp_path / "run", ("parameters",), preset="paper", max_parameters=2500)
    plan = plan_comparison(settings, resume=False, progress=Silent())
    assert "3 candidates are larger than asked for and left out." in plan.notes


def test_the_quick_preset_takes_a_stratified_sample_and_says_so(tmp_path: Path):
    # No image is looked at and nothing is trained on them, so that thirty ConvNets take seconds.
    from nasproxy.compare.plan import plan_comparison
    from nasproxy.progress import Silent

    search = SearchSettings(executor="inline", out=tmp_path / "run")
    plan = plan_comparison(CompareSettings(search, ("parameters",)), resume=False, progress=Silent())
    assert len(plan.candidates) == len(plan.sample) == 30
    assert any("30 of the 720 candidates of convnet720 take part: a stratified sample" in note for note in plan.notes)
    norms = Counter(candidate.config["norm"] for candidate in plan.candidates)
    assert set(norms.values()) == {6}
    more = CompareSettings(SearchSettings(limit=50, executor="inline", out=tmp_path / "run"), ("parameters",), 20)
    plan = plan_comparison(more, resume=False, progress=Silent())
    assert (len(plan.candidates), len(plan.sample)) == (50, 20)
    assert {c.id for c in plan.sample} < {c.id for c in plan.candidates}
    assert all(isinstance(candidate, Candidate) for candidate in plan.sample)


def test_the_space_is_as_large_as_its_valid_candidates_are_many(tmp_path: Path):
    file = tmp_path / "even.py"
    file.write_text(
        "from torch import nn\n\n"
        "from nasproxy import SearchSpace\n\n\n"
        "class Even(SearchSpace):\n"
        '    name = "even"\n'
        '    choices = {"width": [1, 2, 3, 4, 5, 6, 7]}\n\n'
        "    def is_valid(self, config, image_size):\n"
        '        return config["width"] % 2 == 0 or "odd"\n\n'
        "    def build(self, config, *, in_channels, num_classes, image_size):\n"
        '        return nn.Sequential(nn.Flatten(), nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes))\n'
    )
    result = run_compare(settings_of(file, tmp_path / "run", ("parameters",), limit=3, top_k=3, sample=3))
    assert result.scores.facts["space_size"] == 3
    assert "3 of the 3 candidates of even take part: a stratified sample." in result.scores.facts["notes"]


@pytest.fixture(scope="module")
def procedures(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("procedures") / "run"
    names = ("random+early-stopping", "early-stopping-subset", "whole")
    assert run_compare(settings_of(space, out, names)).failed == 0
    return out


def test_procedures_and_mixtures_are_rows_like_any_other(procedures: Path):
    document = json.loads((procedures / "comparison.json").read_text())
    rows = {row["proxy"]: row for row in document["rows"]}
    assert list(rows) == ["random", "early-stopping", "random+early-stopping", "early-stopping-subset", "whole"]
    # Two epochs of twenty images each.
    assert [row["storage_images"] for row in rows.values()] == [20, 40, 60, 40, 1038]
    parts = rows["random"]["minutes"] + rows["early-stopping"]["minutes"]
    assert rows["random+early-stopping"]["minutes"] == pytest.approx(parts)
    assert "parts are compared too: random, early-stopping" in " ".join(document["text"])


def test_the_ground_truth_agrees_with_itself_and_is_compared_with_none(procedures: Path):
    document = json.loads((procedures / "comparison.json").read_text())
    whole = document["rows"][-1]
    assert (whole["correlation"], whole["overall_correlation"], whole["regret"]) == (1, 1, 0)
    assert whole["precision"] == 1
    assert not any("whole" in (d["first"], d["second"]) for d in document["differences"])
    scores = load_scores(procedures)
    assert not np.isnan(scores.repeats("whole")).any()
    assert set(recorded_trainings(procedures / "whole").values()) == {1}
    assert not (procedures / "proxies" / "whole").exists()


def test_a_mixture_is_the_mean_of_its_parts_columns(procedures: Path):
    scores = load_scores(procedures)
    parts = [scores.repeats(name) for name in ("random", "early-stopping")]
    expected = sum((part - part.mean()) / part.mean(1).std() for part in parts) / 2
    np.testing.assert_allclose(scores.repeats("random+early-stopping"), expected, atol=1e-9)


def test_early_stopping_is_not_random_images_by_another_name(procedures: Path):
    scores = load_scores(procedures)
    assert not np.array_equal(scores.repeats("early-stopping"), scores.repeats("random"))
    assert not np.array_equal(scores.repeats("early-stopping"), scores.repeats("early-stopping-subset"))
