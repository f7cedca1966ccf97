"""Where a search space comes from: a registered name, a module's attribute, or a file, which travels as text."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import linecache
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from traceback import walk_tb
from types import CodeType
from typing import Any, Literal

from nasproxy.entry_points import by_package
from nasproxy.errors import SpaceError, nearest
from nasproxy.spaces.contract import check_contract
from nasproxy.spaces.signature import defined_at
from nasproxy.spaces.space import SearchSpace

GROUP = "nasproxy.search_spaces"
"""The entry-point group that a package registers its spaces in."""

FORMS = "A space is a registered name, my_space.py, my_space.py:MySpace or package.module:attribute."


@dataclass(frozen=True)
class SpaceSource:
    """Enough to load a search space in any process of any node; small, and made of strings only.

    Args:
        kind: how the space is found.
        name: the registered name, the module's dotted name, or the file's absolute path.
        attribute: of the module or file; empty for a registered name, and for a file with one space of its own.
        text: the file's source; empty for the other kinds.
        folder: put on ``sys.path`` where it exists, so that modules beside the file, or below the folder that nasproxy
            was started in, can be imported; empty for a registered name.
    """

    kind: Literal["registered", "module", "file"]
    name: str
    attribute: str = ""
    text: str = ""
    folder: str = ""

    @classmethod
    def parse(cls, spec: str) -> SpaceSource:
        """The source that ``spec`` names. Files are read, entry points looked up; nobody's code is run yet.

        Args:
            spec: a registered name, ``package.module:attribute``, or ``file.py[:attribute]``.

        Raises:
            SpaceError: no such name, file, or form.
        """
        path, attribute = _split_file(spec)
        if path:
            file = Path(path).absolute()
            return cls("file", str(file), attribute, _read_source(file), str(file.parent))
        name, colon, attribute = spec.partition(":")
        if not colon:
            _entry_point(spec)
            return cls("registered", spec)
        if not _is_dotted(name) or not _is_dotted(attribute):
            raise SpaceError(f"{spec!r} is not of the form package.module:attribute.", FORMS)
        return cls("module", name, attribute, folder=str(Path.cwd()))

    def __str__(self) -> str:
        """A ``spec`` for the same source; a file by its absolute path."""
        return f"{self.name}:{self.attribute}" if self.attribute else self.name

    @property
    def code(self) -> str:
        """The text of the file that defines the space; of one that a package registers, the package and its version.

        It is empty for nasproxy's own, which go with its version, and for a module that has no file or cannot be found.
        Nobody's code is run.
        """
        if self.kind == "registered":
            package = _entry_point(self.name).dist
            return "" if package is None or package.name == "nasproxy" else f"{package.name} {package.version}"
        return _module_text(self.name, self.folder) if self.kind == "module" else self.text

    @property
    def module_name(self) -> str:
        """The module that holds the space; for a file, a name of its own derived from path and content."""
        if self.kind == "registered":
            return _entry_point(self.name).module
        if self.kind == "module":
            return self.name
        digest = hashlib.sha256(f"{self.name}\0{self.text}".encode("utf-8", "surrogatepass")).hexdigest()
        return f"nasproxy_space_{digest[:16]}"

    def load(self) -> SearchSpace:
        """The space itself, checked. Runs the user's code, once a process however often it is called.

        Raises:
            SpaceError: the code raises (with its file and line), holds no such space, or the space breaks the contract.
        """
        with _reported(self), _importing_from(self.folder):
            module = _execute(self) if self.kind == "file" else importlib.import_module(self.module_name)
            space = _instance(self, module)
            check_contract(space, str(self))
        return space


def registered_spaces() -> dict[str, dict[str, EntryPoint]]:
    """The entry points of all registered spaces, by name and package, both sorted; none is imported.

    A name of several packages is ambiguous: :meth:`SpaceSource.parse` refuses it.
    """
    registered = importlib.metadata.entry_points(group=GROUP)
    return {name: by_package(list(registered.select(name=name))) for name in sorted(registered.names)}


def user_location(error: BaseException, source: SpaceSource) -> str | None:
    """The line of the user's code that ``error`` comes from: ``my_space.py:12``.

    That is the innermost frame in the space's own package, or in a file beside its own; or else the ``forward`` of
    theirs that takes something else than it was given. None where there is neither, as when a network of torch's own
    layers refuses its input.
    """
    return code_location(error, source.module_name, source.name if source.kind == "file" else "")


def space_location(error: BaseException, space: SearchSpace) -> str | None:
    """As :func:`user_location`, for a space at hand of which only its class is known."""
    module = getattr(space, "function", type(space)).__module__
    return code_location(error, module, getattr(sys.modules.get(module), "__file__", None) or "")


def error_text(error: BaseException, place: str | None) -> str:
    """What went wrong and, where that is known, in which line: ``ValueError: too narrow (my_space.py:12)``."""
    said = f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")
    # Tables of text take neither half of a surrogate pair, nor carriage returns, as pandas writes them.
    return "\n".join(said.splitlines()).encode(errors="backslashreplace").decode()


def _split_file(spec: str) -> tuple[str, str]:
    """(path, attribute) where ``spec`` looks like a file, else two empty texts; a path may hold colons."""
    path, colon, attribute = spec.rpartition(":")
    if not spec.endswith(".py") and colon and path.endswith(".py") and "/" not in attribute:
        if not _is_dotted(attribute):
            raise SpaceError(f"{spec!r} does not end in the name of an attribute.", FORMS)
        return path, attribute
    return (spec, "") if spec.endswith(".py") or "/" in spec else ("", "")


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _read_source(file: Path) -> str:
    if file.suffix != ".py":
        raise SpaceError(f"{file} is not a Python file.", FORMS)
    try:
        return importlib.util.decode_source(file.read_bytes())
    except FileNotFoundError as error:
        beside = [path.name for path in file.parent.glob("*.py")]
        hint = nearest(file.name, sorted(beside)) if beside else f"There is no Python file in {file.parent}."
        raise SpaceError(f"There is no file {file}.", hint) from error
    except OSError as error:
        raise SpaceError(f"{file} cannot be read: {error.strerror}.", "Give the path of a Python file.") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise SpaceError(f"{file} is not Python source: {error}.", "Save it as UTF-8 text.") from error


def _module_text(name: str, folder: str) -> str:
    """Found as by an import, but without importing the packages that it lies in."""
    spec, path, parts = None, None, name.split(".")
    with _importing_from(folder):
        for count in range(1, len(parts) + 1):
            whole = ".".join(parts[:count])
            spec = next((found for finder in sys.meta_path if (found := finder.find_spec(whole, path))), None)
            if spec is None:
                return ""
            path = spec.submodule_search_locations or ()
    if spec is None or not spec.has_location or not str(spec.origin).endswith(".py"):
        return ""
    try:
        return importlib.util.decode_source(Path(str(spec.origin)).read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError):  # said when it is loaded
        return ""


def _entry_point(name: str) -> EntryPoint:
    registered = importlib.metadata.entry_points(group=GROUP)
    packages = by_package(list(registered.select(name=name)))
    if not packages:
        raise SpaceError(f"No search space is called {name!r}.", f"{nearest(name, sorted(registered.names))} {FORMS}")
    if len(packages) > 1:
        values = " or ".join(entry.value for entry in packages.values())
        raise SpaceError(
            f"The packages {' and '.join(packages)} both register a search space {name!r}.",
            f"Uninstall one of them, or say which one by its module: {values}.",
        )
    (entry,) = packages.values()
    return entry


@contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    """``folder`` comes first on ``sys.path`` as it does for a script, and afterwards last.

    Modules beside the file are found, then and when ``build`` imports them, and none can hide a library that nasproxy
    imports later.
    """
    if not folder or not Path(folder).is_dir():
        yield
        return
    known = folder in sys.path
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if not known:
            sys.path.append(folder)


def _execute(source: SpaceSource) -> types.ModuleType:
    """The file's module, executed from the text once a process, so that its classes stay the same ones."""
    name = source.module_name
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = source.name
    # Tracebacks and inspect show the text that runs, also where the file is missing or was edited since.
    linecache.cache[source.name] = (len(source.text), None, source.text.splitlines(keepends=True), source.name)
    sys.modules[name] = module
    try:
        exec(compile(source.text, source.name, "exec", dont_inherit=True), vars(module))  # noqa: S102, --space runs code
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _instance(source: SpaceSource, module: types.ModuleType) -> SearchSpace:
    found = _attribute(source, module)
    if isinstance(found, type) and issubclass(found, SearchSpace):
        missing = ", ".join(sorted(found.__abstractmethods__))
        if missing:
            raise SpaceError(
                f"The search space {source} does not define {missing}.", f"Write {missing} in {found.__name__}."
            )
        return found()
    if inspect.isfunction(found):
        return _define_by_run(source, found)
    if not isinstance(found, SearchSpace):
        kind = f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise SpaceError(f"{source} is not a search space but {kind}.", "Make it a subclass of nasproxy.SearchSpace.")
    return found


