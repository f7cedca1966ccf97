from pathlib import Path

import yaml

import nasproxy


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((Path(__file__).parents[1] / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == nasproxy.__version__
    assert {"title", "message", "authors"} <= citation.keys()
    assert all({"type", "title", "authors"} <= reference.keys() for reference in citation["references"])
