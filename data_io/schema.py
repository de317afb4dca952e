"""The columns of a source's shards, and the hash by which texts are compared."""

import pyarrow as pa
import xxhash

HASH_COLUMNS = ("query_hash", "positive_hash")


def text_hash(text: str) -> int:
    """64-bit hash (XXH3) of a text's UTF-8 bytes exactly as stored: no instruction, no normalisation.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    return xxhash.xxh3_64_intdigest(text.encode())


def negative_columns(negatives: int) -> list[str]:
    """Names of the hard-negative columns: negative_1 .. negative_n."""
    return [f"negative_{i}" for i in range(1, negatives + 1)]


def text_columns(negatives: int) -> list[str]:
    """Names of the string columns, in the order in which they are stored."""
    return ["query", "positive", *negative_columns(negatives)]


def columns(negatives: int) -> pa.Schema:
    """Every column of a shard in stored order: strings, then the hashes of query and positive. None may be null."""
    texts = [pa.field(name, pa.string(), nullable=False) for name in text_columns(negatives)]
    hashes = [pa.field(name, pa.uint64(), nullable=False) for name in HASH_COLUMNS]
    return pa.schema(texts + hashes)
