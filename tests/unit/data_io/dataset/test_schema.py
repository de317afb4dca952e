import pyarrow as pa
import pytest

from data_io.dataset.schema import column_names, columns, negative_columns, text_columns, text_hash


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


def test_texts_that_only_look_equal_have_different_hashes() -> None:
    assert text_hash("caf\u00e9") != text_hash("cafe\u0301")


def test_columns_of_every_step_come_before_the_negatives_and_none_is_nullable() -> None:
    schema = columns(2)

    assert schema.names == ["query", "positive", "query_hash", "positive_hash", "negative_1", "negative_2"]
    assert schema.types == [pa.string()] * 2 + [pa.uint64()] * 2 + [pa.string()] * 2
    assert not any(field.nullable for field in schema)
    assert column_names(2) == schema.names
    assert text_columns(2) == ["query", "positive", "negative_1", "negative_2"]
    assert negative_columns(0) == []
