"""Texts to keep out of training: from a file, from a data set's evaluation sets, or from the benchmark MTEB(eng, v2).

A row is dropped if its query or its positive is one of these texts. The positive of a classification row is not
compared, because it is the words of a label.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_io.curation.held_out import SplitCounts
from data_io.data_spec import S3Options
from data_io.dataset.evaluation_sets import RetrievalSet, load_evaluation
from data_io.dataset.manifest import MANIFEST_KEY, load_manifest
from data_io.dataset.rows import Row
from data_io.dataset.schema import text_key
from data_io.errors import DataError
from data_io.evaluation.mteb import MTEB, mteb_texts
from data_io.execution import Say
from data_io.storage.store import open_store
from data_io.task import Kind
from data_io.user_files.records import (
    column_names,
    find_files,
    find_text_files,
    is_file_name,
    is_text_file_name,
    read_records,
    read_text_lines,
)
from data_io.wording import counted


@dataclass(frozen=True)
class ExcludedTexts:
    """Keys of texts (`schema.text_key`), which ignore case and white space."""

    name: str
    keys: frozenset[int]

    @property
    def fingerprint(self) -> list[object]:
        """Values that identify these texts in recipe.json."""
        return [self.name, len(self.keys), sum(self.keys) % 2**64]

    @property
    def reason(self) -> str:
        """The reason for dropping a row that contains one of the texts."""
        return f"text of {self.name}"

    def holds(self, row: Row, kind: Kind) -> bool:
        """Whether the row contains one of the texts. Labels (the positives of a classification) are not compared."""
        return text_key(row.query) in self.keys or (
            kind is not Kind.CLASSIFICATION and text_key(row.positive) in self.keys
        )


def excluded_texts(given: str, s3: S3Options | None = None) -> ExcludedTexts:
    """The keys of `benchmark_texts`. Raises DataError if there is no text, StorageError if the texts cannot be read."""
    keys = frozenset(text_key(text) for text in benchmark_texts(given, s3) if text.strip())
    if not keys:
        raise DataError(f"{given} has no text to exclude", remedy="give a file of texts, a data set with evaluation "
                        "sets, or mteb")  # fmt: skip
    return ExcludedTexts(given, keys)


def benchmark_texts(given: str, s3: S3Options | None = None) -> Iterator[str]:
    """Texts of `mteb`, of a file (JSONL, CSV, Parquet, or .txt with one text per line), or of the evaluation sets of a
    data set, given by its path or URI. Raises StorageError if the texts cannot be read.
    """
    if given == MTEB:
        yield from mteb_texts()
    elif is_text_file_name(given):
        for file in find_text_files(given, remedy="check the path for a typing error"):
            yield from (line for _, line in read_text_lines(file))
    elif not is_file_name(given) and (store := open_store(given, s3)).exists(MANIFEST_KEY):
        for entry in load_manifest(store).evaluations:
            yield from _evaluation(load_evaluation(store, entry))
    else:
        yield from _file_texts(given)


def read_excluded(names: Sequence[str], s3: S3Options | None, say: Say) -> list[ExcludedTexts]:
    """The texts of each name. Prints one line per name before reading it."""
    found = []
    for name in names:
        say(f"reading the texts of {name}")
        found.append(excluded_texts(name, s3))
    return found


def without_excluded(
    rows: Iterable[Row], kind: Kind, excluded: Sequence[ExcludedTexts], counts: SplitCounts
) -> Iterator[Row]:
    """The rows that contain none of the texts. The other rows are counted in `counts.left_out`."""
    for row in rows:
        holds = next((each for each in excluded if each.holds(row, kind)), None)
        if holds is None:
            yield row
        else:
            counts.left_out[holds.reason] = counts.left_out.get(holds.reason, 0) + 1


def say_excluded(source: str, excluded: Sequence[ExcludedTexts], left_out: Mapping[str, int], say: Say) -> None:
    """Print how many rows of a source were dropped for each set of excluded texts, also if the number is 0."""
    for each in excluded:
        say(f"{source}: {counted(left_out.get(each.reason, 0), 'row')} dropped for texts of {each.name}")


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
    """Every string in a value of nested lists and objects."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from strings(item)
