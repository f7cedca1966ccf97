"""Optional packages: imported only when used, and named where they are missing."""

from __future__ import annotations

import importlib.util

from nasproxy.errors import MissingPackageError


def require(purpose: str, *packages: str) -> None:
    """Makes sure that ``packages`` can be imported; imports none.

    Args:
        purpose: what takes them, as the message begins.
        packages: by the name they have in the package index and in Python.

    Raises:
        MissingPackageError: with the command that installs them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"{purpose} takes {' and '.join(missing)}, not installed here.",
            f"Install with: python -m pip install {' '.join(missing)}",
        )
