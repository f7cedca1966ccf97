import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from nasproxy.errors import RunError, WriteError
from nasproxy.files import write_json
from nasproxy.search.run_directory import check_unused, default_directory, new_directory, open_run

FACTS = {"schema": 1, "identity": {"seed": 0, "epochs": 4, "image_size": (8, 8)}, "versions": {"torch": "2"}}


def facts(**changed):
    return {**FACTS, "identity": {**FACTS["identity"], **changed}}


def begin(directory: Path) -> None:
    with open_run(directory, FACTS, resume=False):
        pass


def refuse(directory: Path, *, resume: bool, **changed) -> RunError:
    with pytest.raises(RunError) as caught, open_run(directory, facts(**changed), resume=resume):
        pytest.fail("it was let in")
    assert str(directory) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("resume", [False, True])
def test_a_new_run_is_described_on_disk_before_anything_is_done(tmp_path, resume):
    directory = tmp_path / "runs" / "first"
    with open_run(directory, FACTS, resume=resume) as opened:
        assert opened == directory
        assert json.loads((directory / "run.json").read_text()) == json.loads(json.dumps(FACTS))


def test_a_run_is_gone_on_with_only_if_asked(tmp_path):
    begin(tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    assert "--resume" in refuse(tmp_path / "run", resume=False).hint
    with open_run(tmp_path / "run", {**FACTS, "versions": {"torch": "3"}}, resume=True):
        pass
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_another_run_is_refused_by_what_differs(tmp_path):
    begin(tmp_path / "run")
    message = refuse(tmp_path / "run", resume=True, seed=3, epochs=5).message
    assert "seed was 0, now 3" in message
    assert "epochs was 4, now 5" in message
    assert "image_size" not in message


@pytest.mark.parametrize("other", ["./photos", "photos/", "/data/photos", "../link"])
def test_a_folder_of_the_same_images_is_the_same_dataset_however_its_path_is_written(tmp_path, other):
    with open_run(tmp_path / "run", facts(dataset="photos", fingerprint="2f"), resume=False):
        pass
    with open_run(tmp_path / "run", facts(dataset=other, fingerprint="2f"), resume=True):
        pass
    message = refuse(tmp_path / "run", resume=True, dataset=other, fingerprint="9a").message
    assert f"dataset was 'photos', now '{other}'" in message
    assert "(fingerprint) changed since" in message
    assert "dataset was 'photos'" in refuse(tmp_path / "run", resume=True, dataset="digits", fingerprint="2f").message
    assert "dataset was 'photos'" in refuse(tmp_path / "run", resume=True, dataset=other, fingerprint=None).message


@pytest.mark.parametrize("sample", [None, 40])
def test_a_search_does_not_go_on_in_a_comparison_nor_a_comparison_in_a_search(tmp_path, sample):
    begin(tmp_path / "search")
    assert "holds no comparison" in refuse(tmp_path / "search", resume=True, sample=sample).message
    compared = facts(sample=sample)
    with open_run(tmp_path / "compare", compared, resume=False):
        pass
    assert "holds a comparison" in refuse(tmp_path / "compare", resume=True).message
    with open_run(tmp_path / "compare", compared, resume=True):
        pass


def test_a_run_goes_on_whose_description_says_more_than_is_asked_today(tmp_path):
    with open_run(tmp_path / "run", facts(gpus_per_worker=0.5), resume=False):
        pass
    with open_run(tmp_path / "run", FACTS, resume=True):
        pass


def test_what_was_edited_since_is_named_and_is_to_be_brought_back(tmp_path):
    texts = {"space_text": "1f", "fingerprint": "2f", "proxy_fingerprint": "3f", "choices": {"width": [1]}}
    with open_run(tmp_path / "run", facts(**texts), resume=False):
        pass
    edited = refuse(tmp_path / "run", resume=True, **{**texts, "space_text": "9a", "choices": {"width": [2]}})
    assert "the code of the search space (space_text) changed since" in edited.message
    assert "9a" not in edited.message
    assert edited.hint.startswith("Bring back what was changed")
    others = refuse(tmp_path / "run", resume=True, **{**texts, "fingerprint": "9a", "proxy_fingerprint": "8a"}).message
    assert "the images, labels or split of the dataset (fingerprint) changed since" in others
    assert "the images or labels of the proxy file (proxy_fingerprint) changed since" in others
    both = refuse(tmp_path / "run", resume=True, **{**texts, "fingerprint": "9a", "seed": 3})
    assert both.hint.startswith("Repeat the options")


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, resume):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    assert "holds files, but no run" in refuse(tmp_path / "thesis", resume=resume).message
    assert "is a file" in refuse(tmp_path / "thesis" / "chapter.tex", resume=resume).message
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_folder_will_do(tmp_path, resume):
    with open_run(tmp_path, FACTS, resume=resume):
        assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_process_killed_before_it_described_the_run_leaves_nothing_in_the_way(tmp_path, resume):
    (tmp_path / ".lock").touch()
    with open_run(tmp_path, FACTS, resume=resume):
        assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_process_killed_while_it_described_the_run_leaves_nothing_in_the_way(tmp_path, resume):
    (tmp_path / ".lock").touch()
    (tmp_path / ".run.json.4242").write_text('{"schema"')  # as write_atomically writes it, before it is renamed
    with open_run(tmp_path, FACTS, resume=resume):
        assert (tmp_path / "run.json").exists()


