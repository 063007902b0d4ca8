"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loguru import logger

from classifier_training.system.storage import UNSUPPORTED, can_write_in_place, elsewhere


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes the place of ``path`` when the block succeeds.

    It lies beside ``path`` and is synced before it is renamed, so that after a crash either the old
    or the new content is there, never half of one. Where the file system cannot rename (mounts of
    object storage), it lies on this machine and is copied when finished. On an error the temporary
    file is removed.

    Raises:
        OSError: It cannot be written; the error names ``path``.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        in_place = can_write_in_place(path.parent)
    with _beside(path) if in_place else elsewhere(path) as temporary:
        with _named(path, instead_of=temporary):
            yield temporary
        with _named(path):
            if in_place:
                sync(temporary)
                os.replace(temporary, path)  # noqa: PTH105 - the name says that it replaces
                sync(path.parent)
            else:
                _copy_whole(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, indented, with class names readable."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def drafting(path: Path) -> Iterator[Path]:
    """Give a place for a file that gets its names by :func:`duplicate` and :func:`move`.

    That is ``path`` itself, or, where the file system cannot rename, a file on this machine: a
    checkpoint then crosses the network once a name, and not once more for its draft.
    """
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        in_place = can_write_in_place(path.parent)
    with contextlib.nullcontext(path) if in_place else elsewhere(path) as draft:
        yield draft


def duplicate(source: Path, target: Path) -> None:
    """Give a file a second name atomically, as a hard link where the file system has them."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def move(source: Path, target: Path) -> None:
    """Give a whole, synced file another name, in the place of whatever has it."""
    if source.parent == target.parent:
        with _named(target):
            os.replace(source, target)  # noqa: PTH105
            sync(target.parent)
    else:
        duplicate(source, target)
        source.unlink()


def sync(path: Path) -> None:
    """Flush a file or folder to the disk, where the file system can do that.

    Raises:
        OSError: The disk failed or is full, which some file systems say here for the first time.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:  # object-storage mounts cannot sync folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # a disk that turned read-only has its own error
            temporary.unlink(missing_ok=True)


def _copy_whole(source: Path, target: Path) -> None:
    """Write a file from its beginning to its end, the one way that every mount has."""
    shutil.copyfile(source, target)
    sync(target)
    if target.stat().st_size != source.stat().st_size:
        raise OSError(None, "the copy is not whole", str(target))


@contextlib.contextmanager
def _named(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Let errors of the operating system name the file that they are about.

    Args:
        path: That file.
        instead_of: Only errors that name this one, or none, are about it; None: all are.
    """
    try:
        yield
    except OSError as error:
        if instead_of is None or error.filename in (None, str(instead_of)):
            error.filename, error.filename2 = str(path), None
        raise


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel releases even when this process is killed.

    On a file system without locks, nothing is locked: the last complete file stays.
    """
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("another process works there; waiting for {}", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            logger.debug("{} cannot be locked", path)
        yield
