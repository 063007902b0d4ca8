"""Files are whole or not there: after errors, among threads of writers, after ``kill -9``."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from classifier_training.system.files import replacing, write_json, write_text


@pytest.mark.promise("R2")
def test_a_block_that_succeeds_replaces_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file.txt"

    for text in ("one", "two"):
        with replacing(target) as temporary:
            temporary.write_text(text)
            assert temporary.parent == target.parent  # a rename across file systems is a copy
        assert target.read_text() == text

    assert list(target.parent.iterdir()) == [target]


@pytest.mark.promise("R2")
@pytest.mark.promise("X1")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of the ne")
            raise error

    with pytest.raises(error):
        fail()

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.promise("R2")
def test_the_old_file_is_there_while_the_new_one_is_written(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"

    assert target.read_text() == "new"


@pytest.mark.promise("R2")
def test_a_reader_that_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old content")

    with target.open() as reader:
        write_text(target, "new")
        assert reader.read() == "old content"


@pytest.mark.promise("R2")
def test_what_cannot_be_written_as_json_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    write_json(target, {"id": 1})

    with pytest.raises(TypeError):
        write_json(target, {"id": object()})

    assert json.loads(target.read_text()) == {"id": 1}
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.promise("D2")
def test_json_keeps_names_readable_and_exact(tmp_path: Path) -> None:
    names = ["00", "NO", "Zoë", "猫", "a\nb", 'quote"']

    write_json(tmp_path / "names.json", names)

    text = (tmp_path / "names.json").read_text(encoding="utf-8")
    assert json.loads(text) == names
    assert "Zoë" in text


# Writes a file of one repeated letter again and again, as big as a few blocks of the disk.
_WRITER = """
import itertools, sys
from pathlib import Path
from classifier_training.system.files import write_text
target, size = Path(sys.argv[1]), int(sys.argv[2])
for letter in itertools.cycle("abcdefgh"):
    write_text(target, letter * size)
"""


@pytest.mark.promise("R2")
def test_kill_9_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    target, size = tmp_path / "file.txt", 300_000
    rng = random.Random(0)
    seen = set()

    for _ in range(12):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(target), str(size)])
        while not target.exists():
            time.sleep(0.01)
        before = target.stat().st_ino
        deadline = time.monotonic() + 20
        while target.stat().st_ino == before and time.monotonic() < deadline:
            time.sleep(0.001)  # until this writer writes
        time.sleep(rng.uniform(0, 0.05))
        writer.kill()
        writer.wait()

        text = target.read_text()
        assert len(text) == size
        assert len(set(text)) == 1
        seen.add(text[0])

    assert len(seen) > 1  # the kills came at different moments


@pytest.mark.promise("R2")
def test_two_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    target, size = tmp_path / "file.txt", 200_000
    command = [sys.executable, "-c", _WRITER, str(target), str(size)]
    writers = [subprocess.Popen(command) for _ in range(2)]
    try:
        deadline = time.monotonic() + 20
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(100):
            text = target.read_text()
            assert (len(text), len(set(text))) == (size, 1)
            time.sleep(0.005)
        assert [writer.poll() for writer in writers] == [None, None]  # neither took the other's
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
