"""A FUSE file system of objects: written from beginning to end, read, listed and removed.

Run as a program: ``python refusing_mount.py OBJECTS MOUNT_POINT``; it stays in the foreground.
"""

# ruff: noqa: PTH102, PTH106, PTH108, PTH118, PTH208
from __future__ import annotations

import errno
import os
import sys
from typing import Any

import mfusepy


def _refuse(*_: Any) -> Any:
    raise mfusepy.FuseOSError(errno.ENOTSUP)


class Objects(mfusepy.Operations):
    """What mountpoint-s3 allows: no rename, append, link, rewrite or sync."""

    use_ns = True
    rename = link = symlink = fsync = fsyncdir = _refuse

    def __init__(self, root: str) -> None:
        self._root = root

    def _real(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._real(path))
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
        times = {
            name: getattr(found, f"{name}_ns") for name in ("st_atime", "st_mtime", "st_ctime")
        }
        return {**{name: getattr(found, name) for name in names}, **times}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._real(path))]

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._real(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        os.rmdir(self._real(path))
        return 0

    def unlink(self, path: str) -> int:
        os.unlink(self._real(path))
        return 0

    def open(self, path: str, flags: int) -> int:
        if flags & os.O_APPEND:
            _refuse()
        return os.open(self._real(path), flags)

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if offset != os.fstat(fh).st_size:
            _refuse()
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        if length:
            _refuse()
        os.truncate(self._real(path), 0)
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0

    def utimens(self, path: str, times: Any = None) -> int:
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(Objects(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True)
