"""A real browser (Debian's Chromium) that opens a report, without a network."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    # Whatever a page asks for outside of this machine is refused.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
# Impacts that a report must be free of.
SERIOUS = ("serious", "critical")


def find_program(*names: str) -> str:
    """Return the path of the first program that is installed."""
    found = next((path for name in names if (path := shutil.which(name))), None)
    assert found is not None, f"{names[0]} is missing: apt-get install -y chromium chromium-driver"
    return found


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start Chromium with a fresh profile; its console and requests are recorded."""
    options = webdriver.ChromeOptions()
    options.binary_location = find_program("chromium", "chromium-browser")
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(find_program("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(
    driver: webdriver.Chrome, page: Path, *, width: int = 1400, dark: bool = False
) -> None:
    """Open a file at a width, as a system in light or dark mode shows it."""
    look(driver, width=width, dark=dark)
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(page.as_uri())


def look(driver: webdriver.Chrome, *, width: int, dark: bool) -> None:
    """Set the width of the window and the colour scheme of the system."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def complaints(driver: webdriver.Chrome) -> list[str]:
    """Return what the console was told since the page was opened."""
    return [entry["message"] for entry in driver.get_log("browser")]


def requests(driver: webdriver.Chrome) -> list[str]:
    """Return the addresses that were asked for since the page was opened, data URIs left out."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    sent = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [url for url in sent if not url.startswith("data:")]


def violations(driver: webdriver.Chrome) -> list[tuple[str, str, list[str]]]:
    """Let axe-core look for what keeps people with disabilities out: (rule, impact, places)."""
    driver.set_script_timeout(240)
    package = files("axe_selenium_python").joinpath("node_modules", "axe-core", "axe.min.js")
    driver.execute_script(package.read_text("utf-8"))
    found: dict[str, Any] = driver.execute_async_script(
        """
        const done = arguments[arguments.length - 1];
        const failure = (error) => ({ id: `${error}`, impact: "critical", nodes: [] });
        const failed = (error) => done({ violations: [failure(error)] });
        axe.run(document, {resultTypes: ["violations"]}).then(done, failed);
        """
    )
    return [
        (item["id"], item["impact"], [str(node["target"]) for node in item["nodes"]])
        for item in found["violations"]
    ]


def screenshot(driver: webdriver.Chrome, path: Path) -> None:
    """Write a picture of the whole page."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(shot["data"]))
