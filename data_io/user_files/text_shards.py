"""Texts to embed, in shards: a range of rows of a user's file, read separately and in the file's order.

A Parquet file is divided by rows, which its footer counts. JSON lines are read once to find the first line of each
shard. Compressed JSON lines are also copied, because such a file can only be read from its start. All columns are kept
with their text: Parquet columns with their type, fields of JSON lines as strings.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_io.dataset.schema import text_hash
from data_io.errors import DataError
from data_io.storage.store import Store
from data_io.user_files.columns import text_column
from data_io.user_files.errors import readable_errors
from data_io.user_files.records import RawFile, column_names, is_compressed, open_parquet, open_raw, read_json_lines
from data_io.wording import counted


@dataclass(frozen=True)
class TextShard:
    """`rows` rows of a file from `first_row` on; for JSON lines also their byte range and the number of the first line.

    `copy` is the key of the copied lines of a compressed file.
    """

    file: RawFile
    first_row: int
    rows: int
    offset: int = 0
    size: int = 0
    first_line: int = 1
    copy: str | None = None


@dataclass(frozen=True)
class TextInput:
    """The texts to embed and the columns to keep: `columns` in order, of which `text` is one."""

    text: str
    columns: tuple[str, ...]


def describe_input(
    files: Sequence[RawFile],
    *,
    text: str | None,
    keep: Sequence[str] | None,
    keep_remedy: str = "correct the name in --keep",
) -> TextInput:
    """Decide which column has the texts (recognized if `text` is None), and which columns to keep (None: all).

    `keep_remedy` says how the caller's user selects other columns. Raises DataError for a missing column, and for a
    file that is neither Parquet nor JSON lines.
    """
    for file in files:
        if file.format not in ("parquet", "jsonl"):
            raise DataError(
                f"{file.address} is {file.format}; expected Parquet or JSON lines", remedy="convert the file"
            )
    names = column_names(files[0])
    chosen = text_column(files[0], remedy="name the column with --column") if text is None else text
    for name in (chosen, *(keep or ())):
        if name not in names:
            raise DataError(
                f"{files[0].address} has no column {name!r}; it has {', '.join(names)}",
                remedy="correct the name in --column" if name == chosen else keep_remedy,
            )
    kept = names if keep is None else tuple(name for name in names if name in keep or name == chosen)
    return TextInput(chosen, kept)


def refuse_without_texts(file: RawFile, text: str) -> None:
    """Raises DataError for JSON lines if no row has the field `text`. Some rows may lack it. Files may have no rows."""
    if file.format != "jsonl":
        return
    rows, first = 0, ""
    with readable_errors(file.address), open_raw(file) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            ((_, record),) = read_json_lines(file, line, first_line=number)
            if text in record:
                return
            rows, first = rows + 1, first or ", ".join(record)
    if rows:
        raise DataError(
            f"{file.address} has no {text!r} in any row ({counted(rows, 'row')}); the first has {first}",
            remedy="name a column that all files have with --column, or leave the file out",
        )


def common_schema(files: Sequence[RawFile], columns: Sequence[str]) -> pa.Schema:
    """The schema of these columns, each with a type that fits all files. Fields of JSON lines are strings.

    Raises DataError if a Parquet file lacks a column, or if no type fits two files.
    """
    kinds: dict[str, pa.DataType] = {}
    for file in files:
        found = _schema(file, columns)
        for field in found:
            kind = kinds.get(field.name, field.type)
            try:
                both = [pa.schema([(field.name, each)]) for each in (kind, field.type)]
                kinds[field.name] = pa.unify_schemas(both, promote_options="permissive").field(0).type
            except pa.ArrowException as error:
                raise DataError(
                    f"{file.address}: column {field.name!r} is {field.type}, but {kind} in the earlier files",
                    remedy="write the column with one type in all files, or leave it out",
                ) from error
    return pa.schema([(name, kinds[name]) for name in columns])


def plan_shards(file: RawFile, shard_rows: int, *, copies: Store) -> list[TextShard]:
    """A file's shards of at most `shard_rows` rows, in order. Empty for a file without rows.

    `copies` is the store in which `read_shard` finds the lines of compressed files.
    """
    with readable_errors(file.address), open_raw(file) as stream:
        if file.format == "parquet":
            total = open_parquet(file, stream).metadata.num_rows
            return [TextShard(file, first, min(shard_rows, total - first)) for first in range(0, total, shard_rows)]
        return list(_line_shards(file, stream, shard_rows, copies))


def read_shard(shard: TextShard, wanted: TextInput, *, copies: Store) -> pa.Table:
    """The shard's rows in the input's order: its columns, the text as string. A missing text is null.

    Raises DataError with the position if a text is not a string, or if the file changed after it was planned.
    """
    file = shard.file
    if shard.copy is not None:
        table = _json_rows(shard, copies.get(shard.copy, most=shard.size), wanted)
    else:
        with readable_errors(file.address), open_raw(file) as stream:
            if file.format == "parquet":
                table = _parquet_rows(shard, stream, wanted)
            else:
                stream.seek(shard.offset)
                table = _json_rows(shard, stream.read(shard.size), wanted)
    if table.num_rows != shard.rows:
        raise DataError(
            f"{file.address} has {table.num_rows} of the {shard.rows} rows it had from row {shard.first_row + 1} on",
            remedy="the file was changed during the run: start again with an empty output directory",
        )
    return table


def _line_shards(file: RawFile, stream: Iterator[bytes], shard_rows: int, copies: Store) -> Iterator[TextShard]:
    """The shards of JSON lines. Blank lines do not count as rows."""
    first_row = rows = offset = 0
    first_line = 1
    lines: list[bytes] = []

    def shard() -> TextShard:
        data = b"".join(lines)
        copy = f"{text_hash(file.address):016x}-{first_row}" if is_compressed(file) else None
        if copy is not None:
            copies.put(copy, data)
        return TextShard(file, first_row, rows, offset, len(data), first_line, copy)

    for number, line in enumerate(stream, start=1):
        lines.append(line)
        rows += bool(line.strip())
        if rows == shard_rows:
            yield (found := shard())
            first_row, offset, first_line = first_row + rows, offset + found.size, number + 1
            rows, lines = 0, []
    if rows:
        yield shard()


def _schema(file: RawFile, columns: Sequence[str]) -> pa.Schema:
    """The file's own types of these columns."""
    if file.format == "jsonl":
        return pa.schema([(name, pa.string()) for name in columns])
    with readable_errors(file.address), open_raw(file) as stream:
        found = open_parquet(file, stream).schema_arrow
    _check_columns(file, found.names, columns, remedy="make the files agree, or leave the file out")
    return pa.schema([found.field(name) for name in columns])


