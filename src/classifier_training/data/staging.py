"""Copying data from a slow mount to a local disk: once, completely, and only what is new."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from classifier_training.config.schema import DataConfig
from classifier_training.errors import ConfigError, DataError
from classifier_training.system.files import file_lock
from classifier_training.system.progress import progress
from classifier_training.system.scan import walk_files

_MOUNTS = Path("/proc/self/mounts")
# Object storage answers late but to many at once.
_THREADS = 32
_SHARE = 0.95  # of the free space


class _File(NamedTuple):
    """What says whether a copy is still one."""

    size: int
    mtime_ns: int


def staged(config: DataConfig) -> DataConfig:
    """Return the configuration with its data on a local disk, copied there if need be.

    Paths of images are relative to the data root, so that manifest and fingerprint are the same
    with and without a copy.

    Raises:
        ConfigError: The folder for the copy overlaps with the data.
        DataError: No space for the copy, or a file cannot be read or written.
    """
    root = Path(config.data_root).expanduser().absolute()
    if not root.is_dir():
        return config  # indexing says what is wrong with it
    if config.staging_dir is None:
        if is_remote(root):
            logger.warning(
                "data: {} is a FUSE mount, from which images come slowly; "
                "data.staging_dir=FOLDER_ON_A_LOCAL_DISK copies them once",
                root,
            )
        return config
    local = stage(root, Path(config.staging_dir).expanduser().absolute())
    given = {
        key: str(local / Path(place).expanduser().relative_to(root))
        for key in ("train_path", "val_path", "test_path")
        if (place := getattr(config, key)) and Path(place).expanduser().is_relative_to(root)
    }
    return config.model_copy(update={"data_root": str(local), **given})


def is_remote(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Tell whether a path lies on a FUSE mount, as ``/gcs`` and ``/s3`` do.

    Args:
        path: Absolute.
        mounts: The kernel's table; without one the answer is no.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return False
    # Blanks in a path are written in octal.
    table = [line.split(" ")[1:3] for line in lines if line.count(" ") > 1]
    holding = [
        (len(Path(place).parts), at, kind)
        for at, (place, kind) in enumerate((_unescape(place), kind) for place, kind in table)
        if path.is_relative_to(place)
    ]
    kind = max(holding)[2] if holding else ""  # of the same place, the later mount hides the other
    return kind == "fuse" or kind.startswith("fuse.")


def stage(root: Path, folder: Path) -> Path:
    """Make ``folder`` hold a copy of ``root`` and return it; files that it has are not read again.

    A copy counts when size and modification time are those of the original; it gets its name when
    it is complete, so that an interrupted copying goes on where it was. What the original no longer
    has is removed.

    Args:
        root: The data.
        folder: Where copies of several data sets may lie.

    Raises:
        ConfigError: One lies in the other.
        DataError: No space, or a file cannot be read or written.
    """
    if folder.is_relative_to(root) or root.is_relative_to(folder):
        raise ConfigError(
            f"data.staging_dir={folder} and data.data_root={root} lie in each other",
            expected="a folder apart from the data, on a local disk",
            fix="give another folder",
        )
    name = hashlib.blake2b(os.fsencode(root), digest_size=6).hexdigest()
    local = folder / f"{root.name}-{name}"
    try:
        local.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{local.name}.lock"):
            _update(root, local)
    except OSError as error:
        raise DataError(
            f"cannot copy {error.filename or root} to data.staging_dir={folder}: "
            f"{error.strerror or error}",
            expected="readable data, and a local folder that this user may write to",
            fix="give another folder, or data.staging_dir=null to read the data where it is",
        ) from error
    return local


def _update(root: Path, local: Path) -> None:
    wanted, present = _listing(root), _listing(local)
    missing = {path: file for path, file in wanted.items() if present.get(path) != file}
    for path in present.keys() - wanted.keys():
        (local / path).unlink()
    total, free = sum(file.size for file in missing.values()), shutil.disk_usage(local).free
    if total > _SHARE * free:
        raise DataError(
            f"copying {root} needs {total / 1e9:.2f} GB, but {local.parent} has "
            f"{free / 1e9:.2f} GB",
            expected="a disk that holds the data",
            fix="give data.staging_dir=FOLDER on a larger disk, or null",
        )
    logger.info(
        "data: copying {:,} of {:,} files ({:,.0f} MB) to {}",
        len(missing),
        len(wanted),
        total / 1e6,
        local,
    )
    with progress("copy data") as on_files, ThreadPoolExecutor(_THREADS) as pool:
        copies = pool.map(lambda item: _copy(root / item[0], local / item[0]), missing.items())
        try:
            for done, _ in enumerate(copies, 1):
                on_files(done, len(missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _listing(top: Path) -> dict[Path, _File]:
    """Return the files below a folder by their relative path.

    Links out of it are left out: as a copy they would pass for files of the data.
    """
    real_top = top.resolve()
    inside: dict[Path, bool] = {}
    found = {}
    for path in walk_files(top, on_skip=lambda _: None, on_error=_raise):
        if path.parent not in inside:
            inside[path.parent] = path.parent.resolve().is_relative_to(real_top)
        if not inside[path.parent] or (
            path.is_symlink() and not path.resolve().is_relative_to(real_top)
        ):
            continue
        with contextlib.suppress(FileNotFoundError):  # a link to nothing
            facts = path.stat()
            found[path.relative_to(top)] = _File(facts.st_size, facts.st_mtime_ns)
    return found


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    before = source.stat()
    try:
        shutil.copyfile(source, temporary)
        size = temporary.stat().st_size
        if size != before.st_size:
            raise OSError(0, f"{size} bytes came of {before.st_size}", str(source))
        os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.replace(temporary, target)  # noqa: PTH105 - the name says that it replaces
    finally:
        temporary.unlink(missing_ok=True)


def _raise(error: OSError) -> None:
    raise error


def _unescape(place: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        place = place.replace(code, character)
    return place
