"""A data set with faults of more than forty kinds in it, each known by the files it touches.

``plant_faults(source, root, seed)`` copies the images of ``source/SPLIT/CLASS/*`` to ``root``,
lists them in CSV files, and plants; with ``kinds=()`` it copies only. The source may be a
generated one (:func:`write_textures`) or any folder of photographs with six classes or more.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
OVERRIDES = ("data=csv", "data.group_by=field:group")


@dataclass(frozen=True)
class Planted:
    """A planted fault: the finding that must report it, and what one of its items must name."""

    kind: str
    code: str
    needles: tuple[str, ...]


@dataclass
class Row:
    """A row of the table to be written."""

    path: str
    label: str
    split: str
    group: str = ""


@dataclass
class Data:
    """A copied data set while it is being damaged."""

    root: Path
    rng: np.random.Generator
    rows: list[Row]
    classes: list[str]
    extra_lines: dict[str, list[str]] = field(default_factory=dict)
    planted: list[Planted] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    @property
    def free_classes(self) -> list[str]:
        """Classes as they were copied that hold no shortcut: all but the first four."""
        return self.classes[4:]

    def victim(self, split: str = "train", *, label: str | None = None) -> Row:
        """Choose an image that no other fault uses, of a class without a planted shortcut."""
        free = [
            row
            for row in self.rows
            if row.split == split and row.path not in self.used and self.is_free(row, label)
        ]
        row = free[int(self.rng.integers(len(free)))]
        self.used.add(row.path)
        return row

    def is_free(self, row: Row, label: str | None) -> bool:
        """Whether a row is of the wanted class, or of any that holds no shortcut."""
        return row.label == label if label else row.label in self.free_classes

    def image(self, row: Row) -> Image.Image:
        """Decode the image of a row."""
        with Image.open(self.root / row.path) as image:
            return image.convert("RGB")

    def add(self, source: Row, split: str, data: bytes, suffix: str, label: str = "") -> Row:
        """Add a file and its row beside ``source``."""
        stem = f"{Path(source.path).parent}/added-{len(self.rows):06d}{suffix}"
        row = Row(stem, label or source.label, split)
        (self.root / stem).write_bytes(data)
        self.rows.append(row)
        self.used.add(stem)
        return row

    def found(self, kind: str, code: str, *needles: str) -> None:
        """Note what must be reported."""
        self.planted.append(Planted(kind, code, needles))


Plant = Callable[[Data, str], None]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_textures(root: Path, *, classes: int = 8, seed: int = 0) -> Path:
    """Write JPEGs of smooth noise, ``root/SPLIT/CLASS/N.jpg``; nothing tells the class."""
    rng = np.random.default_rng(seed)
    for split, count in {"train": 60, "val": 10, "test": 10}.items():
        for position in range(classes):
            folder = root / split / f"class {chr(97 + position)}"
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                size = (int(rng.integers(48, 97)), int(rng.integers(48, 97)))
                image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
                image.save(folder / f"{number}.jpg", quality=90)
    return root


def plant_faults(
    source: Path, root: Path, seed: int, kinds: Iterable[str] | None = None
) -> list[Planted]:
    """Copy a data set and plant faults in it; None: all kinds.

    Returns:
        What was planted. ``OVERRIDES`` and ``data.data_root=ROOT`` check it.
    """
    data = _copy(source, root, np.random.default_rng(seed))
    for kind in KINDS if kinds is None else kinds:
        KINDS[kind](data, kind)
    for split in SPLIT_FOLDERS:
        with (root / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "group"))
            writer.writerows(
                (row.path, row.label, row.group) for row in data.rows if row.split == split
            )
            file.writelines(f"{line}\n" for line in data.extra_lines.get(split, ()))
    return data.planted


def _copy(source: Path, root: Path, rng: np.random.Generator) -> Data:
    rows = []
    for split, names in SPLIT_FOLDERS.items():
        folder = next(source / name for name in names if (source / name).is_dir())
        for number, file in enumerate(sorted(folder.glob("*/*.*"))):
            path = f"images/camera {rng.integers(1, 3)}/{split}-{number:05d}{file.suffix}"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, root / path)
            rows.append(Row(path, file.parent.name, split, f"{split} {number}"))
    return Data(root, rng, rows, sorted({row.label for row in rows}))


def _overwrite(code: str, damage: Callable[[Image.Image], bytes], suffix: str) -> Plant:
    """Add an image whose bytes were damaged."""

    def plant(data: Data, kind: str) -> None:
        victim = data.victim()
        row = data.add(victim, "train", damage(data.image(victim)), suffix)
        data.found(kind, code, row.path)

    return plant


def _copied(
    code: str,
    change: Callable[[Image.Image], bytes] | None,
    suffix: str,
    *,
    splits: tuple[str, str],
    relabel: bool = False,
) -> Plant:
    """Add a copy, or nearly one, of an image."""

    def plant(data: Data, kind: str) -> None:
        victim = data.victim(splits[0])
        original = (data.root / victim.path).read_bytes()
        content = original if change is None else change(data.image(victim))
        others = [label for label in data.free_classes if label != victim.label]
        row = data.add(
            victim,
            splits[1],
            content,
            suffix or Path(victim.path).suffix,
            others[0] if relabel else victim.label,
        )
        data.found(kind, code, victim.path, row.path)

    return plant


def _relabelled(change: Callable[[str], str]) -> Plant:
    """Give eight images of a class another spelling of it."""

    def plant(data: Data, kind: str) -> None:
        label = data.free_classes[0]
        for _ in range(8):
            data.victim(label=label).label = change(label)
        data.found(kind, "look-alike-labels", ascii(change(label)), ascii(label))

    return plant


def _new_classes(code: str, names: dict[str, int], *needles: str) -> Plant:
    """Move some training images of a class into new ones."""

    def plant(data: Data, kind: str) -> None:
        for name, count in names.items():
            for _ in range(count):
                data.victim(label=data.free_classes[1]).label = name
        data.found(kind, code, *needles)

    return plant


def _shortcut(place: int, needle: str, change: Callable[[Data, Row], None]) -> Plant:
    """Change all images of a class alike."""

    def plant(data: Data, kind: str) -> None:
        label = data.classes[place]
        for row in data.rows:
            if row.label == label:
                change(data, row)
                data.used.add(row.path)
        data.found(kind, "shortcut", needle, repr(label))

    return plant


def _darken(data: Data, row: Row) -> None:
    image = ImageEnhance.Brightness(data.image(row)).enhance(0.15)
    (data.root / row.path).write_bytes(encoded(image, "JPEG", quality=90))


def _as_png(data: Data, row: Row) -> None:
    content = encoded(data.image(row), "PNG")
    (data.root / row.path).unlink()
    row.path = f"{row.path.rpartition('.')[0]}.png"
    (data.root / row.path).write_bytes(content)


def _other_camera(data: Data, row: Row) -> None:
    moved = f"images/camera 3/{Path(row.path).name}"
    (data.root / moved).parent.mkdir(exist_ok=True)
    (data.root / row.path).rename(data.root / moved)
    row.path = moved


def _larger(data: Data, row: Row) -> None:
    image = data.image(row)
    image = image.resize((image.width * 2, image.height * 2))
    (data.root / row.path).write_bytes(encoded(image, "JPEG", quality=90))


def _group(data: Data, kind: str) -> None:
    members = [data.victim("train"), data.victim("train"), data.victim("val")]
    for row in members:
        row.group = "match 17"
    data.found(kind, "group-across-splits", "match 17", members[2].path, "2 in train, 1 in val")


def _row(split: str, text: str, *needles: str) -> Plant:
    """Add a line of text; {path} and {label} stand for those of an image of the split."""

    def plant(data: Data, kind: str) -> None:
        victim = data.victim(split)
        line = text.format(path=victim.path, label=victim.label)
        data.extra_lines.setdefault(split, []).append(line)
        data.found(kind, "faulty-row", f"{split}.csv:", *needles)

    return plant


def _contradicting(data: Data, kind: str) -> None:
    victim = data.victim()
    other = next(label for label in data.free_classes if label != victim.label)
    data.extra_lines.setdefault("train", []).append(f"{victim.path},{other},")
    data.found(kind, "faulty-row", victim.path, repr(other), repr(victim.label))


def _two_splits(data: Data, kind: str) -> None:
    victim = data.victim()
    data.extra_lines.setdefault("val", []).append(f"{victim.path},{victim.label},")
    data.found(kind, "faulty-row", victim.path, "in val here and in train")


def _flipped(image: Image.Image) -> bytes:
    data = bytearray(encoded(image, "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def _half(kind: str) -> Callable[[Image.Image], bytes]:
    def cut(image: Image.Image) -> bytes:
        data = encoded(image, kind)
        return data[: len(data) // 2]

    return cut


def _turned(image: Image.Image) -> bytes:
    """Store the image rotated, with the EXIF orientation that turns it back."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to show
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def _rotated(kind: str) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image.rotate(90), kind)


