import pytest
from tiny_search import invoke, search_words, write_space


def test_report_writes_the_page_of_a_run_anew(folder):
    words = search_words(write_space(folder), folder / "run", "--limit", "2", "--top-k", "1")
    assert invoke(*words).code == 0
    page = folder / "run" / "report.html"
    first = page.read_text(encoding="utf-8")
    page.unlink()
    said = invoke("report", "run")
    assert (said.code, said.out, said.err) == (0, "run/report.html\n", "")
    assert page.read_text(encoding="utf-8") == first
    assert invoke("report", "run", "--json").json == {"schema": 1, "report": "run/report.html"}


@pytest.mark.parametrize("content", [None, {}, {"run.json": "{"}, {"run.json": "[]"}, {"thesis.tex": "precious"}])
def test_a_folder_that_holds_no_run_is_refused_and_left_alone(folder, content):
    if content is not None:
        (folder / "run").mkdir()
        for name, text in content.items():
            (folder / "run" / name).write_text(text)
    said = invoke("report", "run", "--json")
    assert said.code == 2
    assert said.json["error"]["kind"] == "run"
    assert "run" in said.json["error"]["message"]
    if content is not None:
        assert {path.name for path in (folder / "run").iterdir()} == set(content)
