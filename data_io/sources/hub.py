"""The only module that imports `datasets`: streams the records of a data set on the Hugging Face Hub."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from data_io.errors import ConfigError, DataError, F2LLMError, StorageError
from data_io.sources.source import FILE_FIELD, Placed, PublicSource, Table

_ANSWER_SECONDS = 10
_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
# Error classes by name: they belong to libraries that may not be installed.
_NETWORK_LIBRARIES = ("httpx2", "httpcore2", "httpx", "httpcore", "requests", "urllib3", "aiohttp", "fsspec")


def hub_records(source: PublicSource, table: Table, *, revision: str | None) -> Iterator[Placed]:
    """Every record of one table, in the hub's order, with its position.

    Raises StorageError if the hub is unreachable or denies access, DataError if the data set differs from its
    description in the catalog, ConfigError if `datasets` is not installed.
    """
    with _readable_errors(source, table):
        for where, records in _streams(source, table, revision):
            for number, record in enumerate(records, start=1):
                yield f"{where}, row {number}", {**record, FILE_FIELD: _stem(where)}


@cache
def offline_where_unreachable() -> bool:
    """Whether this process must work without the hub: offline mode is set, or the hub does not answer. Asked once.

    Without this check the libraries would wait half a minute per data set. In offline mode they use their cache.
    """
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        try:
            request = urllib.request.Request(address, method="HEAD")
            # The address is a constant, or a setting of the user who runs this process.
            urllib.request.urlopen(request, timeout=_ANSWER_SECONDS).close()  # nosec B310
        except OSError as error:
            if isinstance(error, urllib.error.HTTPError):  # the hub answered, even if with an error
                return False
            os.environ["HF_HUB_OFFLINE"] = "1"
            for name in ("huggingface_hub.constants", "datasets.config"):
                if name in sys.modules:
                    vars(sys.modules[name])["HF_HUB_OFFLINE"] = True
        else:
            return False
    return True


def _streams(source: PublicSource, table: Table, revision: str | None) -> Iterator[tuple[str, Any]]:
    import datasets

    datasets.disable_progress_bars()
    if table.files is None:
        named = f"{source.id} ({', '.join(filter(None, (table.config, table.split)))})"
        yield (
            named,
            datasets.load_dataset(source.id, name=table.config, split=table.split, streaming=True, revision=revision),
        )
        return
    from huggingface_hub import HfFileSystem

    at = f"{source.id}@{revision}" if revision else source.id
    files = sorted(HfFileSystem().glob(f"datasets/{at}/{table.files}"))
    if not files:
        raise DataError(
            f"source {source.name!r}: no file {table.files} in {source.address}",
            remedy="pin a revision that has it (--revision), or give a copy (--from DIR)",
        )
    for path in files:
        # One file at a time with the loader of its format: `datasets` no longer runs the repository's loading script,
        # and the name of a file may be the class of all its records.
        loader = next(kind for ending, kind in _FORMATS.items() if ending in str(path))
        yield (
            str(path).removeprefix("datasets/"),
            # `path` contains the revision.
            datasets.load_dataset(loader, data_files=f"hf://{path}", split="train", streaming=True),  # nosec B615
        )


def _stem(where: str) -> str:
    name = where.rpartition("/")[2]
    for ending in (".gz", ".jsonl", ".json", ".parquet", ".csv"):
        name = name.removesuffix(ending)
    return name


@contextmanager
def _readable_errors(source: PublicSource, table: Table) -> Iterator[None]:
    try:
        yield
    except F2LLMError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"source {source.name!r} needs the package {error.name}, which is not installed",
            remedy="pip install 'f2llm-ray[data]'",
        ) from error
    except Exception as error:
        translated = _translate(error, source, table)
        if translated is None:
            raise
        raise translated from error


def _translate(error: Exception, source: PublicSource, table: Table) -> F2LLMError | None:
    """The project's error. None if this is not an error of loading."""
    copy = f"give a local copy with --from DIR: the data set's own files in DIR/{source.name}/"
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    library = type(error).__module__.partition(".")[0]
    if type(error).__name__ in ("DatasetNotFoundError", "GatedRepoError", "RepositoryNotFoundError"):
        return StorageError(
            f"source {source.name!r}: the hub denies access to {source.id}: {said}",
            remedy=f"accept its terms on {source.address} and set HF_TOKEN, or {copy}",
        )
    if isinstance(error, OSError) or library in _NETWORK_LIBRARIES or "Hub" in type(error).__name__:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
        return StorageError(
            f"source {source.name!r}: {source.id} cannot be loaded from the Hugging Face Hub{offline}: {said}",
            remedy=f"check that this machine can reach the hub, or set HF_ENDPOINT to a mirror; set HF_TOKEN if the "
            f"hub asks for a login; or {copy}",
        )
    if library == "datasets" or isinstance(error, (ValueError, RuntimeError)):
        return DataError(
            f"source {source.name!r}: {source.id} has no such table ({table.config or 'default'}, {table.split}): "
            f"{said}",
            remedy=f"pin a revision that has it with --revision {source.name}=REVISION, or {copy}",
        )
    return None
