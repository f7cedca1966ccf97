"""Every test of datasets has a cache of its own."""

import pytest


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """The cache's folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("NASPROXY_CACHE", str(folder))
    return folder
