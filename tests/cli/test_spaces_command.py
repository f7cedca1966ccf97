import subprocess
import sys
from importlib.metadata import version

import pytest
from tiny_search import SPACE, invoke, register_space, write_space


def test_list_names_the_spaces_and_their_packages():
    said = invoke("spaces", "list")
    assert (said.code, said.err) == (0, "")
    assert any(line.split() == ["convnet720", "nasproxy"] for line in said.out.splitlines())
    document = invoke("spaces", "list", "--json").json
    assert document["schema"] == 1
    assert {"name": "convnet720", "package": "nasproxy"} in document["spaces"]
    assert version("nasproxy")


def test_list_marks_a_name_that_two_packages_register(folder, monkeypatch):
    register_space(folder / "site", "zebra", "twice = zebra.spaces:Twice")
    register_space(folder / "site", "aardvark", "twice = aardvark:Space")
    monkeypatch.syspath_prepend(folder / "site")
    said = invoke("spaces", "list")
    assert (said.code, said.err) == (0, "")
    rows = {tuple(line.split()[:2]): line for line in said.out.splitlines()}
    assert "ambiguous: zebra" in rows["twice", "aardvark"]
    assert "ambiguous: aardvark" in rows["twice", "zebra"]
    assert sum("ambiguous" in line for line in said.out.splitlines()) == 2
    assert ("convnet720", "nasproxy") in rows
    spaces = invoke("spaces", "list", "--json").json["spaces"]
    assert [space["package"] for space in spaces if space["name"] == "twice"] == ["aardvark", "zebra"]
    assert all(list(space) == ["name", "package"] for space in spaces)
    for command in ("show", "check"):
        said = invoke("spaces", command, "twice", "--json")
        assert (said.code, said.json["error"]["kind"]) == (2, "space")
        assert "aardvark:Space or zebra.spaces:Twice" in said.json["error"]["hint"]


def test_list_marks_a_space_that_cannot_be_loaded(folder, monkeypatch):
    site = folder / "site"
    register_space(site, "gone", "gone = nowhere_at_all:Space")
    register_space(site, "raising", "raising = list_raising:Space")
    register_space(site, "sound", "sound = list_sound:Tiny")
    write_space(site, "1 / 0", "list_raising.py")
    write_space(site, SPACE, "list_sound.py")
    monkeypatch.syspath_prepend(site)
    said = invoke("spaces", "list")
    assert (said.code, said.err) == (0, "")
    rows = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert "cannot be loaded: " in rows["gone"]
    assert "cannot be loaded: " in rows["raising"]
    assert rows["sound"].split() == ["sound", "sound"]
    said = invoke("spaces", "list", "--json")
    assert said.code == 0
    errors = {space["name"]: space.get("error") for space in said.json["spaces"]}
    assert "nowhere_at_all" in errors["gone"]
    assert "ZeroDivisionError" in errors["raising"]
    assert errors["sound"] is errors["convnet720"] is None


def test_show_gives_name_size_and_choices(folder):
    path = write_space(folder)
    document = invoke("spaces", "show", str(path), "--json").json
    assert document == {
        "schema": 1,
        "name": "tiny",
        "size": 12,
        "choices": {"width": [2, 4, 8, 16], "activation": ["relu", "tanh", "sigmoid"]},
    }
    said = invoke("spaces", "show", "my_space.py")
    assert (said.code, said.err) == (0, "")
    for text in ("tiny, 12 candidates", "width", "2, 4, 8, 16", "relu, tanh, sigmoid"):
        assert text in said.out


def test_show_cuts_no_name_on_a_narrow_terminal(folder, on_terminal):
    name, value = "activation" * 6, "sigmoid" * 12
    write_space(folder, SPACE.replace('"activation"', f'"{name}"').replace('"sigmoid"', f'"{value}"'))
    shown = "".join(on_terminal(60, "spaces", "show", "my_space.py").split())
    assert "…" not in shown
    for letter in "actvionsgmd":
        assert shown.count(letter) >= (name + value).count(letter)


def test_show_of_the_papers_space():
    document = invoke("spaces", "show", "convnet720", "--json").json
    assert (document["name"], document["size"]) == ("convnet720", 720)


def test_markup_in_a_choice_is_shown_as_it_is(folder):
    write_space(folder, SPACE.replace('"relu", "tanh", "sigmoid"', '"[bold]relu[/bold]", "tanh"'))
    assert "[bold]relu[/bold]" in invoke("spaces", "show", "my_space.py").out


@pytest.mark.parametrize(
    ("spec", "fragments"),
    [
        ("convnet72", ["convnet72", "Did you mean convnet720?"]),
        ("my_spaces.py", ["my_spaces.py", "Did you mean my_space.py?"]),
        ("my_space.py:Tin", ["Tin", "Did you mean Tiny?"]),
        ("nowhere.at.all:Space", ["nowhere"]),
        ("empty.py", ["empty.py", "defines no search space"]),
        ("broken.py", ["broken.py", "SyntaxError"]),
        ("raising.py", ["raising.py", "ZeroDivisionError"]),
        ("leaving.py", ["leaving.py"]),
    ],
)
@pytest.mark.parametrize("command", ["show", "check"])
def test_a_space_that_cannot_be_had_is_one_message(folder, command, spec, fragments):
    write_space(folder)
    write_space(folder, "", "empty.py")
    write_space(folder, "def :", "broken.py")
    write_space(folder, "1 / 0", "raising.py")
    write_space(folder, "raise SystemExit(0)", "leaving.py")
    said = invoke("spaces", command, spec, "--json")
    assert said.code == 2
    assert said.json["error"]["kind"] == "space"
    for fragment in fragments:
        assert fragment in said.err
    assert "Traceback" not in said.err


