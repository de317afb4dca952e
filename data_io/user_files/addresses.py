"""Finds the files of a path or URI: a file, a directory, or a glob."""

import os
from collections.abc import Callable

from fsspec.core import url_to_fs

from data_io.errors import ConfigError
from data_io.storage.address import parse_uri, without_credentials
from data_io.user_files.errors import readable_errors


def files_at(address: str, is_data: Callable[[str], bool]) -> list[str]:
    """Paths or URIs of the files of a path, a directory or a glob, sorted by name.

    For a directory: files whose names `is_data` accepts, except hidden ones. An existing path is never treated as a
    glob. Empty if there is no file. Raises StorageError if the store refuses, and ConfigError for a URI with
    credentials, which would otherwise appear in messages and in the manifest.
    """
    if "://" in address and without_credentials(address) != address:
        raise ConfigError(
            f"the URI {without_credentials(address)} contains credentials", remedy="put them into the environment"
        )
    with readable_errors(address):
        fs, path = url_to_fs(address)
        if any(c in path for c in "*?[") and not fs.exists(path):
            found = [p for p in sorted(fs.glob(path)) if fs.isfile(p)]
        elif fs.isdir(path):
            found = [p for p in sorted(fs.find(path)) if is_data(p) and not _is_hidden(p.removeprefix(path))]
        else:
            found = [path] if fs.exists(path) else []
        return [address] if found == [path] else [fs.unstrip_protocol(p).removeprefix("file://") for p in found]


def holds_address(folder: str, address: str) -> bool:
    """Whether the store URI `address` is inside this local directory or bucket prefix, or equal to it."""
    try:
        outer, inner = _parts(folder), _parts(address)
    except ConfigError:  # a kind of URI that cannot be a store
        return False
    return inner[: len(outer)] == outer


def _parts(address: str) -> list[str]:
    root, prefix = parse_uri(address)
    whole = f"{root}/{prefix}" if "://" in root else os.path.realpath(root)
    return whole.rstrip("/").split("/")


def _is_hidden(below: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in below.split("/"))
