"""Methods are found by name, a stranger's among them, and mistakes in them are named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_dataset

from nasproxy.condensation.recipe import MatchingRecipe
from nasproxy.coresets.forgetting import Forgetting
from nasproxy.coresets.herding import Herding
from nasproxy.coresets.k_center import KCenter
from nasproxy.coresets.random import RandomImages
from nasproxy.errors import InputError
from nasproxy.proxies.make import make_proxy
from nasproxy.proxies.method import ProxyMethod
from nasproxy.proxies.registry import CONDENSERS, PROXIES, condenser_names, find_method, proxy_names

FIRST_IMAGES = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from nasproxy.proxies.condensed import Condensed
from nasproxy.proxies.method import ProxyMethod


@dataclass(frozen=True)
class FirstImages(ProxyMethod):
    name: ClassVar[str] = "first"

    def make(self, dataset, *, seed, device, precision, on_iteration=None):
        by_class = dataset.train.indices_by_class(dataset.num_classes)
        positions = torch.cat([members[: self.ipc] for members in by_class])
        images = dataset.normalisation.apply(dataset.train.images[positions])
        return Condensed(images, dataset.train.labels[positions], (), 0.0)
"""


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Installs a package of one module, for the length of a test, that registers one name."""
    site = tmp_path / "site"

    def install(package: str, entry: str, *, module: str = "", text: str = "", group: str = PROXIES) -> Path:
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[{group}]\n{entry}\n")
        if module:
            site.joinpath(f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(site)
        return site

    yield install
    for name in [name for name, module in sys.modules.items() if str(site) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def refusal(name: str) -> InputError:
    with pytest.raises(InputError) as caught:
        find_method(name)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("condensed", MatchingRecipe),
        ("dc", MatchingRecipe),
        ("random", RandomImages),
        ("herding", Herding),
        ("k-center", KCenter),
        ("forgetting", Forgetting),
    ],
)
def test_our_own(name, method):
    assert find_method(name) is method
    assert name in proxy_names()
    assert name in (method.name, "condensed")


def test_names_are_listed_without_import():
    code = (
        "import sys; from nasproxy.proxies.registry import proxy_names; names = proxy_names()\n"
        "sys.exit('torch' in sys.modules or 'herding' not in names)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert proxy_names()[0] == "condensed"
    assert "herding" not in condenser_names()


def test_a_strangers_package_registers_a_method(register, tmp_path, monkeypatch):
    monkeypatch.setenv("NASPROXY_CACHE", str(tmp_path / "cache"))
    register("stranger", "first = stranger_method:FirstImages", module="stranger_method", text=FIRST_IMAGES)
    assert "first" in proxy_names()
    assert "first" not in condenser_names()
    found = find_method("first")
    assert issubclass(found, ProxyMethod)
    dataset = tiny_dataset((4, 3))
    where = {"device": torch.device("cpu"), "precision": "float32"}
    proxy = make_proxy(dataset, found.preset("quick", 2), seed=0, **where)
    own = [(dataset.train.labels == label).nonzero()[:2].flatten() for label in (0, 1)]
    assert torch.equal(dataset.normalisation.invert(proxy.images), dataset.train.images[torch.cat(own)])
    assert (proxy.method, dict(proxy.recipe)) == ("first", {"ipc": 2, "seed": 0})
    assert found().expected_seconds(dataset, **where) == 0


def test_a_strangers_condenser_is_a_proxy_too(register):
    entry = "first = stranger_condenser:FirstImages"
    register("stranger", entry, module="stranger_condenser", text=FIRST_IMAGES, group=CONDENSERS)
    assert "first" in condenser_names()
    assert "first" in proxy_names()
    assert find_method("first").name == "first"


def test_an_unknown_name_gives_the_nearest():
    error = refusal("hearding")
    assert "'hearding'" in error.message
    assert "Did you mean herding?" in error.hint
    assert "k-center" in error.hint


@pytest.mark.parametrize("groups", [(PROXIES, PROXIES), (CONDENSERS, PROXIES)])
def test_two_packages_with_one_name_are_named(register, groups):
    for package, group in zip(("first-package", "second-package"), groups, strict=True):
        register(package, "twice = nowhere:Method", group=group)
    error = refusal("twice")
    assert "first-package and second-package both register a proxy 'twice'" in error.message
    assert find_method("random") is RandomImages


def test_a_name_of_ours_cannot_be_taken_over(register):
    register("stranger", "random = stranger_random:FirstImages", module="stranger_random", text=FIRST_IMAGES)
    assert "nasproxy and stranger both register" in refusal("random").message


@pytest.mark.parametrize("text", ["Method = 3", "class Method: ...", "def Method(): ...", "Method = None"])
def test_what_is_no_method_is_refused(register, text):
    register("stranger", "odd = stranger_odd:Method", module="stranger_odd", text=text)
    assert "no subclass of ProxyMethod" in refusal("odd").message


@pytest.mark.parametrize(
    ("entry", "reason"), [("no_such_module:Method", "no_such_module"), ("stranger_empty:Method", "'Method'")]
)
def test_what_is_gone_is_named(register, entry, reason):
    register("stranger", f"gone = {entry}", module="stranger_empty", text="")
    error = refusal("gone")
    assert f"'gone' is registered as {entry}, which cannot be loaded" in error.message
    assert reason in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import math\n\nROOT = math.sqrt(-1)\n", r"ValueError: .* \(stranger_broken.py:3\)"),
        ("Method =\n", r"SyntaxError: .* \(stranger_broken.py:1\)"),
        ("raise SystemExit(3)\n", r"SystemExit: 3 \(stranger_broken.py:1\)"),
    ],
)
def test_what_raises_as_it_is_imported_is_named_with_its_line(register, text, reason):
    register("stranger", "broken = stranger_broken:Method", module="stranger_broken", text=text)
    error = refusal("broken")
    assert "'broken' is registered as stranger_broken:Method, which cannot be loaded" in error.message
    assert re.search(reason, error.message)
    assert "--debug" in error.hint
