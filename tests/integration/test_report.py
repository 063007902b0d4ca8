"""``report.html``: what stands in it is what the run left, whole in itself and harmless."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from typer.testing import CliRunner, Result

from classifier_training.cli.main import app
from classifier_training.inference.images import read_image
from classifier_training.inference.sidecar import Sidecar
from classifier_training.report import gallery
from classifier_training.report.sections import deployment_of
from classifier_training.run.reader import Run
from tests.helpers.report_data import HOSTILE, named_run
from tests.helpers.runs import tiny_train


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.append((self.inside[-1] if self.inside else "", data))

    def text_in(self, tag: str) -> list[str]:
        return [text for inside, text in self.texts if inside == tag]

    def behind(self) -> dict[str, list[object]]:
        content = next(text for text in self.text_in("script") if text.startswith("{"))
        return dict(json.loads(content))


def report(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the finished run that may be written into."""
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.mark.promise("N6")
def test_training_ends_with_a_report(tiny_run: Run) -> None:
    page = Page(tiny_run.folder.path / "report.html")
    score = tiny_run.metrics("test")["metrics"]["acc_top1"]
    text = " ".join(text for _, text in page.texts)

    assert f"{100 * score['low']:.1f} to {100 * score['high']:.1f}" in text
    assert f"of {tiny_run.metrics('test')['images']} test images" in text
    assert tiny_run.record["data_fingerprint"] in text
    assert hashlib.sha256(tiny_run.folder.onnx.read_bytes()).hexdigest() in text
    assert "report" in json.loads(tiny_run.folder.record_file.read_text())["stages_s"]


