"""A local copy of the data changes where it is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from loguru import logger

from classifier_training.data import staging
from classifier_training.data.index import index_data
from classifier_training.data.staging import is_remote, stage, staged
from classifier_training.errors import ConfigError, DataError
from tests.helpers.config import data_config
from tests.helpers.data import write_folder, write_jsonl
from tests.helpers.runs import tiny_train


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_jsonl(write_folder(tmp_path / "mount" / "images"))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def changed(folder: Path) -> dict[Path, tuple[int, int]]:
    return {
        path: (path.stat().st_ino, path.stat().st_ctime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.promise("D1")
@pytest.mark.parametrize("source", ["folder", "jsonl"])
@pytest.mark.parametrize("absolute", [False, True])
def test_manifest_is_the_same_with_a_copy(
    root: Path, tmp_path: Path, source: str, absolute: bool
) -> None:
    place = root / "val" if source == "folder" else root / "val" / "annotations.jsonl"
    given = {"val_path": str(place)} if absolute else {}
    plain = data_config(root, source, **given)
    local = staged(plain.model_copy(update={"staging_dir": str(tmp_path / "fast")}))

    here, there = index_data(plain).manifest, index_data(local).manifest

    assert there.fingerprint() == here.fingerprint()
    assert list(there.paths) == list(here.paths)
    assert list(there.sources) == list(here.sources)
    assert all(tmp_path / "fast" in there.file(at).parents for at in range(len(there)))
    assert content(Path(local.data_root)) == content(root)


@pytest.mark.promise("D1")
def test_second_time_copies_what_is_new_or_changed(root: Path, tmp_path: Path) -> None:
    local = stage(root, tmp_path / "fast")
    before = changed(local)
    assert stage(root, tmp_path / "fast") == local
    assert changed(local) == before

    (root / "train/NO/000.png").write_bytes(b"new content")
    later = root / "train/NO/001.png"
    later.write_bytes(later.read_bytes()[::-1])  # of the same size
    (root / "train/NO/002.png").unlink()
    (root / "train/NO/new.png").write_bytes(b"new")
    stage(root, tmp_path / "fast")

    assert content(local) == content(root)
    same = [path for path in before if changed(local).get(path) == before[path]]
    assert len(same) == len(before) - 3


@pytest.mark.promise("D1")
def test_interrupted_copying_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, copied = staging.shutil.copyfile, []

    def failing(source: Path, target: Path) -> None:
        if len(copied) == 10:
            Path(target).write_bytes(b"half")
            raise OSError(5, "Input/output error", str(source))
        copied.append(source)
        copy(source, target)

    monkeypatch.setattr(staging, "_THREADS", 1)
    monkeypatch.setattr(staging.shutil, "copyfile", failing)
    with pytest.raises(DataError, match=r"cannot copy .*\.png .*Input/output error"):
        stage(root, tmp_path / "fast")
    (local,) = (path for path in (tmp_path / "fast").iterdir() if path.is_dir())
    half = content(local)
    assert len(half) == 10
    assert all(content(root)[name] == data for name, data in half.items())
    monkeypatch.setattr(staging.shutil, "copyfile", copy)
    before = changed(local)

    stage(root, tmp_path / "fast")

    assert content(local) == content(root)
    assert all(changed(local)[path] == facts for path, facts in before.items())


def test_no_space_is_said_before_copying(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10_000}))

    with pytest.raises(DataError, match=r"copying .* needs"):
        stage(root, tmp_path / "fast")

    assert not list((tmp_path / "fast").rglob("*.png"))


def test_a_file_that_comes_short_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        staging.shutil, "copyfile", lambda source, target: Path(target).write_bytes(b"x")
    )

    with pytest.raises(DataError, match="1 bytes came of"):
        stage(root, tmp_path / "fast")

    assert not list((tmp_path / "fast").rglob("*.png"))
    assert not list((tmp_path / "fast").rglob("*.tmp"))


@pytest.mark.parametrize("place", ["mount/images/inner", "mount", "mount/images"])
def test_copy_may_not_lie_in_the_data(root: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="lie in each other"):
        stage(root, tmp_path / place)


@pytest.mark.promise("D7")
def test_links_out_of_the_data_are_not_copied(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x.png").write_bytes(b"secret")
    (root / "train/NO/link.png").symlink_to(tmp_path / "secret/x.png")
    (root / "train/folder").symlink_to(tmp_path / "secret")
    (root / "train/NO/inside.png").symlink_to(root / "train/NO/000.png")
    (root / "train/NO/broken.png").symlink_to(tmp_path / "nothing")

    local = stage(root, tmp_path / "fast")

    assert b"secret" not in content(local).values()
    assert (local / "train/NO/inside.png").read_bytes() == (root / "train/NO/000.png").read_bytes()


MOUNTS = """\
overlay / overlay rw 0 0
bucket /gcs fuse.gcsfuse rw 0 0
bucket /my\\040data fuse rw 0 0
disk /gcs/local ext4 rw 0 0
disk /windows fuseblk rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/gcs/bucket/images", True),
        ("/gcs", True),
        ("/my data/images", True),
        ("/gcs/local/images", False),
        ("/gcsx/images", False),
        ("/windows/images", False),
        ("/home", False),
    ],
)
def test_object_storage_is_known_by_its_mount(tmp_path: Path, path: str, expected: bool) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)

    assert is_remote(Path(path), tmp_path / "mounts") is expected
    assert not is_remote(Path(path), tmp_path / "missing")


def test_remote_data_without_a_copy_is_advised_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "is_remote", lambda _: True)
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING")
    config = data_config(root)

    assert staged(config) is config
    logger.remove(sink)

    assert len(said) == 1
    assert "data.staging_dir" in said[0]


@pytest.mark.promise("C8")
def test_run_reads_the_copy_and_remembers_the_original(root: Path, tmp_path: Path) -> None:
    run = tiny_train(root, tmp_path / "run", f"data.staging_dir={tmp_path / 'fast'}")

    assert run.record["status"] == "finished"
    assert run.record["data_root"] == str(root)
    assert content(next(path for path in (tmp_path / "fast").iterdir() if path.is_dir()))
