"""The page of runs: what it says, where it links, and that no name can break it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from classifier_training.cli.runs import run_runs
from classifier_training.errors import EXIT_OK
from tests.unit.test_runs import write_run

HOSTILE = (
    "<script>alert(1)</script>",
    "\"quoted' & =cmd, #?%41",
    "x" * 200,
    "javascript:alert(1)",
    "right\u202eleft",
)


class Page(HTMLParser):
    """The cells and links of the table, and everything that would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.scripts = 0
        self.fetched: list[str] = []
        self._is_in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        self.fetched += [value for key in ("src", "srcset", "data") if (value := given.get(key))]
        if tag == "link":
            self.fetched.append(given["href"] or "")
        if tag == "a":
            self.links.append(given["href"] or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._is_in_cell = tag in ("td", "th") or (self._is_in_cell and tag != "script")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        if self._is_in_cell:
            self.rows[-1][-1] += data


def page(folder: Path, path: Path) -> Page:
    code = run_runs(
        folder, aggregate=False, by=None, json_file=None, csv_file=None, html_file=path, debug=True
    )
    assert code == EXIT_OK
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.promise("N9")
def test_the_page_says_what_the_runs_are(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=1, scores={"val/f1_macro": 0.8125}, fingerprint="a" * 64)
    write_run(tmp_path / "b", seed=2, scores={"val/f1_macro": 0.75}, fingerprint="a" * 64)
    write_run(tmp_path / "c", seed=2, scores={"val/f1_macro": 0.9}, fingerprint="c" * 64)
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "run.json").write_text("{")

    head, a, b, c, lost = page(tmp_path, tmp_path / "runs.html").rows

    assert [cell.strip() for cell in head][:3] == ["Run", "Status", "Best score"]
    assert a[0] == "a"
    assert "0.8125 val/f1_macro★ best" in a[2], "best of the two with the same data"
    assert "0.713 to 0.912" in a[2]
    assert a[4] == "aaaaaaaa"
    assert "seed 1" in a[7]
    assert "best" not in b[2]
    assert "best" not in c[2], "no other run has its data"
    assert lost[1].startswith("damagedcannot read run.json")
    assert lost[2].strip() == "none yet"


@pytest.mark.promise("N9")
def test_the_interval_is_drawn_to_scale(tmp_path: Path) -> None:
    write_run(tmp_path / "low", scores={"val/f1_macro": 0.3})
    write_run(tmp_path / "high", scores={"val/f1_macro": 0.7})
    page(tmp_path, tmp_path / "runs.html")

    text = (tmp_path / "runs.html").read_text()
    (high, high_width), (low, low_width) = re.findall(r'<i style="left:(.+?)%;width:(.+?)%', text)
    marks = [float(place) for place in re.findall(r'<u style="left:(.+?)%', text)]
    assert high_width == low_width, "both are 0.2 wide"
    # 0.4 lies between the two scores, which is twice the width of an interval.
    assert marks[0] - marks[1] == pytest.approx(2 * float(low_width), abs=0.05)
    middles = [float(left) + float(low_width) / 2 for left in (high, low)]
    assert marks == pytest.approx(middles, abs=0.05)


@pytest.mark.promise("N9")
@pytest.mark.parametrize("home", ["runs", ".", "pages/deep"])
def test_links_to_reports_are_relative_and_lead_there(home: str, tmp_path: Path) -> None:
    for name in ("with report", "50%#?", "without"):
        write_run(tmp_path / "runs" / name)
    for name in ("with report", "50%#?"):
        (tmp_path / "runs" / name / "report.html").write_text("")
    (tmp_path / home).mkdir(parents=True, exist_ok=True)

    links = page(tmp_path / "runs", tmp_path / home / "runs.html").links

    assert len(links) == 2
    for link in links:
        assert not link.startswith(("/", "file:"))
        assert not set("#?") & set(link)
        assert (tmp_path / home / unquote(link)).is_file()


@pytest.mark.promise("S2")
@pytest.mark.promise("N9")
def test_no_name_or_value_breaks_the_page(tmp_path: Path) -> None:
    for position, name in enumerate(HOSTILE):
        run = write_run(tmp_path / name.replace("/", "|"), seed=position)
        (run / "report.html").write_text("")
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text + f"experiment: |-\n  {name}\n")

    found = page(tmp_path, tmp_path / "runs.html")

    assert found.scripts == 1, "its own"
    assert found.fetched == ["data:,"]
    assert len(found.rows) == 1 + len(HOSTILE)
    assert all((tmp_path / unquote(link)).is_file() for link in found.links)
    assert not any(link.startswith("javascript:") for link in found.links)
    shown = {row[0] for row in found.rows[1:]}
    assert {name.replace("/", "|") for name in HOSTILE[:4]} <= shown
    assert "right\\x202eleft" in shown
    assert any("<script>alert(1)</script>" in row[7] for row in found.rows[1:]), "as text"


@pytest.mark.promise("N9")
def test_a_folder_that_is_one_run_links_to_its_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "only")
    (run / "report.html").write_text("")

    assert page(run, run / "runs.html").links == ["report.html"]
