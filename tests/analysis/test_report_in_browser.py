"""The report in a real browser, where there is one: nothing is asked of the network, each control does its work."""

from __future__ import annotations

import csv
import shutil

import pytest
from synthetic_run import CHOICES, make_proxy, make_run
from test_report import HOSTILE

from nasproxy.analysis.report import write_report

selenium = pytest.importorskip("selenium.webdriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Chromium and chromedriver"),
]
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COLUMN = "[...document.querySelectorAll('#candidates tbody tr:not([hidden])')].map((row) => row.cells[{}].textContent)"


def open_page(profile, path, width=1280):
    options = selenium.ChromeOptions()
    options.binary_location = BROWSER
    for option in (*OPTIONS, f"--user-data-dir={profile}", f"--window-size={max(width, 500)},900"):
        options.add_argument(option)
    if width < 500:  # the narrowest window there is
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": {"width": width, "height": 844}})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    browser.get(path.as_uri())
    return browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("browser") / "run", choices=CHOICES, top=10, proxy=make_proxy())
    return write_report(run)


@pytest.fixture
def browser(tmp_path, page):
    opened = open_page(tmp_path / "profile", page)
    yield opened
    opened.quit()


def test_nothing_is_loaded_and_nothing_complains(browser, page):
    assert browser.get_log("browser") == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith("data:")] == []


def test_filters_search_and_sorting_work_together(browser):
    def column(number):
        return browser.execute_script(f"return {COLUMN.format(number)}")

    names = browser.execute_script(
        "return [...document.querySelectorAll('#candidates th')].map((head) => head.textContent)"
    )
    norm, parameters, depth = names.index("norm"), names.index("parameters"), names.index("depth")
    browser.execute_script(
        "const select = document.querySelectorAll('#filter select')[2]; select.value = '=group';"
        "select.dispatchEvent(new Event('change'))"
    )
    assert set(column(norm)) == {"group"}
    assert len(column(norm)) == 144
    assert browser.execute_script("return document.querySelector('[role=status]').textContent") == "144 of 720"
    assert browser.execute_script("return document.querySelectorAll('#explore-plot circle').length") == 145  # the ring
    search = browser.find_element("css selector", "#filter input")
    search.send_keys("relu max")
    assert len(column(norm)) == 16
    for expected in (sorted, lambda texts: sorted(texts, reverse=True)):
        browser.execute_script(f"document.querySelectorAll('#candidates th button')[{depth}].click()")
        assert column(depth) == expected(column(depth))
    browser.find_element("css selector", "#filter button").click()
    assert len(column(parameters)) == 720


def test_a_point_says_what_it_is_and_leads_to_its_row(browser):
    circle = browser.find_elements("css selector", "#explore-plot circle")[700]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", circle)
    selenium.ActionChains(browser).move_to_element(circle).perform()
    tip = browser.find_element("css selector", "#explore-plot .tip")
    assert tip.is_displayed()
    rank = tip.text.split(":")[0].removeprefix("rank ")
    assert "width" in tip.text
    assert "proxy accuracy (%): " in tip.text
    selenium.ActionChains(browser).click(circle).perform()
    (row,) = browser.find_elements("css selector", "#candidates tr.picked")
    assert row.find_elements("css selector", "td")[0].text == rank
    assert browser.execute_script(
        "const [row, pane] = [arguments[0], document.getElementById('candidates').parentElement]"
        ".map((element) => element.getBoundingClientRect()); return row.top >= pane.top && row.bottom <= pane.bottom",
        row,
    )


def test_a_phone_scrolls_down_alone(tmp_path, page):
    browser = open_page(tmp_path / "profile", page, width=390)
    try:
        assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [390, 390]
    finally:
        browser.quit()


def test_hostile_names_stay_text(tmp_path):
    choices = {HOSTILE: [1, 2], "norm": [HOSTILE, "${1 + 1}"], "d": [1, 2, 3]}
    run = make_run(tmp_path / "run", choices=choices, dataset=HOSTILE)
    browser = open_page(tmp_path / "profile", write_report(run))
    try:
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.querySelectorAll('script').length") == 1
        assert browser.execute_script("return document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0
        texts = browser.execute_script(
            "return [...document.querySelectorAll('#filter option')].map((o) => o.textContent)"
        )
        assert HOSTILE in texts
        assert "${1 + 1}" in texts
    finally:
        browser.quit()


def test_finalists_of_one_accuracy_have_it_on_the_axis(tmp_path):
    run = make_run(tmp_path / "run")
    with (run / "results.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        place = header.index("whole_accuracy")
        row[place] = "0.9625" if row[place] else ""
    with (run / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    browser = open_page(tmp_path / "profile", write_report(run))
    try:
        texts = browser.execute_script(
            "return [...document.querySelectorAll('#trust-plot text[text-anchor=end]')].map((text) => text.textContent)"
        )
        assert "96.25" in texts
    finally:
        browser.quit()
