"""What the file system under a folder can do, found out by trying it.

Mounts of object storage look like folders, but many cannot rename, write anywhere but at the end,
append, link or sync. Names of paths and of file systems do not tell; a few bytes written there do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What file systems answer that cannot do something, as opposed to failing at it.
UNSUPPORTED = frozenset(
    {
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.ESPIPE,
    }
)


@dataclass(frozen=True)
class Abilities:
    """What was found to work in a folder besides writing new files.

    Attributes:
        rename: A file takes the place of another under its name.
        rewrite: A file that is open for writing can be written to before its end.
        append: An existing file grows when opened for appending.
        hard_link: A file gets a second name.
        symlink: A name can point at another.
        sync: ``fsync`` of a file is obeyed.
    """

    rename: bool
    rewrite: bool
    append: bool
    hard_link: bool
    symlink: bool
    sync: bool

    @property
    def is_disk_like(self) -> bool:
        """Whether files can be written in place and renamed; else they are made elsewhere."""
        return self.rename and self.rewrite


def probe(folder: Path) -> Abilities:
    """Try everything out in an existing folder with files of two bytes, and remove them.

    Raises:
        OSError: No new file can be written there.
    """
    with tempfile.TemporaryDirectory(
        prefix=f".probe-{os.getpid()}-", dir=folder, ignore_cleanup_errors=True
    ) as name:
        at = Path(name)
        first, second = at / "first", at / "second"
        first.write_bytes(b"ab")
        second.write_bytes(b"cd")
        return Abilities(
            rewrite=_works(lambda: _rewrite(at / "rewritten")),
            append=_works(lambda: _append(second)),
            sync=_works(lambda: _sync(second)),
            hard_link=_works(lambda: os.link(second, at / "linked")),
            symlink=_works(lambda: (at / "pointer").symlink_to(second)),
            rename=_works(lambda: _rename(second, first)),
        )


def can_write_in_place(folder: Path) -> bool:
    """Say whether files can be written in this folder and renamed; probed once a file system.

    Raises:
        OSError: No new file can be written there.
    """
    device = folder.stat().st_dev
    # No lock: a process that is forked while another thread holds it would wait for ever.
    if device not in _disk_like:
        _disk_like[device] = probe(folder).is_disk_like
    return _disk_like[device]


_disk_like: dict[int, bool] = {}


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or the first folder above it that exists."""
    path = path.expanduser().absolute()
    return next(part for part in (path, *path.parents) if part.exists())


@contextlib.contextmanager
def elsewhere(path: Path) -> Iterator[Path]:
    """Give a file of the same name in a temporary folder of this machine, which is then removed."""
    with tempfile.TemporaryDirectory(prefix="classifier-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / path.name


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        return False
    return True


def _rewrite(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(b"abcd")
        file.seek(0)
        file.write(b"xy")
    _expect(path, b"xycd")


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"ef")
    _expect(path, b"cdef")


def _rename(source: Path, target: Path) -> None:
    content = source.read_bytes()
    os.replace(source, target)  # noqa: PTH105 - the name says that it replaces
    _expect(target, content)
    if source.exists():
        raise OSError(errno.ENOTSUP, "a renamed file kept its name", str(source))


def _expect(path: Path, content: bytes) -> None:
    if path.read_bytes() != content:
        raise OSError(errno.ENOTSUP, "what was written is not what is there", str(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
