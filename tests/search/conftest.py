"""What is cached while these tests run is kept apart from the user's cache."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASPROXY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
