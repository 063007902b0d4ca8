"""``classifier check`` and the same checks before training, on data with planted faults."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from classifier_training.cli.main import app
from classifier_training.data.checks import preflight
from classifier_training.data.image_stats import ImageStats
from classifier_training.data.index import index_data
from classifier_training.errors import EXIT_CONFIG, EXIT_DATA, EXIT_OK, DataError
from tests.helpers.config import data_config
from tests.helpers.data import class_image, write_csv, write_folder
from tests.helpers.planted_faults import KINDS, OVERRIDES, Planted, plant_faults, write_textures
from tests.helpers.runs import tiny_train


class Checked:
    """What ``classifier check`` said and wrote."""

    def __init__(self, data: Path, out: Path, *arguments: str) -> None:
        command = ["check", f"data.data_root={data}", "--out", str(out), *arguments]
        self.result = CliRunner().invoke(app, command)
        assert "Traceback" not in self.result.output
        self.content: dict[str, Any] = json.loads((out / "check.json").read_text(encoding="utf-8"))

    @property
    def findings(self) -> Mapping[str, dict[str, Any]]:
        """By code."""
        return {finding["code"]: finding for finding in self.content["findings"]}

    def texts(self, code: str) -> list[str]:
        """Everything that is said of each item of a finding."""
        items = self.findings.get(code, {"items": []})["items"]
        return [
            " ".join([item["detail"], *(image["path"] for image in item["images"])])
            for item in items
        ]


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_textures(tmp_path_factory.mktemp("textures"))


@pytest.fixture(scope="module")
def planted(
    textures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checked, dict[str, Planted]]:
    root = tmp_path_factory.mktemp("planted")
    faults = plant_faults(textures, root / "data", seed=0)
    checked = Checked(root / "data", root / "out", *OVERRIDES)
    return checked, {fault.kind: fault for fault in faults}


@pytest.mark.promise("D4", "D6")
@pytest.mark.parametrize("kind", list(KINDS))
def test_every_planted_fault_is_found(
    kind: str, planted: tuple[Checked, dict[str, Planted]]
) -> None:
    checked, faults = planted
    fault = faults[kind]
    texts = checked.texts(fault.code)
    assert any(all(needle in text for needle in fault.needles) for text in texts), texts


@pytest.mark.promise("D6")
def test_near_duplicates_are_told_for_the_later_split(
    planted: tuple[Checked, dict[str, Planted]],
) -> None:
    items = planted[0].findings["near-duplicate-across-splits"]["items"]
    pairs = sorted(tuple(image["split"] for image in item["images"]) for item in items)
    assert pairs == [("train", "test"), ("train", "val"), ("val", "test")]


@pytest.mark.promise("D4", "C5")
def test_errors_are_of_planted_faults_alone(
    planted: tuple[Checked, dict[str, Planted]],
) -> None:
    checked, faults = planted
    assert checked.result.exit_code == EXIT_DATA
    # A copy of an image in another split, with another label, is two errors.
    needles = [fault.needles for fault in faults.values()]
    for code, finding in checked.findings.items():
        if finding["severity"] == "error":
            for text in checked.texts(code):
                assert any(all(needle in text for needle in words) for words in needles), text


@pytest.mark.promise("D4", "D6")
@pytest.mark.parametrize("seed", [1, 2])
def test_clean_data_has_no_findings(seed: int, textures: Path, tmp_path: Path) -> None:
    plant_faults(textures, tmp_path / "data", seed, kinds=())
    checked = Checked(tmp_path / "data", tmp_path / "out", *OVERRIDES, "--strict")
    assert checked.content["findings"] == []
    assert checked.result.exit_code == EXIT_OK


@pytest.mark.promise("D4")
def test_bad_images_are_named_with_the_line_that_lists_them(tmp_path: Path) -> None:
    data = write_csv(write_folder(tmp_path / "data"))
    (data / "train" / "00" / "003.png").write_bytes(b"")
    item = Checked(data, tmp_path / "out", "data=csv").findings["empty-file"]["items"][0]
    [image] = item["images"]
    lines = (data / "train.csv").read_text().splitlines()
    assert lines[image["line"] - 1] == "train/00/003.png,00"
    assert (image["source"], image["label"], image["split"]) == ("train.csv", "00", "train")


@pytest.mark.promise("C8")
def test_nothing_is_written_without_out(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(folder_data.rglob("*"))
    result = CliRunner().invoke(app, ["check", f"data.data_root={folder_data}"])
    assert result.exit_code == EXIT_OK
    assert list(tmp_path.iterdir()) == []
    assert sorted(folder_data.rglob("*")) == before


@pytest.mark.promise("C5")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["data.data_root=/no/such/folder"], EXIT_DATA, "is not a folder"),
        (["data.data_root=.", "data.chek=full"], EXIT_CONFIG, "did you mean data.check?"),
        (["data=folder"], EXIT_CONFIG, "data.data_root"),
        (["data.data_root=.", "data.check=labels", "data.on_bad_image=skip"], EXIT_CONFIG, "skip"),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str], code: int, said: str) -> None:
    result = CliRunner().invoke(app, ["check", *arguments])
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output


@pytest.mark.promise("C5")
def test_data_without_images_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    checked = Checked(tmp_path / "data", tmp_path / "out")
    assert checked.result.exit_code == EXIT_DATA
    assert "no labelled images" in checked.texts("data")[0]
    assert checked.content["images"] is None


def test_warnings_are_errors_when_strict(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    Image.new("RGB", (40, 40), "red").save(data / "train" / "0" / "red.png")
    lenient = Checked(data, tmp_path / "out")
    assert (lenient.content["errors"], lenient.content["warnings"]) == (0, 1)
    assert lenient.result.exit_code == EXIT_OK
    assert Checked(data, tmp_path / "out", "--strict").result.exit_code == EXIT_DATA


@pytest.mark.promise("S2")
def test_hostile_names_break_neither_lines_nor_the_report(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    names = (
        "line\nbreak.png",
        "\x1b[2Jcleared.png",
        "[bold]rich.png",
        os.fsdecode(b"\xff.png"),
    )
    for name in names:
        (data / "train" / "0" / name).write_bytes(b"no image")
    checked = Checked(data, tmp_path / "out")
    assert checked.result.exit_code == EXIT_DATA
    assert len(checked.texts("not-an-image")) == len(names)
    assert "\x1b" not in checked.result.output
    assert "\nbreak.png" not in checked.result.output
    assert "[bold]rich.png" in checked.result.output


@pytest.mark.promise("D4", "C5", "C8")
def test_training_refuses_before_it_writes(tmp_path: Path) -> None:
    data = write_csv(write_folder(tmp_path / "data"))
    bad = data / "train" / "NO" / "002.png"
    bad.write_bytes(bad.read_bytes()[:500])
    with pytest.raises(DataError, match=r"truncated-image: 1 .*\n.*train/NO/002.png \(train.csv:"):
        tiny_train(data, tmp_path / "run", "data=csv")
    assert not (tmp_path / "run").exists()


@pytest.mark.promise("D6")
def test_training_refuses_an_image_in_two_splits(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    shutil.copy(data / "train" / "0" / "001.png", data / "test" / "0" / "copy.png")
    with pytest.raises(DataError, match=r"train/0/001.png = test/0/copy.png: the same file"):
        tiny_train(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.promise("D4")
def test_bad_images_are_left_out_counted_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_folder(tmp_path / "data")
    (data / "train" / "NO" / "002.png").write_bytes(b"")
    (data / "val" / "0" / "001.png").write_bytes(b"text")
    skip = ("data.on_bad_image=skip", "data.max_bad_share=0.05")
    run = tiny_train(data, tmp_path / "run", *skip, "trainer.max_epochs=1")

    statistics = json.loads(run.folder.statistics.read_text())
    assert statistics["skipped"] == {"empty file": 1, "not an image": 1}
    assert statistics["loaded"] == 86
    table = run.folder.manifest.read_text()
    assert "train/NO/001.png" in table
    assert "train/NO/002.png" not in table
    report = json.loads(run.folder.check.read_text())
    assert (report["images"], report["errors"]) == (88, 0)

    # The run goes on with the facts that it stored, and is the same run.
    def decode_again(*_: object, **__: object) -> ImageStats:
        raise AssertionError("the images were decoded again")

    monkeypatch.setattr(preflight, "measure_images", decode_again)
    longer = tiny_train(data, tmp_path / "run", *skip, "trainer.max_epochs=2")
    assert longer.record["id"] == run.record["id"]
    assert longer.record["max_epochs"] == 2


@pytest.mark.promise("D4")
@pytest.mark.parametrize(
    ("share", "said"), [("0.01", r"3 of 88 images \(3.4%\)"), ("0.5", "the val split .* no images")]
)
def test_too_many_bad_images_are_an_error(tmp_path: Path, share: str, said: str) -> None:
    counts = {"train": 12, "val": 6, "test": 4} if share == "0.01" else {"train": 12, "val": 1}
    data = write_folder(tmp_path / "data", counts=counts)
    bad = list((data / "val").glob("*/*.png"))[: 3 if share == "0.01" else None]
    for path in bad:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=said):
        tiny_train(data, tmp_path / "run", "data.on_bad_image=skip", f"data.max_bad_share={share}")
    assert not (tmp_path / "run").exists()


@pytest.mark.promise("D4")
def test_without_decoding_first_the_run_names_the_bad_file(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    (data / "train" / "NO" / "002.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"train/NO/002.png"):
        tiny_train(data, tmp_path / "run", "data.check=labels")
    assert (tmp_path / "run").exists()


def test_changed_images_are_measured_again(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    config = data_config(data)
    stored = tmp_path / "facts.npz"
    first = preflight.check_index(index_data(config), config, stored=stored)
    first.write(facts=stored, report=tmp_path / "check.json")
    class_image(1, 7, (90, 70)).save(data / "train" / "0" / "000.png")
    again = preflight.check_index(index_data(config), config, stored=stored)
    assert first.facts is not None
    assert again.facts is not None
    assert (first.facts.widths.max(), again.facts.widths.max()) == (48, 90)


@pytest.mark.promise("C5")
def test_without_data_the_mend_is_a_key() -> None:
    result = CliRunner().invoke(app, ["check"])

    assert result.exit_code == 2
    assert "add data.data_root=PATH_TO_YOUR_IMAGES" in result.output
