"""A user's files in any format as records with a position: JSON lines, CSV, TSV and Parquet, local or remote.

fsspec opens them, so every path or URI that it knows works (`s3://`, `https://`, a directory, a glob). Every problem of
a file raises one DataError that names the file and the line or row, counted from 1.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.compression import register_compression
from fsspec.core import url_to_fs

from data_io.errors import DataError
from data_io.user_files.addresses import files_at
from data_io.user_files.errors import readable_errors

Record = dict[str, Any]
Placed = tuple[str, Record]

_LARGEST_FIELD = 2**31 - 1
_BATCH_ROWS = 1024
_WEB_VERSION = ("ETag", "Last-Modified", "Content-MD5", "Digest")
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Suffixes of compressed files that can be read."""


@dataclass(frozen=True)
class RawFile:
    """One file: `address` as shown to the user, and its format: jsonl, csv, tsv, parquet or txt.

    `row_groups` is the first row group of a part of a Parquet file and the one after the last. None: the whole file.
    """

    address: str
    format: str
    row_groups: tuple[int, int] | None = None


def find_files(address: str) -> list[RawFile]:
    """The files of a path, a directory or a glob, sorted by name.

    Raises DataError if there is none, or if a name has an unknown suffix; StorageError if the store refuses;
    ConfigError for a URI with credentials, which would otherwise appear in messages and in the manifest.
    """
    names = files_at(address, is_file_name)
    if not names:
        raise DataError(
            f"no data file at {address}",
            remedy="give the path of a file, a directory with files or a quoted glob such as 'data/*.jsonl'",
        )
    return [RawFile(name, _known_format(name)) for name in names]


def find_text_files(address: str, *, remedy: str) -> list[RawFile]:
    """Like `find_files`, for plain text files (format txt). The DataError for no file has this remedy."""
    names = files_at(address, is_text_file_name)
    if not names:
        raise DataError(f"no text file at {address}", remedy=remedy)
    return [RawFile(name, "txt") for name in names]


def is_file_name(address: str) -> bool:
    """Whether the address has the suffix of a data file."""
    return _format(address) is not None


def is_text_file_name(address: str) -> bool:
    """Whether the address has the suffix of a plain text file, compressed or not."""
    return _uncompressed(address).endswith(".txt")


def fingerprint(address: str) -> str:
    """A string that changes when the file at `address` changes (size and time, or ETag), without reading it.

    If a web server gives neither ETag, time nor checksum, the string is different at every call, because an equal size
    does not prove that the file is the same.
    """
    with readable_errors(address):
        fs, path = url_to_fs(address)
        if not path.startswith(("http://", "https://")):
            return str(fs.ukey(path))
        told = fs.info(path)  # the ukey of a URL is a hash of the URL
    version = {name: told[name] for name in _WEB_VERSION if name in told}
    if not version:
        return uuid4().hex
    return hashlib.sha256(json.dumps([path, told["size"], version]).encode()).hexdigest()


def size_of(address: str) -> int:
    """Size in bytes of the file at `address`. 0 if the store does not say."""
    with readable_errors(address):
        fs, path = url_to_fs(address)
        return int(fs.size(path) or 0)


def split_file(file: RawFile, part_bytes: int) -> list[tuple[RawFile, int]]:
    """Parts of about `part_bytes` that can be read separately, each with its size. Only Parquet can be divided."""
    size = size_of(file.address)
    if file.format != "parquet" or size <= part_bytes:
        return [(file, size)]
    with readable_errors(file.address), open_raw(file) as stream:
        metadata = open_parquet(file, stream).metadata
        sizes = [_stored_bytes(metadata.row_group(g)) for g in range(metadata.num_row_groups)]
    parts, first, held = [], 0, 0
    for g, group_bytes in enumerate(sizes, start=1):
        held += group_bytes
        if held >= part_bytes or g == len(sizes):
            parts.append((replace(file, row_groups=(first, g)), held))
            first, held = g, 0
    return parts or [(file, size)]


def _stored_bytes(group: Any) -> int:
    return sum(group.column(c).total_compressed_size for c in range(group.num_columns))


