"""Spaces are found, travel to other processes, and mistakes in them are named."""

from __future__ import annotations

import inspect
import json
import linecache
import os
import pickle
import subprocess
import sys
import textwrap
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_search import register_space

from nasproxy.errors import SpaceError
from nasproxy.spaces.source import SpaceSource, registered_spaces, space_location, user_location

HEAD = "from nasproxy.spaces.space import SearchSpace\n"
SPACE = """
class {name}(SearchSpace):
    name = "{lower}"
    choices = {choices}
    def build(self, config, *, in_channels, num_classes, image_size):
        raise RuntimeError("cannot build")
"""


def space_text(name: str = "Widths", choices: str = '{"width": [8, 16, 32]}') -> str:
    return SPACE.format(name=name, lower=name.lower(), choices=choices)


@pytest.fixture(autouse=True)
def _own_paths(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path):
    def write_file(text: str, name: str = "my_space.py", head: str = HEAD):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + textwrap.dedent(text))
        return path

    return write_file


def load(spec) -> object:
    return SpaceSource.parse(str(spec)).load()


def refusal(spec) -> SpaceError:
    with pytest.raises(SpaceError) as caught:
        load(spec)
    assert caught.value.exit_code == 2
    return caught.value


# Where a space may come from


def test_a_registered_name():
    source = SpaceSource.parse("convnet720")
    assert (source.kind, source.text, source.folder, str(source)) == ("registered", "", "", "convnet720")
    assert len(source.load()) == 720


