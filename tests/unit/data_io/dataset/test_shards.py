"""Shards that an interrupted preparation has already written."""

import numpy as np
import pyarrow as pa

from data_io.dataset.schema import columns
from data_io.dataset.shards import ShardSize, find_shard, write_shards
from data_io.storage.store import MOST_BYTES, open_store


def test_a_written_shard_is_found_whatever_its_size() -> None:
    store, letters = open_store("memory://shards"), np.random.default_rng(0).integers(97, 123, 2 * MOST_BYTES)
    text = letters.astype(np.uint8).tobytes().decode()  # compression leaves more than half of it
    table = pa.table([[text], ["a"], [1], [2], ["b"]], schema=columns(1))
    (written,) = write_shards(store, "source", [table], ShardSize())

    found = find_shard(store, written.shard, 0)

    assert written.shard.size > MOST_BYTES
    assert found is not None
    assert found.shard == written.shard