def column_names(file: RawFile) -> tuple[str, ...]:
    """Names of the columns: of the Parquet schema, the CSV header or the first JSON object."""
    with readable_errors(file.address), open_raw(file) as stream:
        if file.format == "parquet":
            return tuple(open_parquet(file, stream).schema_arrow.names)
        if file.format == "jsonl":
            return tuple(next(_jsonl(file, stream))[1])
        return tuple(_csv_header(file, _csv_rows(file, stream)))


def read_records(file: RawFile, columns: Sequence[str]) -> Iterator[Placed]:
    """Records of the file, each with its position. Values are as in the format; only `columns` are checked.

    A missing column raises DataError; in JSON lines this is checked for every row.
    """
    with readable_errors(file.address), open_raw(file) as stream:
        if file.format == "parquet":
            yield from _parquet_records(file, stream, columns)
        else:
            yield from (_jsonl if file.format == "jsonl" else _csv_records)(file, stream)


def read_json_lines(file: RawFile, data: bytes, *, first_line: int) -> Iterator[Placed]:
    """Records of a range of a JSON lines file that consists of whole lines. `first_line` is the number of the first."""
    yield from _jsonl(file, io.BytesIO(data), first_line)


def read_text_lines(file: RawFile) -> Iterator[tuple[str, str]]:
    """Lines of a plain text file, including blank ones, stripped of white space; each with its position."""
    with readable_errors(file.address), open_raw(file) as stream:
        for number, line in _lines(file, stream):
            yield f"{file.address}, line {number}", line.strip()


def _format(name: str) -> str | None:
    lowered = _uncompressed(name)
    for suffix in _SUFFIXES:
        if lowered.endswith(suffix):
            return {".ndjson": "jsonl", ".json": "jsonl", ".pq": "parquet"}.get(suffix, suffix[1:])
    return None


def _uncompressed(name: str) -> str:
    lowered = name.lower()
    for compression in COMPRESSIONS:
        lowered = lowered.removesuffix(compression)
    return lowered


def _known_format(name: str) -> str:
    known = _format(name)
    if known is None:
        raise DataError(
            f"{name}: unknown suffix; expected one of {', '.join(_SUFFIXES)} (compressed or not)",
            remedy="rename the file after its format, or convert it",
        )
    return known


def is_compressed(file: RawFile) -> bool:
    """Whether the file can only be read from its start."""
    return file.format != "parquet" and file.address.lower().endswith(COMPRESSIONS)


def open_raw(file: RawFile) -> Any:
    """The file's bytes, decompressed unless it is Parquet, as fsspec's context manager."""
    return fsspec.open(file.address, "rb", compression=None if file.format == "parquet" else "infer")


def _zstd(stream: IO[bytes], mode: str = "rb", **_: Any) -> io.BufferedReader:
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"))


# fsspec's own reader, if there is one, accepts a truncated file as complete.
register_compression("zstd", _zstd, "zst", force=True)


def _decode(line: bytes, place: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = (
            "the file seems to be UTF-16"
            if line[:2] in (b"\xff\xfe", b"\xfe\xff")
            else f"byte {error.start + 1} of the line"
        )
        raise DataError(
            f"{place}: not valid UTF-8 ({found}: 0x{line[error.start]:02x})",
            remedy="convert the file to UTF-8, e.g. iconv -f LATIN1 -t UTF-8",
        ) from error


def _lines(file: RawFile, stream: IO[bytes], first: int = 1) -> Iterator[tuple[int, str]]:
    """Decoded lines with their number, starting at `first`. A byte-order mark at the start of the file is dropped."""
    for number, line in enumerate(stream, start=first):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
            if line[:4] == b"PK\x03\x04" or line[:4] == b"PAR1":
                kind = "a zip archive" if line[:2] == b"PK" else "Parquet"
                raise DataError(
                    f"{file.address} is {kind}, not {file.format}", remedy="unpack it, or correct its file name suffix"
                )
        yield number, _decode(line, f"{file.address}, line {number}")


def _jsonl(file: RawFile, stream: IO[bytes], first: int = 1) -> Iterator[Placed]:
    empty = True
    for number, line in _lines(file, stream, first):
        if not line.strip():
            continue
        place = f"{file.address}, line {number}"
        if empty and line.lstrip().startswith("["):
            raise DataError(
                f"{place}: the file is one JSON array; expected one object per line",
                remedy=f"jq -c '.[]' {file.address} > rows.jsonl",
            )
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{place}, column {error.colno}: not valid JSON ({error.msg})",
                remedy="fix the line; every line must be one complete JSON object",
            ) from error
        except (ValueError, RecursionError) as error:  # too many digits, or too deep for Python
            raise DataError(
                f"{place}: the line has an integer of thousands of digits, or thousands of nested lists",
                remedy="fix or remove the line",
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"{place}: expected a JSON object, found {type(record).__name__}",
                remedy='write every row as an object, e.g. {"query": "...", "positive": "..."}',
            )
        empty = False
        yield place, record
    if empty:
        raise _no_rows(file)


