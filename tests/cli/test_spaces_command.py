from importlib.metadata import version

import pytest
from tiny_search import SPACE, invoke, write_space


def test_list_names_the_spaces_and_their_packages():
    said = invoke("spaces", "list")
    assert (said.code, said.err) == (0, "")
    assert any(line.split() == ["convnet720", "nasproxy"] for line in said.out.splitlines())
    document = invoke("spaces", "list", "--json").json
    assert document["schema"] == 1
    assert {"name": "convnet720", "package": "nasproxy"} in document["spaces"]
    assert version("nasproxy")


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
        "tried",
        "parameters",
        "multiply_adds",
        "seconds",
        "problems",
    ]
    assert list(document) == keys
    assert (document["ok"], document["candidates"], document["valid"], document["tried"]) == (True, 12, 12, 3)
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
