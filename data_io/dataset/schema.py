"""The columns of a source's shards, and the hashes that compare texts: exactly, or ignoring case and white space."""

import pyarrow as pa
import xxhash

HASH_COLUMNS = ("query_hash", "positive_hash")


def text_hash(text: str) -> int:
    """64-bit hash (XXH3) of a text's UTF-8 bytes exactly as stored: no instruction, no normalization.

    Raises UnicodeEncodeError for a lone surrogate.
    """
    return xxhash.xxh3_64_intdigest(text.encode())


def text_key(text: str) -> int:
    """64-bit key of a text. Texts that differ only in case and white space have equal keys."""
    return xxhash.xxh3_64_intdigest(" ".join(text.casefold().split()).encode("utf-8", "surrogatepass"))


def negative_columns(negatives: int) -> list[str]:
    """Names of the hard-negative columns: negative_1 .. negative_n."""
    return [f"negative_{i}" for i in range(1, negatives + 1)]


def text_columns(negatives: int) -> list[str]:
    """Names of the string columns, in the order of a row's texts."""
    return ["query", "positive", *negative_columns(negatives)]


def column_names(negatives: int) -> list[str]:
    """Names of all columns in stored order. A step reads the first four and a range of the others: two pieces of a row
    group, so two requests.
    """
    return ["query", "positive", *HASH_COLUMNS, *negative_columns(negatives)]


def columns(negatives: int) -> pa.Schema:
    """All columns of a shard in stored order: strings, and the hashes of query and positive. Not nullable."""
    return pa.schema(
        pa.field(name, pa.uint64() if name in HASH_COLUMNS else pa.string(), nullable=False)
        for name in column_names(negatives)
    )
