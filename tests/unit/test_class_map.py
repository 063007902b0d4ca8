from __future__ import annotations

from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from classifier_training.errors import DataError
from classifier_training.inference.class_map import ClassMap
from tests.helpers.pixels import numbered, write_images

LOOKALIKES = ("null", "NO", "no", "1e3", "1000", "10", "9", "08", "8", "00", "0", " 0", "é", "日")


@pytest.mark.promise("D2")
def test_order_is_that_of_image_folder(tmp_path: Path) -> None:
    write_images(tmp_path, {f"{name}/x.png": numbered(0) for name in LOOKALIKES})

    ours = ClassMap.from_labels(LOOKALIKES * 2)

    assert list(ours.names) == ImageFolder(str(tmp_path)).classes
    assert ours.as_class_to_idx() == ImageFolder(str(tmp_path)).class_to_idx


@pytest.mark.promise("D2")
def test_names_and_indices_are_inverse() -> None:
    ours = ClassMap(LOOKALIKES)

    assert [ours.index(name) for name in LOOKALIKES] == list(range(len(LOOKALIKES)))
    assert ours.as_idx_to_class() == {str(i): name for i, name in enumerate(LOOKALIKES)}
    assert "NOPE" not in ours


@pytest.mark.promise("D2")
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((0, "1"), "class name 0 is not a non-empty string"),
        ((False, "1"), "class name False"),
        ((None, "1"), "class name None"),
        (("", "1"), "class name ''"),
        (("b", "a", "b", "a", "c"), "class names stand twice: 'a', 'b'"),
        (("a",), "1 class"),
        ((), "0 class"),
    ],
)
def test_unusable_names_are_refused(names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(DataError, match="class") as caught:
        ClassMap(names)

    assert expected in caught.value.what


@pytest.mark.promise("D2")
def test_many_classes_are_quick() -> None:
    assert len(ClassMap.from_labels(map(str, range(50_000)))) == 50_000