@pytest.mark.promise("N6")
def test_nothing_outside_is_asked_for_and_only_our_own_script_runs(tiny_run: Run) -> None:
    path = tiny_run.folder.path / "report.html"
    page = Page(path)

    for tag, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:", "#")), (tag, key, value)
        assert "style" not in attributes
        assert not any(key.startswith("on") for key in attributes)
    assert not re.search(r"url\(|@import", "".join(page.text_in("style")))
    policy = next(
        attributes["content"]
        for tag, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for kind in ("script", "style"):
        (code,) = (text for text in page.text_in(kind) if not text.startswith("{"))
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


@pytest.mark.promise("N6")
def test_a_report_tells_what_the_files_say_and_computes_nothing_again(run: Run) -> None:
    folder = run.folder
    metrics = folder.evaluation("test") / "metrics.json"
    content = json.loads(metrics.read_text())
    content["metrics"]["acc_top1"] |= {"value": 0.4321, "low": 0.4001, "high": 0.4712}
    metrics.write_text(json.dumps(content))
    shutil.rmtree(folder.checkpoints)
    folder.onnx.unlink()

    result = report(folder.path)

    assert result.exit_code == 0, result.output
    text = (folder.path / "report.html").read_text(encoding="utf-8")
    assert '<p class="figure">43.2\u202f%</p>' in text
    assert "40.0 to 47.1\u202f%" in text
    assert "Nothing was exported yet" in text


@pytest.mark.promise("N6")
def test_matrix_and_images_behind_it_agree_with_the_predictions(tiny_run: Run) -> None:
    behind = Page(tiny_run.folder.path / "report.html").behind()
    metrics = tiny_run.metrics("test")

    assert behind["classes"] == metrics["classes"]
    assert sum(cell[2] for cell in behind["cells"]) == metrics["images"]  # type: ignore[index]
    shown = [(row, column, path) for row, column, _, path, _ in behind["images"]]  # type: ignore[misc]
    assert len({path for _, _, path in shown}) == len(shown) == metrics["images"]
    for row, _, path in shown:
        assert path.split("/")[1] == metrics["classes"][row]
    assert all(uri.startswith("data:image/jpeg") for uri in behind["pictures"])  # type: ignore[attr-defined]


@pytest.mark.promise("S2")
def test_hostile_names_stand_in_the_page_as_text(tmp_path: Path) -> None:
    run = named_run(tmp_path, HOSTILE)

    page = Page(run.folder.path / "report.html")

    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert all(
        (attributes.get("src") or "data:").startswith("data:") for _, attributes in page.elements
    )
    assert page.behind()["classes"] == run.metrics("test")["classes"]
    names = set(page.text_in("bdi"))
    assert set(HOSTILE) <= names


@pytest.mark.promise("N6")
def test_images_that_are_gone_leave_a_place(run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    result = report(run.folder.path, "--data-root", empty, "--out", tmp_path / "r.html")

    assert result.exit_code == 0, result.output
    page = Page(tmp_path / "r.html")
    assert page.behind()["pictures"] == []
    assert "image not found" in page.text_in("div")
    assert any("could not be read" in text for text in page.text_in("p"))


def test_paths_that_leave_the_data_root_are_not_read(tmp_path: Path, tiny_run: Run) -> None:
    root = tmp_path / "root"
    shutil.copytree(Path(tiny_run.record["data_root"]) / "test" / "0", root)
    (tmp_path / "secret.png").write_bytes((root / "000.png").read_bytes())
    paths = ["000.png", "../secret.png", str(tmp_path / "secret.png"), "gone.png"]

    found = gallery.thumbnails(root, paths, lambda _done, _total: None)

    assert list(found.uris) == ["000.png"]
    assert found.missing == 3


@pytest.mark.promise("N6")
def test_pictures_stay_within_their_budget(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(tiny_run.record["data_root"])
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.png"))]
    monkeypatch.setattr(gallery, "BUDGET", 30_000)

    found = gallery.thumbnails(root, paths, lambda _done, _total: None)

    assert 0 < sum(map(len, found.uris.values())) <= 30_000
    assert found.left_out == len(paths) - len(found.uris)
    assert next(iter(found.uris)) == paths[0]  # the most wanted come first


@pytest.mark.promise("R6")
def test_a_report_that_fails_does_not_fail_the_run(folder_data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="ERROR", diagnose=False)
    (tmp_path / "run" / "report.html").mkdir(parents=True)  # no file can take its place

    run = tiny_train(folder_data, tmp_path / "run", "trainer.max_epochs=1")

    logger.remove(sink)
    assert run.record["status"] == "finished"
    assert run.folder.onnx.is_file()
    assert len(lines) == 1
    assert f"classifier report {run.folder.path}" in lines[0]


@pytest.mark.promise("N2")
def test_the_previous_run_may_be_a_tie(run: Run, tiny_run: Run, tmp_path: Path) -> None:
    result = report(
        run.folder.path, "--previous", tiny_run.folder.path, "--out", tmp_path / "r.html"
    )

    assert result.exit_code == 0, result.output
    assert any(
        text.startswith("A tie with the previous run")
        for text in Page(tmp_path / "r.html").text_in("li")
    )


def test_overlays_and_suspects_are_shown_where_they_were_made(run: Run) -> None:
    folder = run.folder.path
    images = Path(run.record["data_root"]) / "test" / "0"
    gradcam = folder / "plots" / "gradcam"
    gradcam.mkdir(parents=True)
    shutil.copy(images / "000.png", gradcam / "a.png")
    entry = {"split": "test", "path": "test/0/000.png", "true": "0", "predicted": "NO",
             "confidence": 0.75, "overlay": "plots/gradcam/a.png"}  # fmt: skip
    outside = {**entry, "overlay": "../../etc/passwd"}
    index = {"schema_version": 1, "images": [entry, outside]}
    (gradcam / "index.json").write_text(json.dumps(index))

    assert report(folder).exit_code == 0

    page = Page(folder / "report.html")
    assert "What it looks at" in page.text_in("h2")
    assert page.text_in("div").count("image not found") == 1


@pytest.fixture
def unfinished(run: Run) -> Path:
    shutil.rmtree(run.folder.path / "evaluation")
    (run.folder.path / "report.html").unlink()
    return run.folder.path


@pytest.mark.promise("C5")
def test_errors_name_the_thing_and_the_mend(unfinished: Path, run: Run, tmp_path: Path) -> None:
    table = {
        3: report(unfinished),
        6: report(tmp_path / "nowhere"),
    }
    for code, result in table.items():
        assert result.exit_code == code, result.output
        assert "expected:" in result.output
        assert "fix:" in result.output
        assert "Traceback" not in result.output
    assert not (unfinished / "report.html").exists()


@pytest.mark.promise("C5")
def test_a_damaged_file_is_named(run: Run) -> None:
    (run.folder.evaluation("test") / "predictions.csv").write_text("path,true\n")

    result = report(run.folder.path)

    assert result.exit_code == 3
    assert "predictions.csv" in result.output


def test_the_command_imports_no_torch(tiny_run: Run, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from classifier_training.cli.report import run_report;"
        f"run, out = Path({str(tiny_run.folder.path)!r}), Path({str(tmp_path / 'r.html')!r});"
        "code = run_report(run, out=out, previous=None, data_root=None, debug=True);"
        "print(code, 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.split()[-2:] == ["0", "False"], done.stderr


@pytest.mark.promise("X4")
def test_the_code_to_copy_runs_and_gives_the_same_answers(
    tiny_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployment_of(Run(tiny_run.folder.path))
    assert deployment is not None
    with (tiny_run.folder.evaluation("test") / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    spec = Sidecar.read(tiny_run.folder.sidecar).spec
    root = Path(tiny_run.record["data_root"])
    pixels = np.stack([spec.resize_image(read_image(root / row["path"])) for row in rows])
    monkeypatch.chdir(tiny_run.folder.path)
    names: dict[str, object] = {"pixels": pixels}

    exec(deployment.without_package, names)  # what a reader copies

    assert names["labels"] == [row["predicted"] for row in rows]