def _stretched(width: int, height: int) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image.resize((width, height)), "PNG")


def _filled(colour: str) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(Image.new("RGB", image.size, colour), "PNG")


_HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"

KINDS: dict[str, Plant] = {
    # Shortcuts first: they change all images of a class.
    "dark class": _shortcut(0, "the brightness", _darken),
    "class of PNGs": _shortcut(1, "the file format", _as_png),
    "class of one camera": _shortcut(2, "the folder", _other_camera),
    "class of large images": _shortcut(3, "the number of pixels", _larger),
    "empty file": _overwrite("empty-file", lambda _: b"", ".jpg"),
    "cut JPEG": _overwrite("truncated-image", _half("JPEG"), ".jpg"),
    "cut PNG": _overwrite("truncated-image", _half("PNG"), ".png"),
    "cut GIF": _overwrite("truncated-image", _half("GIF"), ".gif"),
    "cut WebP": _overwrite("damaged-image", _half("WEBP"), ".webp"),
    "flipped byte": _overwrite("damaged-image", _flipped, ".png"),
    "text for an image": _overwrite("not-an-image", lambda _: b"to do: upload\n", ".jpg"),
    "web page for an image": _overwrite("not-an-image", lambda _: _HTML, ".jpg"),
    "zeros for an image": _overwrite("not-an-image", lambda _: bytes(5000), ".jpg"),
    "PNG called JPEG": _overwrite("wrong-extension", _rotated("PNG"), ".jpg"),
    "JPEG called PNG": _overwrite("wrong-extension", _rotated("JPEG"), ".png"),
    "tiny image": _overwrite("tiny-image", _stretched(9, 12), ".png"),
    "one pixel": _overwrite("tiny-image", _stretched(1, 1), ".png"),
    "very wide image": _overwrite("extreme-aspect", _stretched(640, 32), ".png"),
    "very tall image": _overwrite("extreme-aspect", _stretched(32, 640), ".png"),
    "black image": _overwrite("single-colour", _filled("black"), ".png"),
    "white image": _overwrite("single-colour", _filled("white"), ".png"),
    "copy in train": _copied("duplicate-in-split", None, "", splits=("train", "train")),
    "copy in val": _copied("duplicate-across-splits", None, "", splits=("train", "val")),
    "copy in test": _copied("duplicate-across-splits", None, "", splits=("train", "test")),
    "copy from val in test": _copied("duplicate-across-splits", None, "", splits=("val", "test")),
    "same pixels in val": _copied(
        "duplicate-across-splits", lambda i: encoded(i, "PNG"), ".png", splits=("train", "val")
    ),
    "same pixels in train": _copied(
        "duplicate-in-split", lambda i: encoded(i, "BMP"), ".bmp", splits=("train", "train")
    ),
    "same pixels, turned by EXIF": _copied(
        "duplicate-across-splits", _turned, ".png", splits=("train", "test")
    ),
    "copy with another label": _copied(
        "duplicate-with-other-label", None, "", splits=("train", "train"), relabel=True
    ),
    "same pixels with another label": _copied(
        "duplicate-with-other-label",
        lambda i: encoded(i, "PNG"),
        ".png",
        splits=("train", "val"),
        relabel=True,
    ),
    "recompressed in val": _copied(
        "near-duplicate-across-splits",
        lambda i: encoded(i, "JPEG", quality=50),
        ".jpg",
        splits=("train", "val"),
    ),
    "smaller in test": _copied(
        "near-duplicate-across-splits",
        lambda i: encoded(i.resize((i.width * 2 // 3, i.height * 2 // 3)), "JPEG"),
        ".jpg",
        splits=("train", "test"),
    ),
    "brighter in test": _copied(
        "near-duplicate-across-splits",
        lambda i: encoded(ImageEnhance.Brightness(i).enhance(1.08), "JPEG", quality=90),
        ".jpg",
        splits=("val", "test"),
    ),
    "class of one": _new_classes("small-class", {"new rare": 1}, "'new rare'"),
    "class without val": _new_classes("class-missing-in-val", {"new a": 6}, "'new a'"),
    "class without test": _new_classes("class-missing-in-test", {"new b": 6}, "'new b'"),
    "label in capitals": _relabelled(str.upper),
    "label with a blank": _relabelled(lambda label: f"{label} "),
    "label with an invisible character": _relabelled(lambda label: f"{label}\u200b"),
    "two Unicode forms": _new_classes(
        "look-alike-labels", {"new \u00e9": 6, "new e\u0301": 6}, "new \\xe9", "new e\\u0301"
    ),
    "leading zero": _new_classes("look-alike-labels", {"7": 6, "07": 6}, "'7'", "'07'"),
    "group in two splits": _group,
    "row without label": _row("train", "{path},,", "label is empty"),
    "unknown label": _row("val", "{path},no such class,", "no such class"),
    "missing file": _row("train", "images/gone.jpg,{label},", "images/gone.jpg"),
    "path out of the data": _row("train", "../../etc/hostname,{label},", "leaves the data root"),
    "absolute path": _row("test", "/etc/hostname,{label},", "is absolute"),
    "row without path": _row("test", ",{label},", "path is empty"),
    "too many columns": _row("val", "{path},{label},,,", "columns instead of"),
    "two labels for a path": _contradicting,
    "two splits for a path": _two_splits,
}
