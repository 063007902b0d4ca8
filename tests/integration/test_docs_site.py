"""The documentation as a site: built strictly, and opened in a browser from a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.helpers.browser import chromium, complaints, look, open_page, requests
from tests.helpers.documents import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600), pytest.mark.promise("I4")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, so that a broken link or anchor fails."""
    out = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def test_every_page_is_quiet_asks_nobody_and_fits_a_phone(
    site: Path, browser: webdriver.Chrome
) -> None:
    # The page of a wrong address is for servers: its paths start at their root.
    pages = sorted(page for page in site.rglob("*.html") if page.name != "404.html")
    assert len(pages) > 30
    wide = {}
    for page in pages:
        open_page(browser, page, width=400)
        assert complaints(browser) == [], page
        assert [url for url in requests(browser) if not url.startswith(("file:", "data:"))] == []
        width = browser.execute_script("return document.documentElement.scrollWidth")
        if width > 400:
            wide[page.name] = width
    assert wide == {}


def test_the_search_works_from_a_folder(site: Path, browser: webdriver.Chrome) -> None:
    look(browser, width=1400, dark=False)
    open_page(browser, site / "index.html")
    field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    field.click()
    field.send_keys("preemption")

    deadline = time.monotonic() + 30
    found: list[str] = []
    while not any("cloud" in link for link in found) and time.monotonic() < deadline:
        time.sleep(0.1)
        links = browser.find_elements(By.CSS_SELECTOR, "a.md-search-result__link")
        found = [str(link.get_attribute("href")) for link in links]

    assert any("cloud.html" in link for link in found), found


def test_reference_pages_say_what_the_package_says(site: Path, browser: webdriver.Chrome) -> None:
    open_page(browser, site / "reference" / "configuration.html")
    text = browser.find_element(By.TAG_NAME, "article").text
    assert "data.batch_size" in text
    assert "auto" in text
    open_page(browser, site / "reference" / "commands.html")
    assert "classifier submit" in browser.find_element(By.TAG_NAME, "article").text
    open_page(browser, site / "promises.html")
    assert "integration/test_submit.py" in browser.find_element(By.TAG_NAME, "article").text
