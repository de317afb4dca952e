"""Wraps column chunks of one Parquet file in a new file, so that no footer has to be fetched.

pyarrow decodes only whole files. The writer fixes everything in a footer except offsets and sizes: required columns (no
levels), PLAIN, zstd, no dictionary, no statistics. So the footer of a file with one row group and only the wanted
chunks can be built here, in Thrift's compact protocol. Field numbers: parquet.thrift of the Parquet format, 2.x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_INT64, _BYTE_ARRAY = 2, 6  # Type
_UTF8, _UINT_64 = 0, 14  # ConvertedType
_REQUIRED = 0  # FieldRepetitionType
_PLAIN, _ZSTD = 0, 6  # Encoding, CompressionCodec


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """A column chunk as stored, with page headers. `is_text`: UTF-8 strings; if not, unsigned 64-bit integers."""

    name: str
    is_text: bool
    data: memoryview | bytes


def decode(chunks: Sequence[ColumnChunk], rows: int, *, check_pages: bool = True) -> pa.Table:
    """The chunks as a table. Raises pyarrow's ArrowException or OSError if they cannot be decoded, and, with
    `check_pages`, if the checksum of a page is wrong.
    """
    file = pa.BufferReader(build_file(chunks, rows))
    # Callers have their own threads; pyarrow's threads would only compete with them.
    return pq.ParquetFile(file, page_checksum_verification=check_pages).read(use_threads=False)


def build_file(chunks: Sequence[ColumnChunk], rows: int) -> bytes:
    """A whole Parquet file with one row group of `rows` rows and these columns, in this order."""
    footer = _footer(chunks, rows)
    return b"".join([MAGIC, *(chunk.data for chunk in chunks), footer, len(footer).to_bytes(4, "little"), MAGIC])


def _footer(chunks: Sequence[ColumnChunk], rows: int) -> bytes:
    """FileMetaData."""
    root = _struct((4, _BINARY, _binary(b"schema")), (5, _I32, _int(len(chunks))))
    elements = [root, *(_schema_element(chunk) for chunk in chunks)]
    columns, at = [], len(MAGIC)
    for chunk in chunks:
        columns.append(_column_chunk(chunk, rows, at))
        at += len(chunk.data)
    row_group = _struct((1, _LIST, _list(_STRUCT, columns)), (2, _I64, _int(at - len(MAGIC))), (3, _I64, _int(rows)))
    return _struct(
        (1, _I32, _int(2)),  # version
        (2, _LIST, _list(_STRUCT, elements)),
        (3, _I64, _int(rows)),
        (4, _LIST, _list(_STRUCT, [row_group])),
    )


def _schema_element(chunk: ColumnChunk) -> bytes:
    return _struct(
        (1, _I32, _int(_BYTE_ARRAY if chunk.is_text else _INT64)),
        (3, _I32, _int(_REQUIRED)),
        (4, _BINARY, _binary(chunk.name.encode())),
        (6, _I32, _int(_UTF8 if chunk.is_text else _UINT_64)),
    )


def _column_chunk(chunk: ColumnChunk, rows: int, offset: int) -> bytes:
    size = _int(len(chunk.data))
    meta_data = _struct(
        (1, _I32, _int(_BYTE_ARRAY if chunk.is_text else _INT64)),
        (2, _LIST, _list(_I32, [_int(_PLAIN)])),
        (3, _LIST, _list(_BINARY, [_binary(chunk.name.encode())])),
        (4, _I32, _int(_ZSTD)),
        (5, _I64, _int(rows)),
        (6, _I64, size),  # uncompressed size: unknown here; readers use it only as a hint
        (7, _I64, size),
        (9, _I64, _int(offset)),
    )
    return _struct((2, _I64, _int(offset)), (3, _STRUCT, meta_data))


def _struct(*fields: tuple[int, int, bytes]) -> bytes:
    """Fields as (number, type, encoded value), by increasing number with gaps below 16, then the stop byte."""
    parts, last = [], 0
    for number, kind, value in fields:
        parts.append(bytes([(number - last) << 4 | kind]))
        parts.append(value)
        last = number
    return b"".join(parts) + b"\0"


def _list(kind: int, values: Sequence[bytes]) -> bytes:
    head = bytes([len(values) << 4 | kind]) if len(values) < 15 else bytes([0xF0 | kind]) + _varint(len(values))
    return head + b"".join(values)


def _binary(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _int(value: int) -> bytes:
    """A zigzag varint; every number here is positive."""
    return _varint(value << 1)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