def test_registered_spaces_are_listed_without_import():
    code = (
        "import sys; from nasproxy.spaces.source import registered_spaces; spaces = registered_spaces()\n"
        "loaded = {'torch', 'nasproxy.search_spaces.convnet720'} & set(sys.modules)\n"
        "sys.exit(bool(loaded) or 'convnet720' not in spaces)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert registered_spaces()["convnet720"]["nasproxy"].value == "nasproxy.search_spaces.convnet720:ConvNet720"


def test_a_module_attribute(write):
    write(space_text(), "pkg_attribute/spaces.py")
    source = SpaceSource.parse("pkg_attribute.spaces:Widths")
    assert (source.kind, source.name, source.attribute) == ("module", "pkg_attribute.spaces", "Widths")
    assert source.load().name == "widths"


def test_a_module_attribute_inside_a_class():
    assert len(load("nasproxy.search_spaces.convnet720:ConvNet720")) == 720


def test_a_file_with_one_space(write):
    path = write(space_text())
    source = SpaceSource.parse("my_space.py")
    assert (source.kind, source.name, source.folder) == ("file", str(path), str(path.parent))
    assert list(source.load()) == [{"width": 8}, {"width": 16}, {"width": 32}]
    assert SpaceSource.parse(str(source)) == source


def test_an_attribute_of_a_file(write):
    path = write(space_text("One") + space_text("Two") + "three = Two()\nclass Holder:\n    inner = One\n")
    assert load(f"{path}:Two").name == "two"
    assert load(f"{path}:three") is load(f"{path}:three")
    assert load(f"{path}:Holder.inner").name == "one"


@pytest.mark.parametrize("name", ["a:b/my_space.py", "a:b/my:space.py", "a.py:b/my_space.py", "my space é.py"])
def test_paths_may_hold_colons(write, name):
    path = write(space_text(), name)
    assert load(path).name == "widths"
    assert load(f"{path}:Widths").name == "widths"
    assert load(name).name == "widths"


def test_only_a_files_own_spaces_count(write):
    write(space_text("Foreign") + "foreign = Foreign()\n", "foreign_spaces.py")
    write(
        "from foreign_spaces import Foreign, foreign as other\n"
        "from nasproxy.search_spaces.convnet720 import ConvNet720\n"
        "class Base(SearchSpace):\n    name = 'base'\n" + space_text("Own") + "Alias = Own\n"
    )
    assert load("my_space.py").name == "own"


def test_an_instance_of_an_imported_class_is_a_files_own(write):
    write("from nasproxy.search_spaces.convnet720 import ConvNet720\nspace = ConvNet720()\nspace.name = 'mine'\n")
    assert load("my_space.py").name == "mine"


def test_annotations_are_not_postponed_by_the_loaders_own_future_import(write):
    write("def f(x: int): ...\nassert f.__annotations__['x'] is int\n" + space_text())
    assert load("my_space.py").name == "widths"


# Travelling


def test_a_second_load_is_the_same_class(write):
    path = write(space_text() + "import builtins\nbuiltins.loads = getattr(builtins, 'loads', 0) + 1\n")
    first, second = load(path), load(path)
    try:
        assert type(first) is type(second)
        assert sys.modules["builtins"].loads == 1
        assert type(pickle.loads(pickle.dumps(first))) is type(first)  # noqa: S301, our own
    finally:
        del sys.modules["builtins"].loads


def test_an_edited_file_is_another_module(write):
    before = load(write(space_text()))
    after = load(write(space_text(choices='{"width": [1]}')))
    assert (len(before), len(after)) == (3, 1)
    assert type(before) is not type(after)


def test_a_worker_loads_a_file_that_it_does_not_have(write, tmp_path):
    path = write(space_text())
    source = SpaceSource.parse(str(path))
    path.unlink()
    path.parent.joinpath("elsewhere").mkdir()
    code = (
        "import pickle, sys; from nasproxy.spaces.source import user_location\n"
        "source = pickle.load(sys.stdin.buffer); space = source.load()\n"
        "print(len(space), 'torch' in sys.modules)\n"
        "try: space.build({}, in_channels=1, num_classes=2, image_size=(4, 4))\n"
        "except RuntimeError as error: print(user_location(error, source))\n"
    )
    payload = pickle.dumps(source)
    assert len(payload) < len(source.text) + 1000
    done = subprocess.run(
        [sys.executable, "-c", code], input=payload, capture_output=True, check=True, cwd=tmp_path / "elsewhere"
    )
    assert done.stdout.decode().split() == ["3", "False", "my_space.py:7"]


def test_modules_beside_the_file_are_imported_at_once_and_later(write):
    write("WIDTHS = [1, 2]\n", "beside_at_once.py")
    write("DEPTH = 5\n", "beside_later.py")
    path = write(
        "import beside_at_once\n"
        + space_text(choices='{"width": beside_at_once.WIDTHS}')
        + "    def __len__(self):\n        import beside_later\n        return beside_later.DEPTH\n",
    )
    assert len(load(path)) == 5
    assert sys.path[-1] == str(path.parent)
    assert sys.path.count(str(path.parent)) == 1


def test_modules_beside_the_file_hide_a_library_from_the_file_only(write):
    write("own = True\n", "colorsys.py")
    path = write(
        "import importlib.machinery\nfound = importlib.machinery.PathFinder.find_spec('colorsys').origin\n"
        + space_text()
    )
    assert sys.modules[type(load(path)).__module__].found == str(path.with_name("colorsys.py"))
    assert PathFinder.find_spec("colorsys").origin != str(path.with_name("colorsys.py"))


def test_the_lines_that_run_can_be_shown_without_the_file(write):
    path = write(space_text())
    source = SpaceSource.parse(str(path))
    path.unlink()
    space = source.load()
    linecache.checkcache()
    assert "cannot build" in inspect.getsource(type(space))


# Where an error comes from


def test_an_error_is_located_in_the_file_and_in_modules_beside_it(write):
    write("def fail():\n    raise ValueError('deep')\n", "beside_failing.py", head="")
    path = write(
        space_text()
        + "    def is_valid(self, config, image_size):\n        import beside_failing as b\n        b.fail()\n"
    )
    source = SpaceSource.parse(str(path))
    space = source.load()
    with pytest.raises(RuntimeError) as built:
        space.build({}, in_channels=1, num_classes=2, image_size=(4, 4))
    with pytest.raises(ValueError, match="deep") as judged:
        space.is_valid({}, (4, 4))
    assert user_location(built.value, source) == space_location(built.value, space) == "my_space.py:7"
    assert user_location(judged.value, source) == space_location(judged.value, space) == "beside_failing.py:2"


@pytest.mark.parametrize(
    ("forward", "line"),
    [
        ("def forward(self):\n        return 1", 6),
        ("def forward(self, images):\n        return len(0)", 7),
        ("def forward(self, images):\n        return nn.Linear(4, 2)(images, images)", 7),
        ("def forward(self, images):\n        return Net()() if len(images) else 1", 7),
    ],
)
def test_a_forward_that_takes_something_else_is_located(write, forward, line):
    head = "from torch import nn\nfrom nasproxy import SearchSpace\n\n\nclass Net(nn.Module):\n"
    space = "class Own(SearchSpace):\n    name = 'own'\n    choices = {'a': [1, 2]}\n"
    build = "    def build(self, config, *, in_channels, num_classes, image_size):\n        return Net()\n"
    path = write(f"{head}    {forward}\n\n\n{space}{build}", head="")
    source = SpaceSource.parse(str(path))
    network = source.load().build({"a": 1}, in_channels=1, num_classes=2, image_size=(4, 4))
    with pytest.raises(TypeError) as caught:
        network(torch.zeros(1, 4))
    assert user_location(caught.value, source) == f"my_space.py:{line}"


def test_an_error_outside_the_users_code_has_no_location(write):
    source = SpaceSource.parse(str(write(space_text())))
    with pytest.raises(IndexError) as caught:
        source.load()[99]
    assert user_location(caught.value, source) is None


def test_the_cause_of_a_wrapped_error_is_located(write):
    path = write(space_text())
    source = SpaceSource.parse(str(path))

    def build_wrapped():
        try:
            source.load().build({}, in_channels=1, num_classes=2, image_size=(4, 4))
        except RuntimeError as error:
            raise KeyError("wrapped") from error

    with pytest.raises(KeyError) as caught:
        build_wrapped()
    assert user_location(caught.value, source) == "my_space.py:7"


def test_an_error_is_located_in_a_modules_package(write):
    write("", "pkg_located/__init__.py")
    write("def fail():\n    return 1 / 0\n", "pkg_located/layers.py", head="")
    write("from pkg_located.layers import fail\n" + space_text() + "fail()\n", "pkg_located/spaces.py")
    error = refusal("pkg_located.spaces:Widths")
    assert "layers.py:2: ZeroDivisionError: division by zero" in error.message


# What a user does wrong


def test_an_unknown_name_gives_the_nearest():
    error = refusal("convnet72")
    assert "'convnet72'" in error.message
    assert "Did you mean convnet720?" in error.hint


def test_a_strangers_package_registers_a_space(write, tmp_path, monkeypatch):
    write(space_text("Narrow") + "class Holder:\n    inner = Narrow()\n", "site/stranger_spaces.py")
    register_space(tmp_path / "site", "stranger", "narrow = stranger_spaces:Holder.inner")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert list(registered_spaces()) == ["convnet720", "narrow", "nasbench201", "nasbench201-unique"]
    assert load("narrow").name == "narrow"


def test_two_packages_with_one_name_are_named(tmp_path, monkeypatch):
    register_space(tmp_path / "site", "first-package", "twice = first:Space")
    register_space(tmp_path / "site", "second-package", "twice = second:Space")
    monkeypatch.syspath_prepend(tmp_path / "site")
    error = refusal("twice")
    assert "first-package and second-package both register a search space 'twice'" in error.message
    assert "first:Space or second:Space" in error.hint
    assert list(registered_spaces()["twice"]) == ["first-package", "second-package"]
    assert len(load("convnet720")) == 720


def test_a_registered_module_that_is_gone(tmp_path, monkeypatch):
    register_space(tmp_path / "site", "broken-package", "broken = no_such_module_here:Space")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert "there is no module no_such_module_here" in refusal("broken").message


def test_a_missing_file_gives_the_nearest(write):
    write(space_text(), "my_space.py")
    error = refusal("my_spaces.py:Widths")
    assert error.message.startswith("There is no file /")
    assert "Did you mean my_space.py?" in error.hint
    assert "There is no Python file in" in refusal("empty/folder/x.py").hint


@pytest.mark.parametrize("spec", ["", "folder/space", "./x.txt", "a.py:", "a.py:1x", "mod:", ":x", "mod:a-b", "a b:c"])
def test_what_has_no_known_form_is_refused(spec):
    error = refusal(spec)
    assert "package.module:attribute" in error.hint


def test_a_folder_and_bytes_are_not_source(tmp_path):
    tmp_path.joinpath("folder.py").mkdir()
    tmp_path.joinpath("bytes.py").write_bytes(b"\xff\xfe\x00")
    assert "Is a directory" in refusal("folder.py").message
    assert "is not Python source" in refusal("bytes.py").message


def test_a_missing_module_and_a_missing_import_differ(write):
    assert "there is no module no_such_package." in refusal("no_such_package.spaces:X").message
    write("import no_such_library\n" + space_text(), "missing_import.py")
    error = refusal("missing_import:Widths")
    assert "missing_import.py:2: ModuleNotFoundError: No module named 'no_such_library'" in error.message


@pytest.mark.parametrize("spec", ["attributes.py:Width", "attributes:Width"])
def test_a_missing_attribute_gives_the_nearest(write, spec):
    write(space_text(), "attributes.py")
    error = refusal(spec)
    assert "'Width'" in error.message
    assert error.hint == "Did you mean Widths? Available: Widths."


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("build(self, config)", "takes (config), which does not fit: got an unexpected keyword argument 'in_channels'"),
        ("is_valid(self, config)", "takes (config), which does not fit: too many positional arguments"),
    ],
)
def test_a_method_that_cannot_be_called_is_named_with_its_line(write, method, reason):
    path = write(f"{space_text()}    def {method}:\n        return True\n")
    error = refusal("my_space.py")
    name, line = method.partition("(")[0], path.read_text().splitlines().index(f"    def {method}:") + 1
    assert error.message == f"{name} (my_space.py:{line}) of {path} {reason}."
    assert error.hint.startswith(f"Write def {name}(self, config, ")