def test_check_finds_nothing_wrong_with_a_good_space(folder):
    write_space(folder)
    said = invoke("spaces", "check", "my_space.py", "--sample", "3")
    assert said.code == 0
    assert "nothing wrong found" in said.out
    document = invoke("spaces", "check", "my_space.py", "--sample", "3", "--image-size", "6x5", "--json").json
    keys = [
        "schema",
        "name",
        "ok",
        "candidates",
        "valid",
        "invalid",
        "compared",
        "duplicates",
        "tried",
        "output_shape",
        "parameters",
        "multiply_adds",
        "seconds",
        "problems",
    ]
    assert list(document) == keys
    assert (document["ok"], document["candidates"], document["valid"], document["tried"]) == (True, 12, 12, 3)
    assert (document["compared"], document["duplicates"], document["output_shape"]) == (3, 0, [4, 10])
    low, high = document["parameters"]
    assert 30 * 2 + 2 + 2 * 10 + 10 <= low <= high <= 30 * 16 + 16 + 16 * 10 + 10


def test_check_reports_what_is_wrong_and_where(folder):
    write_space(folder, SPACE.replace("        return nn.Sequential(", "        1 / 0\n        return nn.Sequential("))
    said = invoke("spaces", "check", "my_space.py", "--sample", "2")
    assert said.code == 1
    assert "ZeroDivisionError" in said.out
    assert "my_space.py:" in said.out
    document = invoke("spaces", "check", "my_space.py", "--sample", "2", "--json")
    assert document.code == 1
    assert document.json["ok"] is False
    assert document.json["problems"]


@pytest.mark.parametrize(
    "words", [["--channels", "0"], ["--classes", "-1"], ["--sample", "0"], ["--image-size", "0"], ["--image-size", "a"]]
)
def test_check_refuses_numbers_that_make_no_sense(folder, words):
    write_space(folder)
    said = invoke("spaces", "check", "my_space.py", *words, "--json")
    assert said.code == 2
    assert words[0] in said.json["error"]["message"]


def test_new_writes_a_space_that_passes_its_check_and_its_own_test(folder):
    said = invoke("spaces", "new", "my_kernels", "--out", "mine")
    assert (said.code, said.err) == (0, "")
    assert "nasproxy search --space mine/my_kernels.py" in said.out
    document = invoke("spaces", "check", "mine/my_kernels.py", "--sample", "4", "--image-size", "8", "--json").json
    assert (document["name"], document["ok"], document["candidates"]) == ("my_kernels", True, 54)
    assert {path.name for path in (folder / "mine").iterdir()} == {"my_kernels.py", "test_my_kernels.py"}


@pytest.mark.slow
def test_the_test_that_new_writes_passes_and_fails_where_it_should(folder):
    invoke("spaces", "new", "my_kernels")
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "test_my_kernels.py"]
    assert subprocess.run(words, cwd=folder, capture_output=True).returncode == 0
    text = (folder / "my_kernels.py").read_text()
    (folder / "my_kernels.py").write_text(text.replace("nn.Linear(width, num_classes)", "nn.Linear(width, 7)"))
    broken = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert broken.returncode == 1
    assert "expected (4, 10)" in broken.stdout


@pytest.mark.parametrize("taken", ["taken.py", "test_taken.py"])
def test_new_overwrites_nothing(folder, taken):
    (folder / taken).write_text("precious")
    said = invoke("spaces", "new", "taken", "--json")
    assert said.code == 2
    assert f"{taken} is there already" in said.json["error"]["message"]
    assert [path.name for path in folder.iterdir()] == [taken]
    assert (folder / taken).read_text() == "precious"


@pytest.mark.parametrize("name", ["a-b", "3d", "class", "a/b", "..", "", "_private", "a.py"])
def test_new_refuses_what_is_no_name_of_a_module(folder, name):
    said = invoke("spaces", "new", name, "--json")
    assert said.code == 2
    assert said.json["error"]["kind"] == "input"
    assert list(folder.iterdir()) == []


def test_check_counts_duplicates_and_finds_a_choice_that_nothing_depends_on(folder):
    write_space(folder, SPACE.replace('"activation"', '"unused"').replace('[config["unused"]]', '["relu"]'))
    document = invoke("spaces", "check", "my_space.py", "--sample", "12", "--json").json
    assert document["ok"] is False
    assert document["problems"] == [
        "build never looks at the choice unused: what differs in it alone is the same network."
    ]
    assert (document["compared"], document["duplicates"]) == (12, 8)


def test_check_of_the_cells_counts_by_their_canonical_form():
    said = invoke("spaces", "check", "nasbench201", "--sample", "1", "--image-size", "4")
    assert said.code == 0
    assert "9972 among the 15625 compared" in said.out
