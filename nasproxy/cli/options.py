"""What several commands parse."""

from __future__ import annotations

import re

from nasproxy.errors import InputError


def parse_image_size(text: str | None) -> tuple[int, int] | None:
    """``32`` or ``24x32`` as (height, width) in pixels; None stays None.

    Raises:
        InputError: it is neither.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip())
    if match is None or int(match[1]) < 1 or int(match[2] or 1) < 1:
        raise InputError(f"--image-size must be N or HEIGHTxWIDTH in pixels, got {text!r}.", "Example: --image-size 32")
    height = int(match[1])
    return height, int(match[2] or height)
