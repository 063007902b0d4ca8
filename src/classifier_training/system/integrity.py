"""Whether a file of ``torch.save`` is still what was written, bit for bit.

Such a file is a zip archive with a CRC-32 of each tensor, which ``torch.load`` does not compare: a
flipped bit would become a wrong weight without a word. Reading it once finds that out; noting what
a new file holds costs nothing, because the sums are in its table of contents already.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path


def digest_of(path: Path) -> str:
    """Return a SHA-256 over names, sizes and CRC-32 of all records, without reading them.

    Raises:
        OSError: The file cannot be read.
        zipfile.BadZipFile: It is no whole archive.
    """
    with zipfile.ZipFile(path) as archive:
        listed = "\n".join(
            # The first folder is the file's own name, which says nothing about its content.
            f"{record.filename.partition('/')[2]} {record.file_size} {record.CRC:08x}"
            for record in archive.infolist()
        )
    return hashlib.sha256(listed.encode()).hexdigest()


def damage_of(path: Path) -> str | None:
    """Read an archive and say what is damaged; None when it is whole, or no archive at all.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # the format of torch before 1.6, or something else
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        return f"it is cut short or damaged ({error})"
    return None if broken is None else f"its record {broken.partition('/')[2]} is damaged"
