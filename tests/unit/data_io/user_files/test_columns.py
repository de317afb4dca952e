import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.errors import ConfigError, DataError
from data_io.user_files.columns import Columns, ScoredPair, open_rows, read_scored_pairs

Texts = tuple[str, str, tuple[str, ...]]


def jsonl(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


def read(address: str, columns: Columns | None = None) -> list[Texts]:
    return [(row.query, row.positive, tuple(row.negatives)) for row in open_rows(address, columns)]


ROW: Texts = ("a question", "its answer", ("wrong", "very wrong"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"query": "q", "positive": "p"}, ("q", "p", ())),
        ({"question": "q", "answer": "p"}, ("q", "p", ())),
        ({"sentence1": "q", "sentence2": "p"}, ("q", "p", ())),
        ({"Query": "q", "Document": "p"}, ("q", "p", ())),
        ({"anchor": "q", "positive": "p", "negative": "n"}, ("q", "p", ("n",))),
        ({"anchor": "q", "positive": "p", "negative_1": "n", "negative_2": "m"}, ("q", "p", ("n", "m"))),
        ({"query": "q", "passage": "p", "negative_10": "j", "negative_9": "i"}, ("q", "p", ("i", "j"))),
        ({"query": "q", "pos": ["p"], "neg": ["n", "m"]}, ("q", "p", ("n", "m"))),
        ({"query": "q", "pos": "p", "neg": []}, ("q", "p", ())),
        ({"id": 7, "query": "q", "meta": None, "positive": "p"}, ("q", "p", ())),
    ],
)
def test_columns_are_recognized_by_their_usual_names(tmp_path: Path, record: dict[str, Any], expected: Texts) -> None:
    address = jsonl(tmp_path / "rows.jsonl", record)

    assert read(address) == [expected]


def test_a_column_that_the_user_names_has_precedence(tmp_path: Path) -> None:
    address = jsonl(tmp_path / "rows.jsonl", {"query": "no", "title": "q", "positive": "no", "body": "p", "bad": "n"})

    rows = read(address, Columns(query="title", positive="body", negatives=("bad",)))

    assert rows == [("q", "p", ("n",))]


def test_every_positive_of_a_list_makes_a_row(tmp_path: Path) -> None:
    address = jsonl(tmp_path / "rows.jsonl", {"query": "q", "pos": ["a", "b"], "neg": ["n"]})

    assert read(address) == [("q", "a", ("n",)), ("q", "b", ("n",))]


def write_jsonl(path: Path) -> None:
    jsonl(path, *({"query": q, "positive": p, "negative_1": n[0], "negative_2": n[1]} for q, p, n in [ROW, ROW]))


def write_csv(path: Path, separator: str = ",") -> None:
    header = separator.join(("query", "positive", "negative_1", "negative_2"))
    line = separator.join((ROW[0], ROW[1], *ROW[2]))
    path.write_bytes(b"\xef\xbb\xbf" + f"{header}\r\n{line}\r\n{line}\r\n".encode())


def write_parquet(path: Path) -> None:
    q, p, (n, m) = ROW
    pq.write_table(
        pa.table({"query": [q] * 2, "positive": [p] * 2, "negative_1": [n] * 2, "negative_2": [m] * 2}), path
    )


def write_list_parquet(path: Path) -> None:
    q, p, n = ROW
    pq.write_table(pa.table({"query": [q] * 2, "pos": [[p]] * 2, "neg": [list(n)] * 2}), path)


def write_gzip(path: Path) -> None:
    write_jsonl(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", write_jsonl),
        ("rows.ndjson", write_jsonl),
        ("rows.jsonl.gz", write_gzip),
        ("rows.csv", write_csv),
        ("rows.tsv", lambda path: write_csv(path, "\t")),
        ("rows.parquet", write_parquet),
        ("lists.parquet", write_list_parquet),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)

    assert read(str(tmp_path / name)) == [ROW, ROW]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=30)


