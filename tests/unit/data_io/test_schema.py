import pyarrow as pa
import pytest

from data_io.schema import columns, negative_columns, text_columns, text_hash


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0x2D06800538D394C2),
        ("a", 0xE6C632B61E964E1F),
        ("What is a panda?", 0x5630AFA73F3D6777),
        ("żółw 🐼", 0x3999DFF48AA0F8F5),
    ],
)
def test_the_hash_of_a_text_never_changes(text: str, expected: int) -> None:
    # Stored in data sets: another value would make every data set written before look damaged.
    assert text_hash(text) == expected


def test_texts_that_only_look_alike_have_other_hashes() -> None:
    assert text_hash("caf\u00e9") != text_hash("cafe\u0301")


def test_columns_are_texts_in_order_then_hashes_and_none_may_be_null() -> None:
    schema = columns(2)

    assert schema.names == ["query", "positive", "negative_1", "negative_2", "query_hash", "positive_hash"]
    assert schema.types == [pa.string()] * 4 + [pa.uint64()] * 2
    assert not any(field.nullable for field in schema)
    assert text_columns(2) == schema.names[:4]
    assert negative_columns(0) == []
