import json
from pathlib import Path

import pytest

from data_io.curation.tokenizer_training import EOS_TOKEN, train_tokenizer
from data_io.dataset.evaluation_sets import StsSet
from data_io.dataset.manifest import Manifest, SourceInfo, load_manifest
from data_io.dataset.tokenizer import TextTokenizer
from data_io.dataset.writer import Row, write_dataset
from data_io.errors import DataError
from data_io.inspection.statistics import LengthStatistics, dataset_statistics
from data_io.storage.store import Store, open_store
from data_io.task import Kind


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "data"))


def write(store: Store, rows: list[Row], *, negatives: int = 1, rows_per_group: int = 4) -> Manifest:
    info = SourceInfo(
        name="facts", kind=Kind.RETRIEVAL, negatives=negatives, instruction="Find it.", license="MIT", origin="by hand"
    )
    pairs = StsSet("pairs", "", ["a"], ["b"], [1.0], license="CC0-1.0")
    return write_dataset(store, [(info, rows)], [pairs], rows_per_group=rows_per_group)


def test_lengths_are_in_characters_not_in_bytes(store: Store) -> None:
    manifest = write(store, [Row("é" * n, "b" * 2 * n, ("c" * 3 * n,)) for n in range(1, 11)])

    (source,) = dataset_statistics(store, manifest).sources

    assert source.characters == {
        "query": LengthStatistics(mean=5.5, p50=5.5, p90=9.1, max=10),
        "positive": LengthStatistics(mean=11.0, p50=11.0, p90=18.2, max=20),
        "negative": LengthStatistics(mean=16.5, p50=16.5, p90=27.3, max=30),
    }
    assert source.tokens == {}


def test_lengths_in_tokens_are_those_of_training(store: Store) -> None:
    files = train_tokenizer(["nothing is merged"], vocabulary_size=257)
    tokenizer = TextTokenizer(files.tokenizer_json, eos_token=EOS_TOKEN, max_tokens=30)
    manifest = write(store, [Row("abc", "d" * 100, ("ef",))])

    (source,) = dataset_statistics(store, manifest, tokenizer=tokenizer).sources

    prefixed = len("Instruct: Find it.\nQuery: abc") + 1
    assert {role: lengths.max for role, lengths in source.tokens.items()} == {
        "query": prefixed, "positive": 30, "negative": 3
    }  # fmt: skip


def test_repeated_texts_are_counted(store: Store) -> None:
    rows = [Row("q", "p", ("n",)), Row("q", "p", ("m",)), Row("q", "other", ("n",)), Row("r", "p", ("n",))]

    (source,) = dataset_statistics(store, write(store, rows)).sources

    assert (source.repeated_queries, source.repeated_positives, source.repeated_pairs) == (1, 1, 0)


def test_a_source_without_negatives_has_no_lengths_for_them(store: Store) -> None:
    (source,) = dataset_statistics(store, write(store, [Row("q", "p")], negatives=0)).sources

    assert set(source.characters) == {"query", "positive"}


def test_an_unmined_source_whose_rows_have_no_negatives_has_no_lengths_for_them(store: Store) -> None:
    info = SourceInfo(name="entailed", kind=Kind.RETRIEVAL, negatives=2, unmined=True)

    (source,) = dataset_statistics(store, write_dataset(store, [(info, [Row("q", "p")])])).sources

    assert set(source.characters) == {"query", "positive"}


def test_a_limited_number_of_row_groups_is_read_evenly_from_the_source(store: Store) -> None:
    manifest = write(store, [Row(f"question {i}", f"answer {i}", ("no",)) for i in range(40)])

    sample, whole = (dataset_statistics(store, manifest, row_groups_per_source=limit).sources[0] for limit in (3, None))

    assert (sample.rows, sample.rows_read) == (40, 12)
    assert (whole.rows, whole.rows_read) == (40, 40)


def test_all_statistics_are_written_as_json(store: Store) -> None:
    manifest = write(store, [Row("q", "p", ("n",))])

    statistics = dataset_statistics(store, manifest)

    read = json.loads(json.dumps(statistics.to_dict()))
    assert read["version"] == manifest.version
    assert read["rows"] == 1
    assert read["bytes"] > 0
    assert read["licenses"] == ["CC0-1.0", "MIT"]
    assert read["sources"][0]["origin"] == "by hand"
    assert read["sources"][0]["characters"]["query"] == {"mean": 1.0, "p50": 1.0, "p90": 1.0, "max": 1}
    assert read["evaluations"][0]["pairs"] == 1


def test_damaged_data_give_no_statistics(store: Store) -> None:
    manifest = write(store, [Row("q", "p", ("n",))])
    key = manifest.shards("facts")[0].key
    data = store.get(key)
    store.put(key, data[:30] + bytes([data[30] ^ 255]) + data[31:])

    with pytest.raises(DataError, match="facts"):
        dataset_statistics(store, load_manifest(store))
