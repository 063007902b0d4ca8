"""A folder of objects behind a URI, through fsspec: put, get, list, remove, and their hashes."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from classifier_training.errors import ConfigError
from classifier_training.system.files import replacing

_BLOCK = 1 << 20
# The package that fsspec needs for a protocol, and how to get it.
_PACKAGES = {
    "s3": ("s3fs", "pip install 'classifier-training[s3]'"),
    "gs": ("gcsfs", "pip install 'classifier-training[gcp]'"),
}
# What is retried here is retried by us; theirs would only make a broken connection look slow.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 60,
            "retries": {"max_attempts": 1},
        },
    },
    "gs": {"use_listings_cache": False},
}


class StoreError(Exception):
    """The store did not do what it was asked; the same may work later."""


class ObjectStore:
    """The objects below a URI.

    Args:
        uri: For example ``s3://bucket/runs/first``.

    Raises:
        ConfigError: A package that the protocol needs is missing, or the place is none.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        protocol = urlsplit(uri).scheme
        self._is_local = protocol == "file"
        try:
            self._fs, root = fsspec.core.url_to_fs(
                self.uri, skip_instance_cache=True, **_OPTIONS.get(protocol, {})
            )
        except ImportError as error:
            package, fix = _PACKAGES.get(protocol, ("a package", "install it"))
            raise ConfigError(
                f"output_uri={uri} needs {package}, which is not installed",
                expected=f"the package that writes {protocol}://",
                fix=fix,
            ) from error
        except Exception as error:  # each library has its own
            raise ConfigError(
                f"output_uri={uri} cannot be used: {_short(error)}",
                expected="a place that can be written, and credentials in the environment",
                fix="correct it, or output_uri=null",
            ) from error
        self._root = str(root).rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object by its name relative to the URI.

        Raises:
            StoreError: It does not answer.
        """
        try:
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise self._failed("listed", error) from error
        prefix = f"{self._root}/"
        return {
            name.removeprefix(prefix): int(info["size"])
            for name, info in found.items()
            if name.startswith(prefix)
        }

    def read(self, name: str) -> bytes | None:
        """Return the content of a small object; None if there is none of that name.

        Raises:
            StoreError: It does not answer.
        """
        try:
            content: bytes = self._fs.cat_file(self._at(name))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed(f"read ({name})", error) from error
        return content

    def put(self, source: Path, name: str) -> None:
        """Write an object whole, in the place of what has its name.

        Raises:
            StoreError: It does not answer.
        """
        try:
            if self._is_local:  # fsspec would write it in place, and leave half of it on a kill
                with replacing(Path(self._at(name))) as temporary:
                    shutil.copyfile(source, temporary)
            else:
                self._fs.put_file(str(source), self._at(name))
        except Exception as error:
            raise self._failed(f"written ({name})", error) from error

    def write(self, content: bytes, name: str) -> None:
        """Write a small object whole.

        Raises:
            StoreError: It does not answer.
        """
        try:
            if self._is_local:
                with replacing(Path(self._at(name))) as temporary:
                    temporary.write_bytes(content)
            else:
                self._fs.pipe_file(self._at(name), content)
        except Exception as error:
            raise self._failed(f"written ({name})", error) from error

    def get(self, name: str, target: Path) -> None:
        """Fetch an object into a file that is whole or not there.

        Raises:
            StoreError: It does not answer.
            OSError: The file cannot be written.
        """
        with replacing(target) as temporary:
            try:
                self._fs.get_file(self._at(name), str(temporary))
            except Exception as error:
                raise self._failed(f"read ({name})", error) from error

    def remove(self, name: str) -> None:
        """Remove an object that may be gone already.

        Raises:
            StoreError: It does not answer.
        """
        try:
            self._fs.rm_file(self._at(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._failed(f"removed ({name})", error) from error

    def digest(self, name: str) -> tuple[int, str] | None:
        """Read an object back; return its bytes and SHA-256, None if it is not there.

        Raises:
            StoreError: It does not answer.
        """
        try:
            with self._fs.open(self._at(name), "rb") as file:
                return digest_of(file)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._failed(f"read ({name})", error) from error

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _failed(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"{self.uri} cannot be {what}: {_short(error)}")


def digest_of(file: Any) -> tuple[int, str]:
    """Return bytes and SHA-256 of an open binary file, read in blocks."""
    sha, size = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        sha.update(block)
        size += len(block)
    return size, sha.hexdigest()


def _short(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
