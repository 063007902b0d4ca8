"""Changed pixels or labels are never mistaken for the data that a run was trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from classifier_training.errors import ResumeError
from classifier_training.run.reader import Run
from tests.helpers.data import class_image, write_folder
from tests.helpers.runs import tiny_train


def _change_a_pixel(data: Path) -> None:
    path = data / "train" / "0" / "000.png"
    image = class_image(0, 0)
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)


def _change_a_label(data: Path) -> None:
    (data / "train" / "0" / "000.png").rename(data / "train" / "NO" / "moved.png")


@pytest.mark.promise("R4")
@pytest.mark.parametrize("change", [_change_a_pixel, _change_a_label])
def test_a_changed_pixel_or_label_is_another_run(
    change: Callable[[Path], None], folder_data: Path, tiny_run: Run, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(folder_data, tmp_path / "data"))
    out = Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    tiny_train(data, out, "data.num_workers=1")  # finished, and the same data: nothing to do

    change(data)
    with pytest.raises(ResumeError, match="images, labels or splits changed"):
        tiny_train(data, out)

    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.promise("R4")
def test_rewritten_data_of_the_same_content_is_the_same_run(tiny_run: Run, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "images")
    out = Path(shutil.copytree(tiny_run.folder.path, tmp_path / "run"))

    again = tiny_train(data, out)

    assert again.record["id"] == tiny_run.record["id"]