def test_one_writer_at_a_time(tmp_path):
    with open_run(tmp_path / "run", FACTS, resume=False):
        assert "Another process" in refuse(tmp_path / "run", resume=True).message
    with open_run(tmp_path / "run", FACTS, resume=True):
        pass


def test_whether_anybody_works_in_it_is_known_without_a_trace(tmp_path):
    check_unused(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with open_run(tmp_path / "run", FACTS, resume=False), pytest.raises(RunError, match="Another process"):
        check_unused(tmp_path / "run")
    check_unused(tmp_path / "run")
    with open_run(tmp_path / "run", FACTS, resume=True):
        pass


def test_an_error_inside_lets_go_of_the_run(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path / "run", FACTS, resume=False):
        raise ZeroDivisionError
    with open_run(tmp_path / "run", FACTS, resume=True):
        pass


def test_a_description_cut_anywhere_is_refused_and_kept(tmp_path):
    begin(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    whole = file.read_bytes()
    for length in range(len(whole.rstrip())):
        file.write_bytes(whole[:length])
        assert "run.json cannot be read" in refuse(tmp_path / "run", resume=True).message
        assert file.read_bytes() == whole[:length]


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", "{}", '{"identity": null}', '{"identity": []}', '{"identity": "seed"}', "\x00" * 50]
)
def test_a_foreign_description_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    assert "run.json cannot be read" in refuse(tmp_path, resume=True).message


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "run.json").write_bytes(b'{"identity": "\xff\xfe"}')
    assert "run.json cannot be read" in refuse(tmp_path, resume=True).message


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match=r"file/run could not be made"),
        open_run(tmp_path / "file" / "run", FACTS, resume=False),
    ):
        pytest.fail("it was let in")


@pytest.mark.parametrize("resume", [False, True])
def test_what_cannot_be_written_within_a_run_is_gone_on_with(tmp_path, resume):
    with (
        pytest.raises(WriteError, match="could not be written") as caught,
        open_run(tmp_path, FACTS, resume=resume) as directory,
    ):
        write_json(directory / "no such folder" / "summary.json", {})
    told = caught.value.hint
    with pytest.raises(WriteError) as caught:
        write_json(tmp_path / "no such folder" / "summary.json", {})
    assert "--resume" not in caught.value.hint
    assert told.startswith(f"{caught.value.hint} ")
    assert "--resume" in told


@pytest.mark.parametrize(
    "hint", ["", "Set NASPROXY_CACHE to a larger disk.", "Free some space and go on with --resume."]
)
def test_what_else_would_help_is_said_too_and_resume_once_of_a_run_within_a_run(tmp_path, hint):
    with (
        pytest.raises(WriteError) as caught,
        open_run(tmp_path, FACTS, resume=False),
        open_run(tmp_path / "proxies" / "random", FACTS, resume=False),
    ):
        raise WriteError("It cannot be kept.", hint)
    assert caught.value.hint.startswith(hint or "Go on")
    assert caught.value.hint.count("--resume") == 1


def test_json_is_replaced_whole(tmp_path):
    path = write_json(tmp_path / "a.json", {"name": "Zürich", "n": 1})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Zürich", "n": 1}
    write_json(path, {"n": 2})
    assert json.loads(path.read_text()) == {"n": 2}
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_the_default_folder_is_new(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = default_directory("convnet720", "random")
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d-convnet720-random", str(first))
    assert str(date.today().year) in str(first)
    first.mkdir(parents=True)
    second = default_directory("convnet720", "random")
    assert second == first.with_name(f"{first.name}-2")
    second.touch()
    assert default_directory("convnet720", "random") == first.with_name(f"{first.name}-3")


def test_no_two_have_the_same_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    together = threading.Barrier(8)

    def begin(_: int) -> Path:
        together.wait()
        with new_directory("tiny", "random") as mine:
            assert mine.is_dir()
            together.wait()
            with open_run(mine, FACTS, resume=False):
                return mine

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(begin, range(8)))
    first = min(found)
    assert {*found} == {first, *(first.with_name(f"{first.name}-{number}") for number in range(2, 9))}
    assert all((path / "run.json").exists() for path in found)


def test_a_new_folder_that_nothing_came_into_goes_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), new_directory("tiny", "random"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    (tmp_path / "runs").touch()
    with pytest.raises(WriteError, match="could not be made"), new_directory("tiny", "random"):
        pytest.fail("it was made")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/a/b/my space.py:Mine", "..", "ü/\x1b[31m.py", "a" * 999, ".py"])
def test_no_name_leads_the_default_folder_astray(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    folder = default_directory(name, name)
    assert folder.parent == Path("runs")
    assert re.fullmatch(r"[\w-]+", folder.name)
    folder.mkdir(parents=True)
