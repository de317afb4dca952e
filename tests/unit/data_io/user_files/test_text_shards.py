"""Shards of a user's texts: together they are the file's rows, once each and in order, for any division."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.errors import DataError
from data_io.storage.store import MOST_BYTES, open_store
from data_io.user_files.records import find_files
from data_io.user_files.text_shards import TextInput, common_schema, describe_input, plan_shards, read_shard

ALL = TextInput("text", ("id", "text"))


def rows_of(path: Path, shard_rows: int, wanted: TextInput = ALL) -> list[dict[str, object]]:
    (file,) = find_files(str(path))
    copies = open_store("memory://copies")
    shards = plan_shards(file, shard_rows, copies=copies)
    tables = [read_shard(shard, wanted, copies=copies) for shard in shards]
    assert [shard.first_row for shard in shards] == [sum(s.rows for s in shards[:n]) for n in range(len(shards))]
    assert all(table.num_rows <= shard_rows for table in tables)
    return [row for table in tables for row in table.to_pylist()]


@given(count=st.integers(1, 40), group=st.integers(1, 12), shard_rows=st.integers(1, 15))
def test_parquet_is_divided_by_rows_independent_of_its_row_groups(
    tmp_path_factory: pytest.TempPathFactory, count: int, group: int, shard_rows: int
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "texts.parquet"
    pq.write_table(
        pa.table({"id": range(count), "text": [f"text {i}" for i in range(count)]}), path, row_group_size=group
    )

    assert rows_of(path, shard_rows) == [{"id": i, "text": f"text {i}"} for i in range(count)]


@given(
    texts=st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=("Cs",)), max_size=5)), min_size=1),
    blanks=st.integers(0, 3),
    shard_rows=st.integers(1, 7),
    compressed=st.booleans(),
    ends=st.booleans(),
)
def test_json_lines_are_divided_by_lines_that_are_not_blank(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str | None],
    blanks: int,
    shard_rows: int,
    compressed: bool,
    ends: bool,
) -> None:
    lines = [json.dumps({"id": n, "text": text}) + "\n" * (1 + (n % 3) * blanks) for n, text in enumerate(texts)]
    content = ("\n" * blanks + "".join(lines)).encode()
    content = content if ends else content.rstrip(b"\n")
    path = tmp_path_factory.mktemp("lines") / ("texts.jsonl.gz" if compressed else "texts.jsonl")
    path.write_bytes(gzip.compress(content) if compressed else content)

    assert rows_of(path, shard_rows) == [{"id": str(n), "text": text} for n, text in enumerate(texts)]


def test_a_compressed_file_is_read_once_for_all_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(7))))
    (file,), copies = find_files(str(path)), open_store("memory://copies")
    shards = plan_shards(file, 3, copies=copies)
    path.unlink()

    tables = [read_shard(shard, TextInput("text", ("text",)), copies=copies) for shard in shards]

    assert [text for table in tables for text in table.column("text").to_pylist()] == [str(n) for n in range(7)]


def test_a_shard_of_a_compressed_file_can_be_larger_than_a_file_of_settings(tmp_path: Path) -> None:
    path, long = tmp_path / "a.jsonl.gz", "x" * MOST_BYTES
    path.write_bytes(gzip.compress(b'{"text": "%s"}\n' % long.encode()))
    (file,), copies = find_files(str(path)), open_store("memory://copies")
    (shard,) = plan_shards(file, 3, copies=copies)

    table = read_shard(shard, TextInput("text", ("text",)), copies=copies)

    assert table.column("text").to_pylist() == [long]


def test_compressed_files_whose_names_differ_in_case_only_are_two(tmp_path: Path) -> None:
    copies = open_store("memory://copies")
    for name in ("Part-A", "part-a"):
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(b'{"text": "%s"}\n' % name.encode()))
    shards = [shard for file in find_files(str(tmp_path)) for shard in plan_shards(file, 3, copies=copies)]

    tables = [read_shard(shard, TextInput("text", ("text",)), copies=copies) for shard in shards]

    assert [table.column("text").to_pylist() for table in tables] == [["Part-A"], ["part-a"]]


def test_fields_that_are_not_text_are_kept_as_json_and_missing_ones_as_null(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "tags": ["é", 1]}\n{"text": "y", "more": 1}\n')
    files = find_files(str(tmp_path / "a.jsonl"))

    wanted = describe_input(files, text=None, keep=None)

    assert wanted == TextInput("text", ("text", "tags"))
    assert rows_of(tmp_path / "a.jsonl", 9, wanted) == [{"text": "x", "tags": '["é", 1]'}, {"text": "y", "tags": None}]


def test_columns_to_keep_stay_in_the_files_order_and_the_text_is_always_among_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": [1], "body": ["x"], "a": [2], "b": [3]}), tmp_path / "a.parquet")
    files = find_files(str(tmp_path / "a.parquet"))

    assert describe_input(files, text=None, keep=("b", "c")).columns == ("c", "body", "b")
    assert describe_input(files, text="body", keep=None).columns == ("c", "body", "a", "b")


def test_a_column_has_a_type_that_holds_the_values_of_all_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"], "year": [1999], "tag": pa.nulls(1)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"tag": ["t", None], "year": [None, 1.5], "text": ["y", "z"]}), tmp_path / "b.parquet")

    found = common_schema(find_files(str(tmp_path)), ("text", "year", "tag"))

    assert found == pa.schema([("text", pa.string()), ("year", pa.float64()), ("tag", pa.string())])


def test_files_whose_columns_have_nothing_in_common_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"], "year": [1999]}), tmp_path / "a.parquet")
    (tmp_path / "b.jsonl").write_text('{"text": "y", "year": 2001}\n')
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "c.parquet")
    first, lines, last = find_files(str(tmp_path))

    with pytest.raises(DataError, match=r"b\.jsonl: column 'year' is string, but int64 in the earlier files"):
        common_schema([first, lines], ("text", "year"))
    with pytest.raises(DataError, match=r"c\.parquet has no column 'year', which the first file has"):
        common_schema([first, last], ("text", "year"))


@pytest.mark.parametrize(
    ("name", "content", "text", "keep", "message"),
    [
        ("a.csv", b"text\nx\n", None, None, "a.csv is csv; expected Parquet or JSON lines"),
        ("a.jsonl", b'{"x": "1", "y": "2"}\n', None, None, "has no text column: found x, y"),
        ("a.jsonl", b'{"text": "1"}\n', "body", None, "has no column 'body'; it has text"),
        ("a.jsonl", b'{"text": "1"}\n', None, ("id",), "has no column 'id'; it has text"),
    ],
)
def test_an_input_that_cannot_be_embedded_is_refused(
    tmp_path: Path, name: str, content: bytes, text: str | None, keep: tuple[str, ...] | None, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        describe_input(find_files(str(tmp_path / name)), text=text, keep=keep)


def test_if_no_text_column_is_recognized_the_hint_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "qa.jsonl").write_text('{"question": "x", "answer": "y"}\n')

    with pytest.raises(DataError) as raised:
        describe_input(find_files(str(tmp_path)), text=None, keep=None)

    assert raised.value.remedy == "name the column with --column"


def test_a_field_that_is_not_text_is_named_with_its_line_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n\n{"text": "y"}\n{"text": 3}\n')

    with pytest.raises(DataError, match=r"a\.jsonl, line 4: 'text' is int, expected a string"):
        rows_of(tmp_path / "a.jsonl", 2, TextInput("text", ("text",)))


def test_a_column_of_numbers_is_not_a_text_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "text": [2]}), tmp_path / "a.parquet")

    with pytest.raises(DataError, match="column 'text' is int64, expected strings"):
        rows_of(tmp_path / "a.parquet", 2)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_file_that_became_shorter_is_an_error_and_not_fewer_rows(tmp_path: Path, name: str) -> None:
    def write(count: int) -> None:
        table = pa.table({"id": range(count), "text": ["x"] * count})
        if name == "a.parquet":
            pq.write_table(table, tmp_path / name)
        else:
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))

    write(9)
    (file,) = find_files(str(tmp_path / name))
    copies = open_store("memory://copies")
    shards = plan_shards(file, 5, copies=copies)
    write(7)

    with pytest.raises(DataError, match="2 of the 4 rows it had from row 6 on"):
        read_shard(shards[1], ALL, copies=copies)


def test_the_remedy_for_a_column_to_keep_uses_the_words_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "1"}\n')
    files = find_files(str(tmp_path / "a.jsonl"))

    with pytest.raises(DataError) as of_embed:
        describe_input(files, text=None, keep=("id",))
    with pytest.raises(DataError) as of_classify:
        describe_input(files, text=None, keep=("label",), keep_remedy="name it with --label")
    with pytest.raises(DataError) as of_either:
        describe_input(files, text="body", keep=("label",), keep_remedy="name it with --label")

    assert of_embed.value.remedy == "correct the name in --keep"
    assert of_classify.value.remedy == "name it with --label"
    assert of_either.value.remedy == "correct the name in --column"
