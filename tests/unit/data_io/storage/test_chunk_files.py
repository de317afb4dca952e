"""Work files of mining: a read returns the written data, or an error names the object."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.errors import DataError
from data_io.storage.chunk_files import (
    KEYS,
    Chunk,
    Mark,
    array_chunk,
    fetches,
    finished,
    key_range,
    mark_key,
    read_chunks,
    read_tables,
    table_chunks,
    write_mark,
    write_part,
)
from data_io.storage.store import Store, open_store
from ray_app.mining.inputs import DOCUMENTS


@given(count=st.integers(1, 2000))
def test_shares_of_the_keys_meet_and_cover_them_all(count: int) -> None:
    ranges = [key_range(index, count) for index in range(count)]

    assert ranges[0][0] == 0
    assert ranges[-1][1] == KEYS - 1
    assert all(before[1] + 1 == after[0] for before, after in pairwise(ranges))


@given(
    keys=st.lists(st.integers(0, KEYS - 1), min_size=1, max_size=50, unique=True),
    shares=st.integers(1, 9),
    chunk_bytes=st.integers(1, 400),
)
def test_every_row_is_read_by_the_share_of_its_key(keys: list[int], shares: int, chunk_bytes: int) -> None:
    work = open_store("memory://shares")
    keys = sorted(keys)
    table = pa.table([keys, [f"text {key}" for key in keys]], schema=DOCUMENTS)
    part = write_part(work, "a-run", table_chunks("documents", table, chunk_bytes=chunk_bytes))

    found = []
    for index in range(shares):
        first, last = key_range(index, shares)
        for read in read_tables(work, fetches([Mark(parts=(part,))], "documents", first, last)):
            found += [key for key in read.column("key").to_pylist() if first <= key <= last]

    assert found == keys


def finish_task(work: Store) -> Mark:
    chunks = [array_chunk("numbers", np.arange(10, dtype=np.uint64)), Chunk("rest", b"the rest", 1)]
    return write_mark(work, "docs/embed-00000", Mark(parts=(write_part(work, "docs/embed-00000-block", chunks),)))


def test_a_task_is_finished_once_its_mark_and_all_its_objects_are_there() -> None:
    work = open_store("memory://finished")
    mark = finish_task(work)

    assert finished(work, "") == {"docs/embed-00000": mark}

    work.put("docs/embed-00000-block", b"cut")
    assert finished(work, "") == {}


def test_a_mark_that_cannot_be_read_is_none() -> None:
    work = open_store("memory://halfmark")
    finish_task(work)

    work.put(mark_key("docs/embed-00000"), b'{"parts": [')

    assert finished(work, "") == {}


def test_chunks_are_read_by_name_alone() -> None:
    work = open_store("memory://names")
    mark = finish_task(work)

    (numbers,) = read_chunks(work, fetches([mark], "numbers"))

    assert np.frombuffer(numbers, dtype="<u8").tolist() == list(range(10))


def test_a_flipped_bit_is_found_and_named_with_what_to_do() -> None:
    work = open_store("memory://flipped")
    mark = finish_task(work)
    data = bytearray(work.get("docs/embed-00000-block"))
    data[3] ^= 1
    work.put("docs/embed-00000-block", bytes(data))

    with pytest.raises(DataError, match="docs/embed-00000-block, a work file of mining, is damaged") as caught:
        list(read_chunks(work, fetches([mark], "numbers")))

    assert "run the same command again" in str(caught.value.remedy)