def test_several_spaces_and_none(write):
    write(space_text("One") + space_text("Two"), "several.py")
    error = refusal("several.py")
    assert "defines 2 search spaces" in error.message
    assert error.hint == "Say which one: several.py:One, several.py:Two."
    write("class Duck:\n    name = 'duck'\n    choices = {'a': [1]}\n    def build(self): ...\n", "duck.py")
    assert "defines no search space" in refusal("duck.py").message
    assert "duck.py:Duck is not a search space but the class Duck" in refusal("duck.py:Duck").message
    assert "subclass of nasproxy.SearchSpace" in refusal("duck.py:Duck").hint
    assert "of type module" in refusal("nasproxy:search").message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / 0", "my_space.py:3: ZeroDivisionError: division by zero"),
        ("def f(:\n    pass", "my_space.py:3: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)", "my_space.py:4: SystemExit: 3"),
        ("raise KeyError", "my_space.py:3: KeyError"),
        ("eval('1 +')", "my_space.py:3: SyntaxError"),
    ],
)
def test_an_error_while_importing_names_the_line(write, text, expected):
    path = write("\n" + text)
    for _ in range(2):  # a half-executed module is not kept
        error = refusal(path)
        assert expected in error.message
        assert "Traceback" not in str(error)


def test_a_space_that_cannot_be_instantiated(write):
    write(space_text() + "    def __init__(self):\n        raise OSError('no list of widths')\n")
    assert "my_space.py:9: OSError: no list of widths" in refusal("my_space.py").message
    write("class Bare(SearchSpace):\n    name = 'bare'\n    choices = {'a': [1]}\n")
    assert "does not define build" in refusal("my_space.py").message