@given(pairs=st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
def test_no_text_changes_on_its_way_from_json(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("texts") / "rows.jsonl"
    address = jsonl(path, *({"query": q, "positive": p} for q, p in pairs))

    assert read(address) == [(q, p, ()) for q, p in pairs]


def test_a_quoted_csv_field_keeps_its_lines_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('query,positive\n"one\n""two""",three\nfour,five\n')

    rows = list(open_rows(str(path)))

    assert [(row.query, row.positive) for row in rows] == [('one\n"two"', "three"), ("four", "five")]
    assert [row.place for row in rows] == [f"{path}, line 2", f"{path}, line 4"]


def test_a_directory_and_a_glob_are_their_files_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        jsonl(tmp_path / f"{name}.jsonl", {"query": name, "positive": "p"})
    tmp_path.joinpath("README.txt").write_text("not data")

    assert [row[0] for row in read(str(tmp_path))] == ["a", "b"]
    assert [row[0] for row in read(str(tmp_path / "*.jsonl"))] == ["a", "b"]


def test_rows_can_be_read_again(tmp_path: Path) -> None:
    rows = open_rows(jsonl(tmp_path / "rows.jsonl", {"query": "q", "positive": "p"}))

    assert list(rows) == list(rows)


def test_the_instruction_in_front_of_released_queries_becomes_the_sources(tmp_path: Path) -> None:
    path = tmp_path / "released.parquet"
    queries = [f"Instruct: Find it.\nQuery: question {i}\nwith two lines" for i in range(3)]
    columns = {f"negative_{n}": [f"n{n} of {i}" for i in range(3)] for n in range(1, 25)}
    pq.write_table(pa.table({"query": queries, "passage": ["p0", "p1", "p2"], **columns}), path)

    rows = open_rows(str(path))

    assert rows.instruction == "Find it."
    assert [row.query for row in rows] == [f"question {i}\nwith two lines" for i in range(3)]
    assert [list(row.negatives) for row in rows] == [[f"n{n} of {i}" for n in range(1, 25)] for i in range(3)]


@pytest.mark.parametrize("second", ["Instruct: Other.\nQuery: b", "b"])
def test_a_source_has_one_instruction(tmp_path: Path, second: str) -> None:
    address = jsonl(
        tmp_path / "rows.jsonl",
        {"query": "Instruct: Find it.\nQuery: a", "positive": "p"},
        {"query": second, "positive": "p"},
    )

    with pytest.raises(
        DataError, match=r"line 2: the query has .*, but the first row's has the instruction 'Find it\.'"
    ):
        read(address)


@pytest.mark.parametrize(
    "record",
    [
        {"text_a": "a", "text_b": "b", "score": 2.5},
        {"sentence1": "a", "sentence2": "b", "score": "2.5"},
        {"sentence1": "a", "sentence2": "b", "similarity_score": 2.5},
    ],
)
def test_scored_pairs_are_recognized(tmp_path: Path, record: dict[str, Any]) -> None:
    address = jsonl(tmp_path / "pairs.jsonl", record)

    assert list(read_scored_pairs(address)) == [ScoredPair("a", "b", 2.5)]


@pytest.mark.parametrize("score", [None, "high", True, "nan", "inf", [1]])
def test_a_score_is_a_finite_number(tmp_path: Path, score: object) -> None:
    address = jsonl(tmp_path / "pairs.jsonl", {"text_a": "a", "text_b": "b", "score": score})

    with pytest.raises(DataError, match=r"line 1: 'score' is .*, expected a finite number"):
        list(read_scored_pairs(address))


GOOD = b'{"query": "q", "positive": "p", "negative": "n"}\n'


def flipped(data: bytes) -> bytes:
    """The same bytes with one bit changed in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


def zstd(data: bytes) -> bytes:
    """One frame."""
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", GOOD * 2),
        ("rows.jsonl.gz", gzip.compress(GOOD) * 2),
        ("rows.jsonl.bz2", bz2.compress(GOOD) * 2),
        ("rows.jsonl.xz", lzma.compress(GOOD) * 2),
        ("rows.jsonl.zst", zstd(GOOD) * 2),
    ],
)
def test_compressed_files_are_read_to_the_end_of_their_last_frame(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    assert [row.query for row in open_rows(str(path))] == ["q", "q"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b"", r"rows.jsonl has no rows"),
        ("rows.jsonl", b"\n\n", r"rows.jsonl has no rows"),
        ("rows.csv", b"", r"rows.csv has no rows"),
        ("rows.csv", b"query,positive\n", r"rows.csv has no rows"),
        ("rows.parquet", b"", r"rows.parquet: expected Parquet .* found an empty file"),
        ("rows.parquet", b"PK\x03\x04rest", r"rows.parquet: expected Parquet .* found a zip archive"),
        ("rows.parquet", b"version https://git-lfs", r"expected Parquet .* begins with b'vers'"),
        ("rows.parquet", b"PAR1 cut short", r"rows.parquet cannot be decoded: "),
        ("rows.jsonl", b"PK\x03\x04rest", r"rows.jsonl is a zip archive, not jsonl"),
        ("rows.jsonl", b"PAR1rest", r"rows.jsonl is Parquet, not jsonl"),
        ("rows.jsonl.gz", GOOD, r"rows.jsonl.gz cannot be decoded: Not a gzipped file"),
        ("rows.jsonl.gz", gzip.compress(GOOD, mtime=0)[:-12], r"rows.jsonl.gz is truncated"),
        ("rows.jsonl.gz", flipped(gzip.compress(GOOD * 9, mtime=0)), r"rows.jsonl.gz cannot be decoded"),
        ("rows.jsonl.bz2", GOOD, r"rows.jsonl.bz2 cannot be decoded: Invalid data stream"),
        ("rows.jsonl.xz", GOOD, r"rows.jsonl.xz cannot be decoded: Input format not supported"),
        ("rows.jsonl.zst", GOOD, r"rows.jsonl.zst cannot be decoded: ZSTD decompress failed"),
        ("rows.jsonl.zst", zstd(GOOD)[:-3], r"rows.jsonl.zst is truncated"),
        ("rows.jsonl.zst", zstd(GOOD) + zstd(GOOD)[:9], r"rows.jsonl.zst is truncated"),
        ("rows.jsonl.lz4", GOOD, r"rows.jsonl.lz4: unknown suffix"),
        ("rows.jsonl", GOOD + b'{"query": "q", ', r"rows.jsonl, line 2, column \d+: not valid JSON"),
        ("rows.jsonl", b'[{"query": "q"}]', r"line 1: the file is one JSON array"),
        ("rows.jsonl", b'[\n{"query": "q"}\n]', r"line 1: the file is one JSON array"),
        ("rows.jsonl", GOOD + b'"text"\n', r"line 2: expected a JSON object, found str"),
        ("rows.jsonl", GOOD + b'{"query": "caf\xe9"}\n', r"line 2: not valid UTF-8 \(byte 15 of the line: 0xe9\)"),
        (
            "rows.csv",
            "query,positive\nq,p\n".encode("utf-16"),
            r"line 1: not valid UTF-8 \(the file seems to be UTF-16",
        ),
        ("rows.csv", b"query,positive\nq,p\nq,p,more\n", r"line 3: 3 fields; the header has 2 \(query, positive\)"),
        ("rows.csv", b"query,positive,negative, negative\nq,p,n,m\n", r"rows.csv has 2 columns called 'negative'"),
        ("rows.csv", b'query,positive\nq,"p\n', r"line 2: not valid CSV \(unexpected end of data\)"),
        ("rows.csv", b"title,body\na,b\n", r"has no query column: found title, body; expected one of query, anchor"),
        ("rows.jsonl", b'{"query": "q", "text": "p"}\n', r"has no positive column: found query, text"),
        (
            "rows.jsonl",
            GOOD + b'{"query": "q", "negative": "n"}\n',
            r"line 2: no 'positive'; the row has query, negative",
        ),
        ("rows.jsonl", GOOD + b'{"query": null, "positive": "p", "negative": "n"}\n', r"line 2: 'query' is null"),
        ("rows.jsonl", GOOD + b'{"query": 5, "positive": "p", "negative": "n"}\n', r"line 2: 'query' is int, expected"),
        ("rows.jsonl", b'{"query": "q", "pos": ["p", 5]}\n', r"line 1: 'pos' is int, expected a list of strings"),
        ("rows.jsonl", b'{"query": "q", "pos": []}\n', r"line 1: 'pos' is an empty list"),
        (
            "rows.jsonl",
            b'{"query": "q", "positive": "p", "neg": {"a": 1}}\n',
            r"line 1: 'neg' is dict, expected a string or",
        ),
        ("rows.xlsx", GOOD, r"rows.xlsx: unknown suffix; expected one of .jsonl"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        read(str(path))
    assert caught.value.remedy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file at .*/absent\.jsonl"):
        read(str(tmp_path / "absent.jsonl"))


def test_a_directory_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file at"):
        read(str(tmp_path))


def test_a_column_that_the_user_misspells_is_named(tmp_path: Path) -> None:
    address = jsonl(tmp_path / "rows.jsonl", {"title": "q", "positive": "p"})

    with pytest.raises(DataError, match="has no column 'titel'; it has title, positive"):
        read(address, Columns(query="titel"))


def test_one_column_is_not_used_twice(tmp_path: Path) -> None:
    address = jsonl(tmp_path / "rows.jsonl", {"query": "q", "positive": "p"})

    with pytest.raises(DataError, match="column 'positive' is used twice"):
        read(address, Columns(query="positive"))


def test_a_null_and_bytes_that_are_not_text_in_parquet_are_named_by_row(tmp_path: Path) -> None:
    null, broken = tmp_path / "null.parquet", tmp_path / "broken.parquet"
    pq.write_table(pa.table({"query": ["a", "b"], "positive": ["p", None]}), null)
    binary = pa.array([b"fine"] * 1500 + [b"caf\xe9"], pa.binary())
    pq.write_table(pa.table({"query": ["a"] * 1501, "positive": binary.view(pa.string())}), broken)

    with pytest.raises(DataError, match=r"null\.parquet, row 2: 'positive' is null, expected a string"):
        read(str(null))
    with pytest.raises(DataError, match=r"broken\.parquet, row 1501: not valid UTF-8"):
        read(str(broken))


def test_columns_of_one_name_are_refused_and_can_be_numbered(tmp_path: Path) -> None:
    texts = [pa.array([text]) for text in "qpnm"]
    twice, numbered = tmp_path / "twice.parquet", tmp_path / "numbered.parquet"
    pq.write_table(pa.table(texts, ["query", "positive", "negative", "negative"]), twice)
    pq.write_table(pa.table(texts, ["query", "positive", "negative_1", "negative_2"]), numbered)

    with pytest.raises(DataError, match=r"twice\.parquet has 2 columns called 'negative'") as caught:
        read(str(twice))

    assert "negative_1, negative_2" in str(caught.value.remedy)
    assert read(str(numbered)) == [("q", "p", ("n", "m"))]


def test_columns_without_a_name_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("query,positive,,\nq,p,,\n")

    assert read(str(path)) == [("q", "p", ())]


def test_files_of_a_source_agree_in_their_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": ["a"], "positive": ["p"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"query": ["a"], "answer": ["p"]}), tmp_path / "2.parquet")

    with pytest.raises(DataError, match=r"2\.parquet has no column 'positive'; it has query, answer"):
        read(str(tmp_path))


def test_an_unknown_kind_of_address_is_refused() -> None:
    with pytest.raises(DataError, match=r"ftpp://host/rows\.jsonl"):
        read("ftpp://host/rows.jsonl")


def test_an_address_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(ConfigError, match=r"the URI https://host/rows\.jsonl contains credentials") as caught:
        read("https://user:secret@host/rows.jsonl")
    assert "secret" not in str(caught.value)


def test_scored_pairs_of_the_least_score_and_above_are_rows_in_both_directions(tmp_path: Path) -> None:
    pairs = [("a", "b", 4.0), ("c", "d", 3.9), ("e", "f", "4.5")]
    address = jsonl(tmp_path / "p.jsonl", *({"sentence1": a, "sentence2": b, "score": s} for a, b, s in pairs))

    rows = list(open_rows(address, Columns(min_score=4.0)))

    assert [(row.query, row.positive, row.place[-6:]) for row in rows] == [
        ("a", "b", "line 1"),
        ("b", "a", "line 1"),
        ("e", "f", "line 3"),
        ("f", "e", "line 3"),
    ]


def test_scored_pairs_all_below_the_least_score_are_an_error_with_the_highest_score(tmp_path: Path) -> None:
    address = jsonl(tmp_path / "p.jsonl", {"sentence1": "a", "sentence2": "b", "score": 0.9})

    with pytest.raises(DataError, match=r"no pair has a score of 4 or more; the highest is 0\.9"):
        list(open_rows(address, Columns(min_score=4.0)))
