"""Why a network cannot be written in some form; it may be a stranger's, and raise anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nasproxy.errors import ExportError

PYTHON = "plain Python"


def refusal(reason: str, form: str = PYTHON) -> ExportError:
    """The error that says why a network cannot be written as ``form``."""
    return ExportError(
        f"The network cannot be written as {form}: {reason.rstrip('.')}.",
        "Its weights are kept all the same: its search space can build it anew and load them.",
    )


@contextlib.contextmanager
def refusing(what: str, form: str = PYTHON) -> Iterator[None]:
    """Any exception of the body as an :class:`ExportError` that begins with ``what``."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise refusal(f"{what}: {type(error).__name__}: {reason}", form) from error