# The contract


def test_a_space_without_a_name_is_shown_the_line(write):
    write(space_text().replace('    name = "widths"\n', ""))
    error = refusal("my_space.py")
    assert error.message.endswith("my_space.py has no name.")
    assert error.hint == 'Add a line to Widths: name = "widths"'


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b", ".hidden", "x\n", 3])
def test_a_name_that_is_no_word_is_refused(write, name):
    write(space_text().replace('"widths"', repr(name)))
    assert repr(name) in refusal("my_space.py").message


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ("{}", "non-empty mapping of choices, got {}"),
        ("[('a', [1])]", "non-empty mapping of choices"),
        ("None", "non-empty mapping of choices, got None"),
        ("{'a b': [1]}", "choice of .*'a b'"),
        ("{1: [1]}", "choice of .* is 1"),
        ("{'a': []}", "choice a of .* has no values"),
        ("{'a': 'abc'}", "choice a of .* needs a list of values, got 'abc'"),
        ("{'a': {1, 2}}", "choice a of .* needs a list of values"),
        ("{'a': 3}", "choice a of .* needs a list of values, got 3"),
        ("{'a': [1, (2, 3)]}", r"choice a of .* holds \(2, 3\) of type tuple"),
        ("{'a': [float('nan')]}", "holds nan of type float"),
        ("{'a': [float('inf')]}", "holds inf of type float"),
        ("{'a': [int]}", "of type type"),
        ("{'a': [__import__('numpy').float64(1)]}", "of type float64"),
        ("{'a': [1, 2, 1]}", "holds 1 twice"),
        ("{'a': [None, None]}", "holds None twice"),
        ("{'a': [True, 'true']}", "a of .* holds True and 'true', which tables do not tell apart"),
        ("{'a': ['False', False]}", "holds False and 'False', which"),
        ("{'a': ['', None]}", "holds None and '', which"),
        ("{'a': [None, 'None']}", "holds None and 'None', which"),
        ("{'a': ['null', 'x', None]}", "holds None and 'null', which"),
        ("{'a': [1, '1']}", "holds 1 and '1', which"),
        ("{'a': [2, 1, 1.0]}", "holds 1 and 1.0, which"),
        ("{'a': ['1e3', 1000, 0.5]}", "holds 1000 and '1e3', which"),
        ("{str(i): range(10) for i in range(20)}", "has 1.0e\\+20 candidates"),
        ("property(lambda self: 1 / 0)", "my_space.py:5: ZeroDivisionError"),
    ],
)
def test_choices_that_a_study_cannot_hold_are_refused(write, choices, expected):
    write(space_text(choices=choices))
    with pytest.raises(SpaceError, match=expected):
        load("my_space.py")


