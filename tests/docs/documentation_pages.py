"""What can be executed in a page of the documentation: its fenced blocks of bash and Python, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_FILE = re.compile(r"# (\w+\.py)\n")
_SNIPPET = re.compile(r'--8<-- "(docs/(\w+\.py))"\n')
"""A block that is a file of the repository, as pymdownx.snippets has it."""


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Args:
        language: ``bash``, ``python``, or what is only shown.
        text: what stands in it.
        skipped: why it is not run; empty where it is.
        line: of the page, where it begins.
    """

    language: str
    text: str
    skipped: str
    line: int

    @property
    def file(self) -> str:
        """The name of the file whose content it is, by its first line; empty for what is run as it is."""
        if snippet := _SNIPPET.fullmatch(self.text):
            return snippet[2]
        named = _FILE.match(self.text) if self.language == "python" else None
        return named[1] if named else ""

    @property
    def content(self) -> str:
        """What the file holds."""
        snippet = _SNIPPET.fullmatch(self.text)
        return (ROOT / snippet[1]).read_text(encoding="utf-8") if snippet else self.text


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of ``page``."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], m["reason"] or "", text[: m.start()].count("\n") + 1)
        for m in _BLOCK.finditer(text)
    ]


def commands_of(page: Path) -> list[str]:
    """Every line that calls nasproxy, in bash blocks and in indented ones, without what is said behind it."""
    scripts = [block.text.replace("\\\n", "") for block in blocks_of(page) if block.language == "bash"]
    fenced = [line for script in scripts for line in script.splitlines()]
    indented = re.findall(r"^    (nasproxy .*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.split(r"\s{2,}#", line)[0].strip() for line in (*fenced, *indented) if line.startswith("nasproxy ")]
