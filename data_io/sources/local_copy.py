"""Reads a public data set's own files from a local directory instead of the hub."""

from collections.abc import Iterator
from pathlib import PurePosixPath

from data_io.errors import DataError
from data_io.sources.source import FILE_FIELD, LINE_FIELD, Placed, PublicSource, Table
from data_io.user_files.records import (
    COMPRESSIONS,
    RawFile,
    column_names,
    find_files,
    find_text_files,
    read_records,
    read_text_lines,
)

_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation",
           "dev": "validation"}  # fmt: skip
"""Words for splits in file names, and their splits."""


def files_of(folder: str, source: PublicSource, role: str) -> list[RawFile]:
    """The files of the tables of one role under DIR/<name>/, selected by words in file and directory names.

    If the data set has tables of several roles, a file needs the role's word. If files have words for splits or
    configurations, only the ones that the source uses are read. Raises DataError if no file is left.
    """
    base = f"{folder.rstrip('/')}/{source.name}"
    tables = [table for table in source.tables if table.role == role]
    if any(map(_is_plain_text, tables)):
        found = find_text_files(base, remedy="put the data set's .txt files there, one for each class")
    else:
        found = find_files(base)
    several = len({table.role for table in source.tables}) > 1
    if several:
        found = [file for file in found if _has(file, source, role)]
    configs = [table.config for table in tables if table.config is not None]
    chosen = [file for file in found if any(_has(file, source, config) for config in configs)] or found
    wanted = {_SPLITS.get(table.split, table.split) for table in tables}
    if wanted != {role}:  # else the split has the name of the role, checked above
        others = [word for word, split in _SPLITS.items() if split not in wanted]
        chosen = [file for file in chosen if not any(_has(file, source, word) for word in others)]
    if not chosen:
        table = f"table {role!r}, " if several else ""
        raise DataError(
            f"source {source.name!r}: no file of {table}split {' or '.join(sorted(wanted))} in {base}",
            remedy=f"put the files of {source.address} there, under their own names",
        )
    return chosen


def local_records(folder: str, source: PublicSource, role: str) -> Iterator[Placed]:
    """Every record of the tables of one role, with file and line or row.

    Raises DataError for any problem of the files.
    """
    for file in files_of(folder, source, role):
        stem = _stem(file)
        if file.format == "txt":
            yield from ((place, {LINE_FIELD: line, FILE_FIELD: stem}) for place, line in read_text_lines(file))
            continue
        for place, record in read_records(file, column_names(file)):
            yield place, {**record, FILE_FIELD: stem}


def _is_plain_text(table: Table) -> bool:
    return table.files is not None and table.files.endswith(".txt")


def _stem(file: RawFile) -> str:
    name = PurePosixPath(file.address).name
    for ending in (*COMPRESSIONS, ".jsonl", ".json", ".parquet", ".csv", ".tsv", ".txt"):
        name = name.removesuffix(ending)
    return name


def _has(file: RawFile, source: PublicSource, word: str) -> bool:
    """Whether the file or a directory below the source's own is called `word`, `word-...` or `...-word`."""
    below = PurePosixPath(file.address.rpartition(f"/{source.name}/")[2]).with_name(_stem(file))
    return any(
        part == word or part.startswith((f"{word}-", f"{word}.")) or part.endswith(f"-{word}") for part in below.parts
    )
