"""Texts that training must not see: of a file, of a data set's evaluation sets, or of the benchmark MTEB(eng, v2).

A row is dropped where its query, or its positive where that is a text and not the words of a label, is one of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_io.config import S3Options
from data_io.errors import DataError
from data_io.evaluation_sets import RetrievalSet, load_evaluation
from data_io.manifest import MANIFEST_KEY, load_manifest
from data_io.sources.mteb_tasks import MTEB, mteb_texts
from data_io.sources.raw_file_errors import readable_errors
from data_io.sources.raw_files import column_names, find_files, is_file_name, read_records
from data_io.sources.split import text_key
from data_io.storage import open_store
from data_io.task import Kind
from data_io.writer import Row


@dataclass(frozen=True)
class ExcludedTexts:
    """Keys of texts (`split.text_key`): case and white space do not tell them apart."""

    name: str
    keys: frozenset[int]

    def holds(self, row: Row, kind: Kind) -> bool:
        """Whether the row has one of them. A classification's positive is its label's words, and those may recur."""
        return text_key(row.query) in self.keys or (
            kind is not Kind.CLASSIFICATION and text_key(row.positive) in self.keys
        )


def excluded_texts(given: str, s3: S3Options | None = None) -> ExcludedTexts:
    """`mteb`, a file of texts (JSONL, CSV, Parquet, or .txt with one a line), or the address of a data set.

    Raises DataError where there is no text, StorageError where they cannot be reached.
    """
    if given == MTEB:
        keys = _keys(mteb_texts())
    elif given.lower().endswith(".txt"):
        keys = _keys(_lines(given))
    elif not is_file_name(given) and (store := open_store(given, s3)).exists(MANIFEST_KEY):
        manifest = load_manifest(store)
        keys = _keys(text for entry in manifest.evaluations for text in _evaluation(load_evaluation(store, entry)))
    else:
        keys = _keys(_file_texts(given))
    if not keys:
        raise DataError(f"{given} has no text to exclude", remedy="give a file of texts, a data set with evaluation "
                        "sets, or mteb")  # fmt: skip
    return ExcludedTexts(given, keys)


def _keys(texts: Iterable[str]) -> frozenset[int]:
    return frozenset(text_key(text) for text in texts if text.strip())


def _evaluation(found: Any) -> Iterator[str]:
    if isinstance(found, RetrievalSet):
        yield from found.queries
        yield from found.corpus
    else:
        yield from found.text_a
        yield from found.text_b


def _file_texts(address: str) -> Iterator[str]:
    for file in find_files(address):
        for _, record in read_records(file, column_names(file)):
            for value in record.values():
                yield from strings(value)


def strings(value: Any) -> Iterator[str]:
    """Every text in a value, however deep it lies in lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from strings(item)


def _lines(address: str) -> Iterator[str]:
    import fsspec

    with readable_errors(address), fsspec.open(address, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{address}, line {number}: not valid UTF-8", remedy="convert the file to UTF-8"
                ) from error