def test_values_that_python_takes_for_equal_are_different_choices(write):
    write(space_text(choices="{'a': [1, True, 1.5, '2', '2.0', 0, False, None, 'none', 'nan'], 'b-c.d': range(2)}"))
    assert len(load("my_space.py")) == 20


@given(
    st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text and len(text.encode("utf8", "replace")) < 200)
)
def test_any_text_gives_a_source_or_a_clear_refusal(spec):
    try:
        source = SpaceSource.parse(spec)
    except SpaceError as error:
        assert error.hint  # noqa: PT017, both outcomes are right
    else:
        assert source.kind == "module"
        assert str(source) == spec


PACKAGED = """
from torch import nn
from nasproxy import SearchSpace


class Narrow(SearchSpace):
    name = "narrow"
    choices = {"width": [2, 4], "bias": [True, False]}

    def build(self, config, *, in_channels, num_classes, image_size):
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(config["width"]), nn.LazyLinear(num_classes, config["bias"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["narrow", "stranger.spaces:Narrow"])
def test_an_installed_package_is_searched_by_workers_of_their_own(tmp_path, spec):
    """As a stranger would: another process, the package on its path, Ray's workers."""
    site = tmp_path / "site"
    (site / "stranger").mkdir(parents=True)
    (site / "stranger" / "__init__.py").touch()
    (site / "stranger" / "spaces.py").write_text(PACKAGED)
    register_space(site, "stranger", "narrow = stranger.spaces:Narrow")
    words = ["search", "--space", spec, "--proxy", "random", "--ipc", "2", "--epochs", "1", "--finalist-epochs", "1"]
    words += ["--top-k", "2", "--workers", "1", "--image-size", "8", "--device", "cpu", "--out", "run", "--json"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("nasproxy")), *words],
        env={**os.environ, "PYTHONPATH": str(site), "NASPROXY_CACHE": str(tmp_path / "cache")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluated"] == 4
