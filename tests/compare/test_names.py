"""What ``--proxies`` names: registered proxies, files, mixtures, and what a mixture holds again."""

from __future__ import annotations

from pathlib import Path

import pytest

from nasproxy.compare.names import first_of, members_of, read_names, seed_of
from nasproxy.errors import InputError

KNOWN = ("random", "snip", "early-stopping", "whole")


@pytest.fixture
def files(folder: Path) -> Path:
    for name in ("mine.safetensors", "other.safetensors", "more/mine.safetensors", "random.safetensors", "a+b.pt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "test.safetensors").touch()
    (folder / "random").touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_called_by_its_stem_also_in_a_mixture(files: Path):
    found = read_names(["random", "mine.safetensors", f"{files}/mine.safetensors+random"], KNOWN)
    assert found.names == ("random", "mine", "mine+random")
    assert found.rows == ("random", "mine", "mine+random")
    assert found.files == {"mine": Path("mine.safetensors")}
    assert read_names(["snip+other.safetensors"], KNOWN).rows == ("snip", "other", "snip+other")


@pytest.mark.usefixtures("files")
def test_a_registered_name_is_no_file():
    assert read_names(["random"], KNOWN).files == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["mine.safetensors", "more/mine.safetensors"], "both be called 'mine'"),
        (["random.safetensors"], "'random' in the table, which is taken"),
        (["test.safetensors"], "'test' in the table, which is taken"),
        (["a+b.pt"], r"called 'a\+b'"),
        (["mine.safetensors", "./mine.safetensors"], "mine more than once"),
        (["nowhere.safetensors"], "no file of that name"),
        (["mine.safetensors+whole"], "no part of a mixture"),
        (["x" * 5000], "No proxy is called"),
    ],
)
@pytest.mark.usefixtures("files")
def test_files_that_cannot_take_part(texts, message):
    with pytest.raises(InputError, match=message):
        read_names(texts, KNOWN)


def test_what_a_mixture_holds_again_is_a_member_of_its_own_and_no_row():
    found = read_names(["early-stopping+early-stopping", "early-stopping+random+early-stopping", "random"], KNOWN)
    assert found.rows == (
        "early-stopping",
        "early-stopping+early-stopping",
        "early-stopping+random+early-stopping",
        "random",
    )
    assert found.members == ("early-stopping", "random", "early-stopping#2")
    assert members_of("snip+random+snip+snip") == ("snip", "random", "snip#2", "snip#3")
    assert [first_of(name) for name in ("snip", "snip#2")] == ["snip", "snip"]


def test_each_has_a_seed_of_its_own_that_follows_from_the_runs():
    seeds = [seed_of(name, seed) for seed in (0, 1) for name in ("snip", "snip#2", "snip#3")]
    assert seeds[0] == 0
    assert seeds[3] == 1
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("snip#2", 0) == seeds[1]
