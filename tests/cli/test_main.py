import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny_search import invoke, search_words, write_space

from nasproxy.cli import main as command_line
from nasproxy.finalists.export import FORMATS
from nasproxy.search.settings import DEVICES

HEAVY = ["torch", "torchvision", "ray", "pandas", "scipy", "sklearn", "matplotlib", "pyarrow", "optuna", "numpy"]

LOADED = """
import contextlib, io, json, sys
from nasproxy.cli import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
        main.run(sys.argv[1:])
    except SystemExit as end:
        code = end.code
modules = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"code": code, "modules": modules, "out": out.getvalue()}))
"""


def loaded_by(*words: str) -> dict:
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["search", "--help"],
        ["compare", "--help"],
        ["condense", "--help"],
        ["export", "--help"],
        ["train", "--help"],
        ["predict", "--help"],
        ["datasets", "list"],
    ],
)
def test_what_computes_nothing_loads_nothing_heavy(words):
    found = loaded_by(*words)
    assert found["code"] == 0
    assert found["out"]
    assert set(found["modules"]) & set(HEAVY) == set()


def test_import_of_the_package_loads_nothing_heavy():
    code = "import sys, nasproxy; print(*(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(HEAVY) == set()


def test_the_inline_executor_does_not_load_ray(folder):
    space = write_space(folder)
    words = [
        "--executor",
        "inline",
        "--proxy",
        "random",
        "--ipc",
        "1",
        "--epochs",
        "1",
        "--finalist-epochs",
        "1",
        "--top-k",
        "1",
        "--limit",
        "1",
        "--json",
    ]
    found = loaded_by("search", "--space", str(space), "--out", "run", *words)
    assert found["code"] == 0
    assert "torch" in found["modules"]
    assert "ray" not in found["modules"]


def test_version_is_what_a_bug_report_needs():
    import torch

    said = invoke("--version")
    first, *lines = said.out.splitlines()
    assert (said.code, said.err, first) == (0, "", f"nasproxy {version('nasproxy')}")
    found = dict(line.split(" ", 1) for line in lines)
    assert list(found) == ["python", "torch", "torchvision", "ray", "optuna", "numpy", "kernels", "platform"]
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    assert found["torch"] == f"{version('torch')} ({built})"
    assert {name: found[name] for name in ("ray", "optuna")} == {name: version(name) for name in ("ray", "optuna")}


def completions(typed: str) -> list[str]:
    """What a shell offers for the last word."""
    asked = {"_NASPROXY_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    program = str(Path(sys.executable).with_name("nasproxy"))
    done = subprocess.run([program], capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("nasproxy exp", ["export"]),
        ("nasproxy train run --ba", ["--batch-size"]),
        ("nasproxy spaces sh", ["show"]),
        ("nasproxy nosuch", []),
        ("nasproxy search --space nas", ["nasbench201", "nasbench201-unique"]),
        ("nasproxy spaces check conv", ["convnet720"]),
        ("nasproxy search --space my_", []),
        ("nasproxy search --proxy early", ["early-stopping", "early-stopping-subset"]),
        ("nasproxy compare --proxies random,kc,k", ["random,kc,k-center"]),
        ("nasproxy condense --dataset cif", ["cifar10", "cifar100"]),
        ("nasproxy condense --method d", ["dc", "dm", "dsa"]),
        ("nasproxy search --sampler t", ["tpe"]),
    ],
)
def test_the_shell_completes_commands_options_and_names(typed, completed):
    assert completions(typed) == completed


@pytest.mark.parametrize(
    ("typed", "known"),
    [("nasproxy export run --format ", FORMATS), ("nasproxy search --device ", DEVICES)],
)
def test_names_that_are_completed_without_the_module_that_knows_them_are_those_it_knows(typed, known):
    assert completions(typed) == list(known)


