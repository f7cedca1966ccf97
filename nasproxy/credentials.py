"""User and password in the address of a storage, which no file and no message may show."""

from __future__ import annotations

import re

# A password ends at the first @, as SQLAlchemy reads it, and may hold slashes; one that is mistyped, at the last.
CREDENTIALS = re.compile(r"(?<=://)[^:/@]*(?::[^@]*)?@(?:[^/\s]*@)?")
"""User and password in an address."""


def without_password(storage: str, instead: str = "") -> str:
    """An Optuna storage address for all to read: ``instead`` of user, password and query."""
    bare = CREDENTIALS.sub(instead and f"{instead}@", storage)
    address, mark, _ = bare.partition("?")
    return address + (mark and instead and mark + instead)
