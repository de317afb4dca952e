"""Which files an address stands for: a path, a directory, or a pattern."""

import os
from collections.abc import Callable

from fsspec.core import url_to_fs

from data_io.errors import ConfigError
from data_io.storage.address import parse_uri, without_credentials
from data_io.user_files.errors import readable_errors


def files_at(address: str, is_data: Callable[[str], bool]) -> list[str]:
    """Addresses of the files that a path, a directory or a pattern stands for, in the order of their names.

    Of a directory those whose names `is_data` takes, but none that is hidden in it. An address that exists is no pattern,
    whatever its letters. None where there is no file; raises StorageError where the store refuses, ConfigError for an
    address with credentials, which would end up in messages and in the manifest.
    """
    if "://" in address and without_credentials(address) != address:
        raise ConfigError(
            f"the address {without_credentials(address)} has credentials in it", remedy="put them into the environment"
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
    """Whether what is at `address`, a store's, lies in this local directory or this part of a bucket, or is it."""
    try:
        outer, inner = _parts(folder), _parts(address)
    except ConfigError:  # an address of another kind, where no store can be
        return False
    return inner[: len(outer)] == outer


def _parts(address: str) -> list[str]:
    root, prefix = parse_uri(address)
    whole = f"{root}/{prefix}" if "://" in root else os.path.realpath(root)
    return whole.rstrip("/").split("/")


def _is_hidden(below: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in below.split("/"))