def _csv_rows(file: RawFile, stream: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LARGEST_FIELD)
    delimiter = "\t" if file.format == "tsv" else ","
    reader = csv.reader((line for _, line in _lines(file, stream)), delimiter=delimiter, strict=True)
    first = 1
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{file.address}, line {first}: not valid CSV ({error})",
                remedy="quote fields that hold quotes, commas or line ends, and double the quotes in them",
            ) from error
        if row is None:
            return
        if row:
            yield first, row
        first = reader.line_num + 1


def _csv_header(file: RawFile, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, header = next(rows, (0, None))
    if header is None:
        raise _no_rows(file)
    names = [name.strip() for name in header]
    _check_names(file, [name for name in names if name])
    return names


def _csv_records(file: RawFile, stream: IO[bytes]) -> Iterator[Placed]:
    rows = _csv_rows(file, stream)
    header = _csv_header(file, rows)
    empty = True
    for number, row in rows:
        empty = False
        place = f"{file.address}, line {number}"
        if len(row) != len(header):
            raise DataError(
                f"{place}: {len(row)} fields; the header has {len(header)} ({', '.join(header)})",
                remedy="quote fields that hold the separator or a line end",
            )
        yield place, dict(zip(header, row, strict=True))
    if empty:
        raise _no_rows(file)


def open_parquet(file: RawFile, stream: IO[bytes]) -> pq.ParquetFile:
    """Raises DataError if the file is not Parquet, or if two columns have the same name."""
    head = stream.read(4)
    stream.seek(0)
    if head != b"PAR1":
        found = (
            "an empty file"
            if not head
            else {b"PK\x03\x04": "a zip archive"}.get(head, f"a file that begins with {head!r}")
        )
        raise DataError(
            f"{file.address}: expected Parquet (it begins with PAR1), found {found}",
            remedy="unpack or convert it; if you use git-lfs, run git lfs pull",
        )
    parquet = pq.ParquetFile(stream)
    _check_names(file, parquet.schema_arrow.names)
    return parquet


def _check_names(file: RawFile, names: Sequence[str]) -> None:
    for name in names:
        if (count := names.count(name)) > 1:
            raise DataError(
                f"{file.address} has {count} columns called {name!r}; expected different names",
                remedy="rename them; number hard negatives: negative_1, negative_2, ...",
            )


def _parquet_records(file: RawFile, stream: IO[bytes], columns: Sequence[str]) -> Iterator[Placed]:
    parquet = open_parquet(file, stream)
    missing = [name for name in columns if name not in parquet.schema_arrow.names]
    if missing:
        raise DataError(
            f"{file.address} has no column {missing[0]!r}; it has {', '.join(parquet.schema_arrow.names)}",
            remedy="name existing columns, or use the same columns in all files of a source",
        )
    if parquet.metadata.num_rows == 0:
        raise _no_rows(file)
    first, behind = file.row_groups or (0, parquet.metadata.num_row_groups)
    number = sum(parquet.metadata.row_group(g).num_rows for g in range(first))
    groups = list(range(first, behind))
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, columns=list(columns)):
        try:
            records = batch.to_pylist()
        except UnicodeDecodeError as error:
            number += _first_bad_row(batch)
            raise DataError(
                f"{file.address}, row {number + 1}: not valid UTF-8 ({error.reason})",
                remedy="write the file again with UTF-8 text",
            ) from error
        for record in records:
            number += 1
            yield f"{file.address}, row {number}", record


def _first_bad_row(batch: pa.RecordBatch) -> int:
    for row in range(batch.num_rows):
        try:
            batch.slice(row, 1).to_pylist()
        except UnicodeDecodeError:
            return row
    return 0


def _no_rows(file: RawFile) -> DataError:
    return DataError(f"{file.address} has no rows", remedy="leave the file out, or write rows into it")
