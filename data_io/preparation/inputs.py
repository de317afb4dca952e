"""A user's input files before a data set is made of them: their settings, checked, and the opened files."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import ValidationError

from data_io.dataset.evaluation_sets import StsSet
from data_io.dataset.manifest import SourceInfo
from data_io.dataset.rows import check_text
from data_io.dataset.spill import MEMORY_BYTES
from data_io.errors import ConfigError
from data_io.execution import Say
from data_io.storage.store import Store
from data_io.task import Kind
from data_io.user_files.addresses import holds_address
from data_io.user_files.columns import Columns, InputRows, open_rows, read_scored_pairs
from data_io.user_files.records import find_files, size_of, split_file
from data_io.wording import counted

_SMALL_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FileInput:
    """One source, or with kind "sts" one set of scored pairs: a file, a directory or a glob."""

    name: str
    address: str
    kind: Kind | Literal["sts"]
    instruction: str | None = None
    """Query prefix. None: the prefix that the queries in the files already have, if any."""
    license: str = ""
    columns: Columns = field(default_factory=Columns)
    negatives: int | None = None
    """Hard negatives to keep per row. None: as many as every row has, at most the recipe's number."""
    mine_lexical: int = 0
    """Hard negatives per row in total: the row's own, then BM25 negatives from the source's positives. 0: no mining."""


@dataclass(frozen=True)
class OpenedSource:
    """A source before its files are read: its parts, each with the size of its files in bytes."""

    given: FileInput
    kind: Kind
    instruction: str
    parts: tuple[tuple[InputRows, int], ...]


def is_large(inputs: Sequence[FileInput], *, memory_bytes: int = MEMORY_BYTES) -> bool:
    """Whether the inputs are large enough for several processes and for resumable tasks."""
    found = [file for each in inputs for file in find_files(each.address)]
    return sum(size_of(file.address) for file in found) > min(_SMALL_BYTES, memory_bytes)


def check_inputs(inputs: Sequence[FileInput], store: Store) -> None:
    """Raises ConfigError for contradictory inputs, and for an input that contains the data set itself."""
    if not any(isinstance(each.kind, Kind) for each in inputs):
        raise ConfigError("there is no source to train on", remedy="give at least one input of another kind than sts")
    names = [each.name for each in inputs]
    for each in inputs:
        _check_settings(each)
        if names.count(each.name) > 1:
            raise ConfigError(f"two inputs are called {each.name!r}", remedy="give each its own name")
    for each in inputs:
        if holds_address(each.address, store.uri):
            raise ConfigError(
                f"source {each.name!r} is {each.address}, which contains the data set to make, {store.uri}; "
                "the next preparation would read the data set as a source",
                remedy=f"make the data set elsewhere, or give a glob, such as '{each.address.rstrip('/')}/*.jsonl'",
            )


def open_source(given: FileInput, kind: Kind, memory_bytes: int) -> OpenedSource:
    """Find the files of a source, recognize their columns, and divide large files into parts.

    Raises ConfigError if the instruction differs from the files' own, DataError if a file cannot be recognized.
    """
    rows = open_rows(given.address, given.columns)
    instruction = given.instruction if given.instruction is not None else rows.instruction or ""
    if rows.instruction is not None and instruction != rows.instruction:
        raise ConfigError(
            f"source {given.name!r}: the instruction is {instruction!r}, but its files have {rows.instruction!r}",
            remedy="remove the instruction to use the one in the files",
        )
    found = [part for file in rows.files for part in split_file(file, min(_SMALL_BYTES, memory_bytes))]
    if given.mine_lexical or rows.min_score is not None:  # needs all rows of the source at once
        parts = [(rows, sum(size for _, size in found))]
    else:
        parts = [(replace(rows, files=(file,)), size) for file, size in found]
    return OpenedSource(given, kind, instruction, tuple(parts))


def read_scored_set(given: FileInput, say: Say) -> StsSet:
    """Read the scored pairs of an input of kind "sts". Raises DataError with file and line for an invalid pair."""
    pairs = []
    for pair in read_scored_pairs(given.address, given.columns):
        check_text(pair.text_a, "the first text", pair.place)
        check_text(pair.text_b, "the second text", pair.place)
        pairs.append(pair)
    say(f"{given.name}: {counted(len(pairs), 'scored pair')}")
    return StsSet(
        given.name, given.instruction or "",
        [p.text_a for p in pairs], [p.text_b for p in pairs], [p.score for p in pairs],
        license=given.license, origin=given.address,
    )  # fmt: skip


def _check_settings(given: FileInput) -> None:
    try:
        SourceInfo(name=given.name, kind=Kind.RETRIEVAL, negatives=given.negatives or given.mine_lexical)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(
            f"input {given.name!r}: {first['loc'][0]} is {first['input']!r}: {first['msg']}",
            remedy="use letters, digits, '.', '_' and '-' in the name; use 0 to 128 negatives",
        ) from error
    if given.mine_lexical and given.kind is not Kind.RETRIEVAL:
        raise ConfigError(
            f"source {given.name!r}: mine_lexical needs kind retrieval, but the kind is {given.kind}, whose rows share "
            "labels",
            remedy="set mine_lexical to 0, or make it a retrieval source",
        )
    if given.mine_lexical and given.negatives is not None and given.negatives > given.mine_lexical:
        raise ConfigError(
            f"source {given.name!r} has negatives={given.negatives}, but mine_lexical={given.mine_lexical} in total",
            remedy=f"set mine_lexical to {given.negatives} or more, or negatives to {given.mine_lexical} or less",
        )