def _define_by_run(source: SpaceSource, function: Callable[..., Any]) -> SearchSpace:
    from nasproxy.spaces.define_by_run import DefineByRun  # with Optuna, which a space of classes does without

    if not _asks_a_trial(function):
        where, taken = defined_at(function), inspect.signature(function)
        raise SpaceError(f"{where} of {source} takes {taken} instead of a trial alone.", "Write def space(trial): …")
    return DefineByRun(function)


def _asks_a_trial(found: object) -> bool:
    """Whether something is a function that takes a trial and needs nothing else."""
    if not inspect.isfunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty] == ["trial"]


def _attribute(source: SpaceSource, module: types.ModuleType) -> Any:
    attribute = _entry_point(source.name).attr if source.kind == "registered" else source.attribute
    if not attribute and source.kind == "file":
        return _only_space(source, module)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = sorted(_spaces(found)) or sorted(name for name in vars(found) if not name.startswith("_"))
            raise SpaceError(
                f"{source} names {part!r}, which does not exist.", nearest(part, names) if names else FORMS
            )
        found = getattr(found, part)
    return found


def _only_space(source: SpaceSource, module: types.ModuleType) -> Any:
    """The one space that the file defines: neither imported by name, nor a base that another one completes."""
    steps = ast.walk(ast.parse(source.text))
    imported = {
        alias.asname or alias.name for step in steps if isinstance(step, ast.ImportFrom) for alias in step.names
    }
    own = {name: space for name, space in _spaces(module).items() if name not in imported}
    complete = {name: space for name, space in own.items() if not inspect.isabstract(space)} or own
    if len({id(space) for space in complete.values()}) == 1:
        return next(iter(complete.values()))
    if not complete and inspect.isfunction(meant := vars(module).get("space")):
        return meant
    if not complete:
        hint = "Write a class MySpace(SearchSpace) with name, choices and build, or a function space(trial)."
        raise SpaceError(f"{source} defines no search space.", hint)
    file = Path(source.name).name
    forms = ", ".join(f"{file}:{name}" for name in complete)
    raise SpaceError(f"{source} defines {len(complete)} search spaces.", f"Say which one: {forms}.")


