"""A report in a real browser: quiet, offline, usable by pointer and keyboard, for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from classifier_training.inference.prediction_files import TRUTH_COLUMNS
from classifier_training.run.reader import Run
from tests.helpers.browser import (
    SERIOUS,
    chromium,
    complaints,
    look,
    open_page,
    requests,
    violations,
)
from tests.helpers.report_data import HOSTILE, named_run

# A busy machine starts Chromium slowly, and axe-core looks at every element.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

MANY = tuple(str(number) for number in range(43))
SETTINGS = [(1400, False), (1400, True), (400, False), (400, True)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_run: Run) -> dict[str, Run]:
    """A run of 4 classes, one of 43, and one whose names break careless code."""
    return {
        "few": tiny_run,
        "many": named_run(tmp_path_factory.mktemp("many"), MANY),
        "hostile": named_run(tmp_path_factory.mktemp("hostile"), HOSTILE),
    }


def page_of(run: Run) -> Path:
    return run.folder.path / "report.html"


def answers(run: Run) -> list[dict[str, str]]:
    from classifier_training.system.tables import read_table

    return read_table(run.folder.evaluation("test") / "predictions.csv", TRUTH_COLUMNS, fix="")


def shown_paths(driver: webdriver.Chrome) -> set[str]:
    tiles = driver.find_elements(By.CSS_SELECTOR, "#cell-tiles .path")
    return {str(tile.get_attribute("title")) for tile in tiles}


@pytest.mark.promise("N6")
@pytest.mark.parametrize("name", ["many", "hostile"])
def test_quiet_offline_accessible_and_no_wider_than_the_window(
    browser: webdriver.Chrome, runs: dict[str, Run], name: str
) -> None:
    page = page_of(runs[name])
    assert page.stat().st_size < 8_000_000

    for width, dark in SETTINGS:
        open_page(browser, page, width=width, dark=dark)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        # What a reader opens is judged too.
        browser.execute_script(
            "for (const item of document.querySelectorAll('details')) item.open = true;"
        )
        links = browser.find_elements(By.CSS_SELECTOR, "#confusion .cell-link")
        if links:
            browser.execute_script("arguments[0].click()", links[0])
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert complaints(browser) == []
        assert requests(browser) == [page.as_uri()]
        serious = [item for item in violations(browser) if item[1] in SERIOUS]
        assert serious == [], (width, dark)


def test_dark_and_light_follow_the_system(browser: webdriver.Chrome, runs: dict[str, Run]) -> None:
    open_page(browser, page_of(runs["few"]))
    ask = "return getComputedStyle(document.body).backgroundColor"

    light = browser.execute_script(ask)
    look(browser, width=1400, dark=True)

    assert light == "rgb(252, 251, 249)"
    assert browser.execute_script(ask) == "rgb(19, 21, 25)"


@pytest.mark.promise("S2")
def test_hostile_names_do_nothing_and_are_read_as_they_are(
    browser: webdriver.Chrome, runs: dict[str, Run]
) -> None:
    open_page(browser, page_of(runs["hostile"]))

    assert "owned" not in browser.title
    assert browser.find_elements(By.CSS_SELECTOR, "img[src='x'], bdi *") == []
    names = browser.find_elements(By.CSS_SELECTOR, "#per-class tbody th bdi")
    assert {name.get_property("textContent") for name in names} == set(HOSTILE)
    cells = browser.find_elements(By.CSS_SELECTOR, "#confusion .cell-link")
    assert cells
    cells[0].click()
    assert browser.find_element(By.ID, "cell-tiles").find_elements(By.TAG_NAME, "figure")
    assert complaints(browser) == []


@pytest.mark.promise("N6")
@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_a_cell_of_the_matrix_shows_its_images(
    browser: webdriver.Chrome, runs: dict[str, Run], by: str
) -> None:
    run = runs["many"]
    rows = answers(run)
    classes: list[str] = run.metrics("test")["classes"]
    wrong = next(row for row in rows if row["correct"] == "false")
    cell = (wrong["true"], wrong["predicted"])
    expected = {row["path"] for row in rows if (row["true"], row["predicted"]) == cell}
    at = (classes.index(cell[0]), classes.index(cell[1]))
    open_page(browser, page_of(run))
    matrix = browser.find_element(By.ID, "matrix")

    if by == "pointer":
        drawing = matrix.find_element(By.CSS_SELECTOR, ".cells")
        click_cell(browser, matrix, drawing, at)
    else:
        matrix.send_keys(Keys.HOME)
        matrix.send_keys(Keys.ARROW_DOWN * at[0] + Keys.ARROW_RIGHT * at[1])
        matrix.send_keys(Keys.ENTER)

    assert shown_paths(browser) == expected
    title = browser.find_element(By.ID, "cell-title").text
    noun = "image" if len(expected) == 1 else "images"
    assert " ".join(title.split()) == f"{cell[0]} taken for {cell[1]}: {len(expected)} {noun}"
    images = browser.find_elements(By.CSS_SELECTOR, "#cell-tiles img")
    assert len(images) == len(expected)
    assert all(image.get_property("naturalWidth") for image in images)


def click_cell(
    driver: webdriver.Chrome, matrix: WebElement, drawing: WebElement, at: tuple[int, int]
) -> None:
    side, margin = (int(str(matrix.get_attribute(f"data-{key}"))) for key in ("side", "margin"))
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", matrix)
    box = drawing.rect
    ActionChains(driver).move_to_element_with_offset(
        drawing,
        round((at[1] + 0.5) * side - box["width"] / 2),
        round(margin + (at[0] + 0.5) * side - box["height"] / 2),
    ).click().perform()


@pytest.mark.promise("N6")
def test_the_table_of_classes_sorts_by_pointer_and_keyboard(
    browser: webdriver.Chrome, runs: dict[str, Run]
) -> None:
    run = runs["many"]
    open_page(browser, page_of(run))
    heads = browser.find_elements(By.CSS_SELECTOR, "#per-class thead th")

    def column(number: int) -> list[float]:
        cells = browser.find_elements(
            By.CSS_SELECTOR, f"#per-class tbody tr > :nth-child({number})"
        )
        return [float(str(cell.get_attribute("data-key"))) for cell in cells]

    assert column(4) == sorted(column(4))  # recall, the worst first
    heads[3].find_element(By.TAG_NAME, "button").click()
    assert column(4) == sorted(column(4), reverse=True)
    assert heads[3].get_attribute("aria-sort") == "descending"
    heads[0].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(1) == list(range(43))
    assert heads[0].get_attribute("aria-sort") == "ascending"
    assert heads[3].get_attribute("aria-sort") is None
    names = browser.find_elements(By.CSS_SELECTOR, "#per-class tbody th")
    assert [name.text for name in names] == run.metrics("test")["classes"]


@pytest.mark.promise("N6")
def test_without_its_script_the_page_still_says_everything(
    browser: webdriver.Chrome, runs: dict[str, Run]
) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, page_of(runs["few"]))
        assert browser.find_element(By.CSS_SELECTOR, ".figure").is_displayed()
        assert len(browser.find_elements(By.CSS_SELECTOR, "#gallery img")) > 0
        assert browser.find_elements(By.CSS_SELECTOR, "#matrix .hit, #matrix .miss")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
