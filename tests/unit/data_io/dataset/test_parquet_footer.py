"""pyarrow reads the footer written here like its own."""

import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.parquet_footer import ColumnChunk, build_file, decode
from data_io.dataset.schema import columns
from data_io.dataset.writer import Row, write_source
from data_io.storage.store import open_store
from data_io.task import Kind

texts = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=5), st.integers(1, 50_000)),
).filter(lambda text: bool(text.strip()) and text.encode("utf-8", "ignore").decode() == text)


def chunks_of(data: bytes, row_group: int, names: list[str]) -> list[ColumnChunk]:
    """Column chunks of a Parquet file, located by its own footer."""
    group = pq.read_metadata(pa.BufferReader(data)).row_group(row_group)
    found = {group.column(c).path_in_schema: group.column(c) for c in range(group.num_columns)}
    return [
        ColumnChunk(
            name,
            not name.endswith("_hash"),
            data[found[name].data_page_offset :][: found[name].total_compressed_size],
        )
        for name in names
    ]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_columns_of_any_row_group_are_what_pyarrow_reads_from_the_file(data: st.DataObject) -> None:
    negatives = data.draw(st.integers(0, 18), label="negatives")
    rows = [
        Row(f"{query} {i}", f"{text} +", [f"{text} -"] * negatives)
        for i, (query, text) in enumerate(data.draw(st.lists(st.tuples(texts, texts), min_size=1, max_size=12)))
    ]
    rows_per_group = data.draw(st.integers(1, 12), label="rows_per_group")
    names = data.draw(st.lists(st.sampled_from(columns(negatives).names), min_size=1, unique=True), label="columns")
    store = open_store("memory://footer")

    info = SourceInfo(name="a", kind=Kind.RETRIEVAL, negatives=negatives)
    (shard,) = write_source(store, info, rows, rows_per_group=rows_per_group, groups_per_shard=12).shards
    file = store.get(shard.key)

    theirs = pq.ParquetFile(pa.BufferReader(file))
    for g in range(theirs.num_row_groups):
        expected = theirs.read_row_group(g, columns=names).select(names)
        assert decode(chunks_of(file, g, names), expected.num_rows) == expected


def test_a_chunk_of_many_pages_is_read_whole() -> None:
    text = "".join(chr(0x4E00 + i % 9000) for i in range(60_000))
    store = open_store("memory://pages")
    info = SourceInfo(name="a", kind=Kind.RETRIEVAL, negatives=0)
    written = write_source(store, info, [Row(f"q{i}", f"{i}{text}") for i in range(256)])

    data = store.get(written.shards[0].key)
    (chunk,) = chunks_of(data, 0, ["positive"])

    assert (
        decode([chunk], 256).column("positive").to_pylist()
        == pq.read_table(pa.BufferReader(data)).column("positive").to_pylist()
    )
    assert sum(len(value.as_py().encode()) for value in decode([chunk], 256).column("positive")) > 40 * 2**20


def test_a_page_whose_checksum_is_wrong_is_refused() -> None:
    store = open_store("memory://bad-page")
    info = SourceInfo(name="a", kind=Kind.RETRIEVAL, negatives=0)
    written = write_source(store, info, [Row(f"q{i}", f"p{i}") for i in range(256)])
    (chunk,) = chunks_of(store.get(written.shards[0].key), 0, ["query"])

    for at in range(0, len(chunk.data), 41):
        flipped = bytearray(chunk.data)
        flipped[at] ^= 0x10
        assert zlib.crc32(flipped) != zlib.crc32(chunk.data)
        # A page header carries no checksum of its own; the manifest's CRC of the whole chunk covers it.
        if at > 64:
            with pytest.raises((pa.ArrowException, OSError)):
                decode([ColumnChunk("query", True, bytes(flipped))], 256)


def test_the_file_is_framed_as_parquet_files_are() -> None:
    file = build_file([ColumnChunk("query", True, b"")], 0)

    assert file.startswith(b"PAR1")
    assert file.endswith(b"PAR1")
    metadata = pq.read_metadata(pa.BufferReader(file))
    assert (metadata.num_rows, metadata.num_columns, metadata.num_row_groups) == (0, 1, 1)
