"""The page of runs in a real browser: quiet, offline, for everybody, and it sorts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from typer.testing import CliRunner

from classifier_training.cli.main import app
from classifier_training.run.reader import Run
from classifier_training.system.files import write_json
from tests.helpers.browser import (
    SERIOUS,
    chromium,
    complaints,
    open_page,
    requests,
    violations,
)
from tests.helpers.report_data import HOSTILE, named_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900), pytest.mark.promise("N9")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tiny_run: Run) -> Path:
    """The page of five runs: three that are finished, one that failed, one of odd names."""
    top = tmp_path_factory.mktemp("runs")
    for name, score in (("first", 0.5), ("second", 0.9), ("third", 0.7), ("failed", 0.1)):
        shutil.copytree(tiny_run.folder.path, top / name)
        record = Run(top / name).record
        record["best"]["score"] = score
        write_json(top / name / "run.json", {**record, "id": name})
    failed = Run(top / "failed").record
    write_json(top / "failed" / "run.json", {**failed, "status": "failed"})
    odd = named_run(tmp_path_factory.mktemp("odd"), HOSTILE)
    shutil.copytree(odd.folder.path, top / "<b>&'; odd")
    done = CliRunner().invoke(app, ["runs", str(top), "--html", str(top / "runs.html")])
    assert done.exit_code == 0, done.output
    return top / "runs.html"


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_quiet_offline_accessible_and_no_wider_than_the_window(
    browser: webdriver.Chrome, page: Path, width: int, dark: bool
) -> None:
    open_page(browser, page, width=width, dark=dark)

    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert complaints(browser) == []
    assert requests(browser) == [page.as_uri()]
    assert [item for item in violations(browser) if item[1] in SERIOUS] == []
    assert len(browser.find_elements(By.CSS_SELECTOR, "tbody tr")) == 5


def test_a_title_sorts_and_the_filter_keeps_what_fits(
    browser: webdriver.Chrome, page: Path
) -> None:
    open_page(browser, page, width=1400)

    def names() -> list[str]:
        rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr th")
        return [row.text.split()[0] for row in rows if row.is_displayed()]

    before = names()
    button = browser.find_element(By.CSS_SELECTOR, "thead th button")
    for _ in range(3):
        button.click()
        if names() != before:
            break

    title = browser.find_element(By.CSS_SELECTOR, "thead th[aria-sort]")
    assert names() != before or title.get_attribute("aria-sort") in ("ascending", "descending")
    assert sorted(names()) == sorted(before)
    ordered = [name.lower() for name in names()]
    assert ordered in (sorted(ordered), sorted(ordered, reverse=True))

    field = browser.find_element(By.CSS_SELECTOR, "input")
    field.send_keys("second")
    assert names() == ["second"]


def test_links_lead_to_the_reports(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page, width=1400)
    links = [
        link.get_attribute("href")
        for link in browser.find_elements(By.CSS_SELECTOR, "tbody a")
        if str(link.get_attribute("href")).endswith("report.html")
    ]

    assert len(links) == 5
    for link in links:
        browser.get(str(link))
        assert browser.find_elements(By.ID, "verdict"), link
