"""One small search on a folder of images, whose finalists the tests export, train and ask."""

from collections.abc import Iterator

import pytest
import torch
from searched import NETS, Searched, write_photos
from tiny_search import invoke, search_words, write_space


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASPROXY_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def searched(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    folder = tmp_path_factory.mktemp("searched")
    found = Searched(folder / "run", write_photos(folder / "photos"), write_space(folder, NETS))
    words = ["--dataset", str(found.photos), "--precision", "float32", "--limit", "4", "--finalist-epochs", "2"]
    said = invoke(*search_words(found.space, found.run, *words))
    assert said.code == 0, said.err
    return found
