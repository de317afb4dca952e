import pyarrow as pa
import pytest

from data_io.dataset import parquet_footer, rows
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet
from data_io.dataset.manifest import SourceInfo, load_manifest
from data_io.dataset.parquet_footer import ColumnChunk
from data_io.dataset.schema import column_names
from data_io.dataset.writer import Row, write_dataset
from data_io.inspection import verify
from data_io.inspection.verify import verify_dataset
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from tests.support.datasets import example_rows


def flip(store: Store, key: str, at: int) -> None:
    data = bytearray(store.get(key))
    data[at] ^= 0x20
    store.put(key, bytes(data))


def test_an_undamaged_data_set_has_no_problems_and_is_counted(dataset: Store) -> None:
    manifest = load_manifest(dataset)
    steps: list[tuple[int, int]] = []

    report = verify_dataset(dataset, progress=lambda done, total: steps.append((done, total)))

    assert report.ok
    assert report.problems == ()
    assert (report.version, report.sources, report.evaluations) == (manifest.version, 2, 2)
    assert (report.shards, report.row_groups, report.rows) == (4 + 1, 10 + 2, 150 + 21)
    size = sum(shard.size for source in manifest.sources for shard in manifest.shards(source.name))
    assert report.bytes == size
    assert steps == sorted(steps)
    assert steps[-1] == (size, size)


def test_any_flipped_byte_of_any_shard_is_reported(dataset: Store) -> None:
    manifest = load_manifest(dataset)
    shard = manifest.shards("questions")[3]
    whole = dataset.get(shard.key)

    for at in range(0, shard.size, 23):
        dataset.put(shard.key, whole)
        flip(dataset, shard.key, at)
        problems = verify_dataset(dataset).problems
        assert problems, f"byte {at} of {shard.size}"
        assert all(shard.key in problem.place for problem in problems)


def test_all_problems_are_reported_and_each_has_its_place(dataset: Store) -> None:
    manifest = load_manifest(dataset)
    missing, damaged, short, longer = manifest.shards("questions")
    groups, last_column = manifest.row_groups("questions"), column_names(manifest.source("questions").negatives)[-1]
    dataset.delete([missing.key])
    flip(dataset, damaged.key, int(groups.offset[3]) + 5)
    flip(dataset, damaged.key, int(groups.offset[5] + groups.chunk_bytes[5].sum()) - 1)
    dataset.put(short.key, dataset.get(short.key)[: short.size // 2])
    dataset.put(longer.key, dataset.get(longer.key) + b"more")
    flip(dataset, manifest.shards("labels")[0].key, -6)
    flip(dataset, manifest.evaluation("pairs").files["pairs"].key, 60)

    problems = [str(problem) for problem in verify_dataset(dataset).problems]

    for expected in (
        f"shard {missing.key}: is missing",
        f"shard {damaged.key}, row group 3: the checksum of column query differs",
        f"shard {damaged.key}, row group 5: the checksum of column {last_column} differs",
        f"shard {short.key}: is {short.size // 2} bytes long, expected {short.size}",
        f"shard {longer.key}: is {longer.size + 4} bytes long, expected {longer.size}",
        "its checksum differs from the manifest's, but all column chunks are correct",
        "evaluation set 'pairs'",
    ):
        assert sum(expected in problem for problem in problems) == 1, (expected, problems)
    assert len(problems) == 7


def test_a_data_set_without_a_manifest_is_one_problem(dataset: Store) -> None:
    dataset.delete(["manifest.json"])

    report = verify_dataset(dataset)

    assert report.version is None
    assert [problem.place for problem in report.problems] == [dataset.uri]
    assert "manifest.json is missing" in report.problems[0].message


@pytest.mark.parametrize("text", ["a held-out query", "a held-out document", "one of a pair"])
@pytest.mark.parametrize("column", ["query", "positive"])
def test_a_text_of_an_evaluation_set_in_the_training_data_is_reported(text: str, column: str) -> None:
    store = open_store("memory://overlap")
    leaked = Row(text, "an answer", ["n"]) if column == "query" else Row("a question", text, ["n"])
    evaluations: list[RetrievalSet | StsSet] = [
        RetrievalSet("search", "", ["d"], ["a held-out document"], ["q"], ["a held-out query"], {"q": {"d": 1.0}}),
        StsSet("pairs", "", ["one of a pair"], ["the other"], [1.0]),
    ]
    info = SourceInfo(name="leaky", kind=Kind.RETRIEVAL, negatives=1)
    write_dataset(store, [(info, [leaked, *example_rows(30, negatives=1)])], evaluations)

    (problem,) = verify_dataset(store).problems

    assert problem.place == "source 'leaky'"
    name = "pairs" if "pair" in text else "search"
    assert problem.message == f"1 of the queries and positives are also texts of evaluation set '{name}'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([Row(" " * n, "p", ["n"]) for n in (1, 2, 3)], "row 0: query is blank, and in 2 more rows"),
        (
            [Row(f"q{n}", "p", ["p"]) for n in (1, 2, 3)],
            "row 0: negative_1 equals the positive, and in 2 more rows",
        ),
    ],
)
def test_invalid_rows_of_another_writer_are_reported(
    given: list[Row], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "check_row", lambda row, negatives, place: 0)
    store = open_store("memory://careless")
    info = SourceInfo(name="careless", kind=Kind.RETRIEVAL, negatives=1)
    write_dataset(store, [(info, given)])

    (problem,) = verify_dataset(store).problems

    assert str(problem).endswith(message)
    assert "source 'careless', shard sources/careless/00000-" in problem.place


def test_bytes_that_are_not_text_are_reported(dataset: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(chunks: list[ColumnChunk], rows: int) -> pa.Table:
        table = parquet_footer.decode(chunks, rows)
        offsets = pa.array(range(rows + 1), pa.int32()).buffers()[1]
        broken = pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(b"\xff" * rows))
        return table.set_column(0, table.schema.field(0), broken)

    monkeypatch.setattr(verify, "decode", decode)

    report = verify_dataset(dataset)

    assert len(report.problems) == report.row_groups
    assert "row group 0: cannot be decoded" in str(report.problems[0])
    assert "UTF8" in str(report.problems[0])


def test_hashes_of_other_texts_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "text_hash", lambda text: next(numbers))
    numbers = iter(range(100))  # rows with equal hashes would count as one
    store = open_store("memory://hashes")
    info = SourceInfo(name="hashed", kind=Kind.RETRIEVAL, negatives=1)
    write_dataset(store, [(info, example_rows(3, negatives=1))])

    problems = [problem.message for problem in verify_dataset(store).problems]

    assert problems == [
        "query_hash is not the hash of the query, and in 2 more rows",
        "positive_hash is not the hash of the positive, and in 2 more rows",
    ]