def test_the_script_that_completes_is_shown(monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    said = invoke("--show-completion", "bash")
    assert said.code == 0
    assert "complete -o default -F _nasproxy_completion nasproxy" in said.out


def test_help_names_every_command_and_the_exit_codes():
    said = invoke("--help")
    assert said.code == 0
    for word in (
        "search",
        "compare",
        "condense",
        "report",
        "export",
        "train",
        "predict",
        "proxy",
        "spaces",
        "datasets",
        "--version",
        "130",
    ):
        assert word in said.out
    assert said.err == ""


@pytest.mark.parametrize("words", [[], ["spaces"], ["proxy"], ["datasets"]])
def test_a_command_that_is_missing_shows_the_help(words):
    said = invoke(*words)
    assert said.code == 2
    assert "Usage" in said.out + said.err
    assert "Error" not in said.err


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["serch"], ["serch", "search"]),
        (["spaces", "lst"], ["lst", "list"]),
        (["search", "--datset", "digits"], ["--datset", "--dataset"]),
        (["condense", "--iteration", "3"], ["--iteration", "--iterations"]),
        (["search", "--epochs", "many"], ["--epochs", "integer"]),
        (["search", "--epochs"], ["--epochs", "argument"]),
        (["search", "surplus"], ["surplus"]),
        (["report"], ["run"]),
    ],
)
def test_wrong_usage_is_one_message_that_names_what_was_meant(words, fragments, folder):
    said = invoke(*words)
    assert said.code == 2
    assert said.out == ""
    for fragment in fragments:
        assert fragment in said.err
    assert said.err.count("Error") == 1
    assert "Traceback" not in said.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("words", [["serch"], ["search", "--datset", "x"], ["search", "--epochs", "many"], ["report"]])
def test_wrong_usage_with_json_is_one_document(words):
    said = invoke(*words, "--json")
    document = said.json
    assert said.code == 2
    assert document["schema"] == 1
    assert document["error"]["kind"] == "usage"
    assert list(document["error"]) == ["kind", "message", "hint"]
    assert "--help" in document["error"]["hint"]


class Stop(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("as_json", [False, True])
def test_a_defect_is_called_one(monkeypatch, as_json):
    def fail(*arguments, **named):
        raise Stop("something odd")

    monkeypatch.setattr("nasproxy.datasets.catalogue.available_datasets", fail)
    said = invoke("datasets", "list", *(["--json"] if as_json else []))
    assert said.code == 1
    assert "Stop: something odd" in said.err
    assert "--debug" in said.err
    assert "Traceback" not in said.err
    if as_json:
        assert said.json["error"]["kind"] == "internal"
    with pytest.raises(Stop):
        command_line.run(["datasets", "list", "--debug"])


def test_debug_shows_the_traceback_of_what_the_user_did_wrong():
    with pytest.raises(command_line.NasproxyError):
        command_line.run(["--debug", "spaces", "show", "nothing"])
    with pytest.raises(command_line.NasproxyError):
        command_line.run(["spaces", "show", "nothing", "--debug"])


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_is_130(monkeypatch, as_json):
    def interrupt(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("nasproxy.datasets.catalogue.available_datasets", interrupt)
    said = invoke("datasets", "list", *(["--json"] if as_json else []))
    assert said.code == 130
    assert "Traceback" not in said.err
    if as_json:
        assert said.json["error"]["kind"] == "interrupted"


def test_markup_in_what_the_user_wrote_is_shown_as_it_is():
    said = invoke("spaces", "show", "[red]no[/red]such")
    assert said.code == 2
    assert "[red]no[/red]such" in said.err


NOISY = """
import torch
from nasproxy import SearchSpace

print("at the top")


class Noisy(SearchSpace):
    name = "noisy"
    choices = {"width": [1, 2]}

    def is_valid(self, config, image_size):
        print("asked")
        return True

    def build(self, config, *, in_channels, num_classes, image_size):
        print("building", config)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))
"""


@pytest.mark.parametrize("executor", ["inline", pytest.param("tune", marks=pytest.mark.slow)])
def test_what_a_space_prints_stands_not_among_the_json(folder: Path, executor: str):
    words = search_words(write_space(folder, NOISY), folder / "run", "--json", "--executor", executor)
    program = str(Path(sys.executable).with_name("nasproxy"))
    done = subprocess.run([program, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["evaluated"] == 2
    for said in ("at the top", "asked", "building"):
        assert said in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_stdout_that_cannot_say_all_is_no_reason_to_stop(encoding: str, as_json: bool):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for words, code in ((["spaces", "show", "nichts\u2192ü"], 2), (["datasets", "check", "digits"], 0)):
        command = [str(Path(sys.executable).with_name("nasproxy")), *words, *(["--json"] if as_json else [])]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
        assert (done.returncode, "Traceback" in err) == (code, False), err
        if as_json and code:
            assert "nichts\u2192ü" in json.loads(out)["error"]["message"]


def test_a_disk_that_is_full_for_stdout_leaves_one_message():
    command = f"{Path(sys.executable).with_name('nasproxy')} spaces show nothing --json > /dev/full"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_in_the_home_of_nobody_is_wrong_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NASPROXY_CACHE", "~nobodyofthatname/cache")
    said = invoke("search", "--dry-run", "--json", "--proxy", "random", "--executor", "inline")
    assert (said.code, said.json["error"]["kind"]) == (2, "input"), said.err
    assert "NASPROXY_CACHE is ~nobodyofthatname/cache" in said.json["error"]["message"]
