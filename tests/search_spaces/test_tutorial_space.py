"""The tutorial's space passes the test kit; the gallery's pictures are there and small."""

import re
from pathlib import Path

from nasproxy.testing import SpaceTests

DOCS = Path(__file__).parents[2] / "docs"


class TestTutorialSpace(SpaceTests):
    spec = str(DOCS / "tutorial_space.py")
    image_size = (8, 8)
    tried = 2


def test_has_the_points_that_the_text_counts():
    space = TestTutorialSpace().space()
    assert len(space) == 2 * (4 + 16 + 64) == 168


def test_the_gallery_shows_every_picture():
    shown = set(re.findall(r"\]\((space_\w+\.png)\)", (DOCS / "gallery.md").read_text(encoding="utf-8")))
    assert shown == {path.name for path in DOCS.glob("space_*.png")}
    assert all((DOCS / name).stat().st_size <= 100_000 for name in shown)
