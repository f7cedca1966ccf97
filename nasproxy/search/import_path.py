"""Which nasproxy Ray's workers import: Ray puts the folder that a command is started in before all others."""

from __future__ import annotations

from pathlib import Path

import nasproxy
from nasproxy.errors import InputError


def check_folder() -> None:
    """Whether workers will run the code that this process runs.

    Raises:
        InputError: the present folder holds another nasproxy, such as sources beside what is installed.
    """
    mine, other = Path(nasproxy.__file__).resolve(), Path("nasproxy", "__init__.py").resolve()
    if other.exists() and not other.samefile(mine):
        raise InputError(
            f"{other.parent.parent} holds another nasproxy than the one that runs ({mine.parent}), and Ray's workers"
            " would import that one.",
            "Start the command in another folder, or install the one here: python -m pip install -e .",
        )