def _check_columns(
    file: RawFile,
    found: Sequence[str],
    columns: Sequence[str],
    *,
    remedy: str = "make the files agree, or name the columns that all have with --keep",
) -> None:
    missing = [name for name in columns if name not in found]
    if missing:
        raise DataError(f"{file.address} has no column {missing[0]!r}, which the first file has", remedy=remedy)


def _parquet_rows(shard: TextShard, stream: Any, wanted: TextInput) -> pa.Table:
    parquet = open_parquet(shard.file, stream)
    _check_columns(shard.file, parquet.schema_arrow.names, wanted.columns)
    ends, row = [], 0
    for group in range(parquet.metadata.num_row_groups):
        row += parquet.metadata.row_group(group).num_rows
        ends.append(row)
    last_row = shard.first_row + shard.rows
    starts = [0, *ends[:-1]]
    groups = [g for g in range(len(ends)) if ends[g] > shard.first_row and starts[g] < last_row]
    if not groups:
        return parquet.schema_arrow.empty_table().select(list(wanted.columns))
    table = parquet.read_row_groups(groups, columns=list(wanted.columns))
    table = table.slice(shard.first_row - starts[groups[0]], shard.rows).select(list(wanted.columns))
    kind = table.schema.field(wanted.text).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(
            f"{shard.file.address}: column {wanted.text!r} is {kind}, expected strings",
            remedy="name another column with --column",
        )
    return table


def _json_rows(shard: TextShard, data: bytes, wanted: TextInput) -> pa.Table:
    columns: dict[str, list[str | None]] = {name: [] for name in wanted.columns}
    for place, record in read_json_lines(shard.file, data, first_line=shard.first_line):
        text = record.get(wanted.text)
        if text is not None and not isinstance(text, str):
            raise DataError(
                f"{place}: {wanted.text!r} is {type(text).__name__}, expected a string",
                remedy="fix the line, or set the field to null",
            )
        for name, values in columns.items():
            values.append(_as_text(record.get(name)))
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def _as_text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