def _spaces(namespace: Any) -> dict[str, Any]:
    """What is a space, or a class of spaces, among the attributes of a module; functions of a trial if nothing is."""
    spaces = {
        name: value
        for name, value in vars(namespace).items()
        if isinstance(value, SearchSpace)
        or (isinstance(value, type) and issubclass(value, SearchSpace) and value is not SearchSpace)
    }
    return spaces or {name: value for name, value in vars(namespace).items() if _asks_a_trial(value)}


def code_location(error: BaseException, module: str, file: str = "") -> str | None:
    """The innermost line in the module's package or in the file's folder."""
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return f"{Path(error.filename).name}:{error.lineno}"
    root = module.partition(".")[0]
    package = GROUP if root == "nasproxy" else root

    def is_theirs(code: CodeType, name: str) -> bool:
        beside = bool(file) and Path(code.co_filename).parent == Path(file).parent
        return beside or name == package or name.startswith(f"{package}.")

    place, called = None, None
    for frame, line in walk_tb(error.__traceback__):
        if is_theirs(frame.f_code, str(frame.f_globals.get("__name__"))):
            place = f"{Path(frame.f_code.co_filename).name}:{line}"
        called = frame.f_locals.get("forward_call")  # of the innermost, torch's name for what a module is called by
    # Where a network is called with what its forward does not take, none of its lines is reached.
    if place is None and inspect.ismethod(called) and str(error).startswith(f"{called.__qualname__}()"):
        code = called.__func__.__code__
        if is_theirs(code, called.__module__):
            place = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
    cause = error.__cause__ or error.__context__
    return place if place or cause is None else code_location(cause, module, file)


@contextmanager
def _reported(source: SpaceSource) -> Iterator[None]:
    """Turns whatever the user's code raises into an error that names the line."""
    try:
        yield
    except SpaceError as error:
        place = user_location(error, source)
        if place is None:
            raise
        raise SpaceError(f"The search space {source} cannot be loaded: {place}: {error.message}", error.hint) from error
    except (Exception, SystemExit) as error:
        what = f"The search space {source} cannot be loaded"
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and source.kind != "file" and f"{source.module_name}.".startswith(f"{missing}."):
            hint = "Install its package into this environment, or give a file: my_space.py."
            raise SpaceError(f"{what}: there is no module {missing}.", hint) from error
        place = user_location(error, source)
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
        hint = "With --debug the whole traceback is shown."
        raise SpaceError(f"{what}: {place + ': ' if place else ''}{reason}", hint) from error
