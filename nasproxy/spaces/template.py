"""Writes a search space to start from, and its test."""

from __future__ import annotations

import keyword
from importlib import resources
from pathlib import Path

from nasproxy.errors import InputError
from nasproxy.files import make_folder, write_atomically


def write_space(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes ``<name>.py`` and ``test_<name>.py`` into ``folder``; returns both paths.

    Raises:
        InputError: ``name`` cannot be a module's, or one of the files is there.
        WriteError: they cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        raise InputError(
            f"{name!r} cannot be the name of a space's module.",
            "Use letters, digits and '_', a letter first. Example: nasproxy spaces new my_space",
        )
    file, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in (file, test):
        if path.exists():
            raise InputError(f"{path} is there already, and is not overwritten.", "Choose another name, or --out.")
    words = {"name": name, "class": _class_name(name), "file": file.name, "test": test.name}
    texts = [_filled(template, words) for template in ("template.py.txt", "template_test.py.txt")]
    make_folder(folder)
    for path, text in zip((file, test), texts, strict=True):
        write_atomically(path, text.encode())
    return file, test


def _class_name(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _filled(template: str, words: dict[str, str]) -> str:
    text = resources.files("nasproxy.spaces").joinpath(template).read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text
