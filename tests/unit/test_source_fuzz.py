"""Malformed listings: none ends in a traceback, and each refusal names file and line."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier_training.data.index import index_data
from classifier_training.errors import ClassifierTrainingError
from tests.helpers.config import data_config
from tests.helpers.pixels import numbered, write_images

IMAGES = [f"i/{at}.png" for at in range(12)]

# What is wrong with the listing as a whole has no line: nothing in it, or too little of it.
_WHOLE = re.compile(
    r"no labelled images found in|split of .* has no images|at least two classes|data\.group_by=",
)

Mutation = Callable[[bytes, random.Random], bytes]


def good_rows() -> list[dict[str, Any]]:
    return [
        {
            "image": image,
            "suffix": str(at % 3),
            "split": "val" if at % 4 == 0 else "train",
            "match": f"m{at // 4}",
            "metadata": {"colour": "red", "at": at},
        }
        for at, image in enumerate(IMAGES)
    ]


def good_jsonl() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in good_rows()).encode()


def good_csv() -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("path", "label", "split", "match", "note"))
    for row in good_rows():
        note = 'a "quoted", note\nof two lines' if row["suffix"] == "2" else "plain"
        writer.writerow((row["image"], row["suffix"], row["split"], row["match"], note))
    return file.getvalue().encode()


_TOKENS = [
    *(b"{ } [ ] : , \" \\ ' \n \r \t \0 \xff \xc3 \xed\xa0\x80 \xe2\x80\xa8 \x85 \x1c".split(b" ")),
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b"\t",
    b" ",
    b'""',
    b'"""',
    b"null",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"true",
    b"\\ud800",
    b"\\u0000",
    b"../../../etc/passwd",
    b"/etc/hostname",
    b"C:\\\\x",
    b"i",
    b".",
    b"~",
    b"train",
    b"test",
    b"dev",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"x" * 5000,
    "日本é\u202e\u2028".encode(),
]


def _flip(data: bytes, rng: random.Random) -> bytes:
    raw = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    return bytes(raw)


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_TOKENS) + data[at:]


def _replace(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.choice(_TOKENS) + data[at + rng.randint(1, 12) :]


def _delete(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 60) :]


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
        lines.pop(rng.randrange(len(lines)))
    return b"\n".join(lines)


def _word(data: bytes, rng: random.Random) -> bytes:
    """Put one token in the place of a whole word."""
    words = list(re.finditer(rb"[^\",:{}\n]+", data))
    if not words:
        return data
    word = rng.choice(words)
    return data[: word.start()] + rng.choice(_TOKENS) + data[word.end() :]


def _recode(data: bytes, rng: random.Random) -> bytes:
    return data.decode("latin-1").encode(rng.choice(["utf-16", "utf-32", "utf-7", "cp037"]))


def _swap(data: bytes, rng: random.Random) -> bytes:
    """Exchange two cells or keys."""
    words = re.findall(rb"[\w./]+", data) or [b" "]
    one, other = rng.choice(words), rng.choice(words)
    return data.replace(one, b"\1").replace(other, one).replace(b"\1", other)


MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _insert,
    _replace,
    _delete,
    _truncate,
    _lines,
    _word,
    _recode,
    _swap,
)


def mutated(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(MUTATIONS)(data, rng) or b"\n"
    return data


def outcome(root: Path, name: str, changes: dict[str, Any]) -> str:
    """Index the listing: "read", or "refused" when file and line, or what lacks, is named."""
    source = "csv" if name.endswith("csv") else "jsonl"
    config = data_config(root, source, **changes)
    if source == "jsonl":
        assert config.fields is not None
        fields = config.fields.model_copy(update={"split": "split"})
        config = config.model_copy(update={"fields": fields})
    refusal: ClassifierTrainingError | None = None
    try:
        index = index_data(config)
    except ClassifierTrainingError as error:
        refusal = error
    if refusal is not None:
        text = str(refusal)
        assert refusal.exit_code == 3
        assert re.search(rf"{re.escape(name)}:[1-9][0-9]*: ", text) or _WHOLE.search(text), text
        return "refused"
    # What was read is what stands in the manifest: every image once, with a label.
    manifest = index.manifest
    paths = list(manifest.paths)
    assert len(set(paths)) == len(paths)
    assert set(paths) <= set(IMAGES)
    return "read"


CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"on_empty_label": "skip"},
    {"on_empty_label": "class", "empty_label_name": "none"},
    {"group_by": "field:match"},
    {"group_by": "path:^(i)/"},
)


@pytest.mark.promise("D3")
@pytest.mark.parametrize(
    "count", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["fast", "slow"]
)
@pytest.mark.parametrize(("name", "make"), [("all.jsonl", good_jsonl), ("all.csv", good_csv)])
def test_mutated_listings_are_read_or_refused_by_line(
    tmp_path: Path, name: str, make: Callable[[], bytes], count: int
) -> None:
    write_images(tmp_path, {image: numbered(at) for at, image in enumerate(IMAGES)})
    (tmp_path / name).write_bytes(make())
    assert outcome(tmp_path, name, {}) == "read"

    found: Counter[str] = Counter()
    for seed in range(count):
        rng = random.Random(seed)
        (tmp_path / name).write_bytes(mutated(make(), rng))
        try:
            found[outcome(tmp_path, name, rng.choice(CHANGES))] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}: {(tmp_path / name).read_bytes()[:2000]!r}")
            raise

    assert found["refused"] >= 0.5 * count, "the mutations do no harm"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([*IMAGES[:3], "7", "train", "val", "", " ", "\0", "\ud800", "../x", "i"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "suffix", "match", "\ud800"]), inner, max_size=3)
    ),
    max_leaves=6,
)
json_rows = st.dictionaries(
    st.sampled_from(["image", "suffix", "split", "match", "metadata", "colour", ""]), json_values
)


@pytest.mark.promise("D3")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(json_rows | json_values, min_size=1, max_size=4), at=st.integers(0, 4))
def test_any_json_row_is_read_or_refused_by_line(tmp_path: Path, rows: list[Any], at: int) -> None:
    if not (tmp_path / "i").exists():
        write_images(tmp_path, {image: numbered(n) for n, image in enumerate(IMAGES)})
    good = good_jsonl().decode()
    (tmp_path / "all.jsonl").write_text(good + "".join(json.dumps(row) + "\n" for row in rows))

    outcome(tmp_path, "all.jsonl", CHANGES[at])


cells = st.text(max_size=5) | st.sampled_from([*IMAGES[:3], "7", "val", "", '"', ",", "\n", "\r"])


@pytest.mark.promise("D3")
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=st.lists(st.lists(cells, max_size=6), min_size=1, max_size=4), at=st.integers(0, 4))
def test_any_table_row_is_read_or_refused_by_line(
    tmp_path: Path, table: list[list[str]], at: int
) -> None:
    if not (tmp_path / "i").exists():
        write_images(tmp_path, {image: numbered(n) for n, image in enumerate(IMAGES)})
    file = io.StringIO(newline="")
    csv.writer(file).writerows(table)
    added = file.getvalue().encode("utf-8", "surrogatepass")
    (tmp_path / "all.csv").write_bytes(good_csv() + added)

    outcome(tmp_path, "all.csv", CHANGES[at])


@pytest.mark.promise("D3")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=200), name=st.sampled_from(["all.csv", "all.jsonl"]))
def test_any_bytes_are_refused(tmp_path: Path, raw: bytes, name: str) -> None:
    for other in ("all.csv", "all.jsonl"):
        (tmp_path / other).unlink(missing_ok=True)
    (tmp_path / name).write_bytes(raw)

    assert outcome(tmp_path, name, {}) == "refused"
