"""A source whose rows have different numbers of negatives keeps them for mining, and trains on none until then."""

import json
from pathlib import Path

import pytest

from data_io.data_spec import HardNegatives
from data_io.dataset.manifest import SourceInfo
from data_io.dataset.reader import Reader
from data_io.dataset.rows import Row
from data_io.dataset.tokenizer import read_tokenizer
from data_io.dataset.writer import write_dataset
from data_io.errors import DataError
from data_io.inspection.statistics import dataset_statistics
from data_io.inspection.verify import verify_dataset
from data_io.loading.loader import Loader
from data_io.loading.order import DataOrder, SourceRows
from data_io.preparation.public import prepare_recipe
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from ray_app.mining.inputs import source_rows
from tests.support.small_training import write_small_dataset

INFO = SourceInfo(name="entailed", kind=Kind.RETRIEVAL, negatives=4, unmined=True)
ROWS = [Row(f"query {i}", f"positive {i}", [f"negative {k} of {i}" for k in range(i % 7)]) for i in range(60)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "data"))


@pytest.mark.parametrize("memory_bytes", [2**30, 2000])
def test_every_row_keeps_its_own_negatives_up_to_the_sources_number(store: Store, memory_bytes: int) -> None:
    manifest = write_dataset(store, [(INFO, ROWS)], rows_per_group=16, memory_bytes=memory_bytes)

    stored = source_rows(store, "entailed", 0, len(manifest.row_groups("entailed")))

    assert {row.query: set(row.negatives) for row in stored} == {row.query: set(row.negatives[:4]) for row in ROWS}
    assert verify_dataset(store).ok


def test_training_uses_none_of_them(store: Store) -> None:
    write_small_dataset(store)
    tokenizer = read_tokenizer(store)
    assert tokenizer is not None
    manifest = write_dataset(store, [(INFO, ROWS)], rows_per_group=16)
    groups = [SourceRows("entailed", manifest.row_groups("entailed").rows)]
    plan = DataOrder(groups, micro_batch_size=8, micro_batches_per_step=2, seed=0)

    loader = Loader(
        plan,
        manifest.sources,
        Reader(store, manifest),
        tokenizer.for_texts(64),
        hard_negatives=HardNegatives(retrieval=3),
        first_step=0,
        end_step=plan.steps_per_epoch,
        rank=0,
        world_size=1,
    )
    batches = [batch for loaded in loader for batch in loaded.micro_batches]
    loader.close()

    assert [part.negatives_BH.shape for batch in batches for part in batch.parts] == [
        (batch.rows, 0) for batch in batches
    ]
    assert sum(batch.rows for batch in batches) == len(ROWS)
    assert all(batch.texts.lengths.min() > 1 for batch in batches), "a missing negative is not a text"


def test_statistics_count_only_existing_negatives(store: Store) -> None:
    manifest = write_dataset(store, [(INFO, ROWS)])

    (found,) = dataset_statistics(store, manifest).sources

    assert found.unmined
    assert found.characters["negative"].mean == pytest.approx(
        sum(len(text) for row in ROWS for text in row.negatives[:4]) / sum(len(row.negatives[:4]) for row in ROWS),
        abs=0.05,
    )


def test_any_other_source_refuses_a_row_with_too_few_negatives(store: Store) -> None:
    mined = INFO.model_copy(update={"unmined": False})

    with pytest.raises(DataError, match="0 hard negatives, but the source needs 4"):
        write_dataset(store, [(mined, ROWS)])


def test_neutral_and_contradicting_hypotheses_reach_the_data_set(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "copies" / "snli" / "train.jsonl"
    file.parent.mkdir(parents=True)
    records = [("A man sleeps.", "He rests.", 0), ("A man sleeps.", "He runs.", 2), ("A man sleeps.", "He dreams.", 1)]
    records += [("A dog barks.", "It is loud.", 0)]
    file.write_text(
        "".join(json.dumps(dict(zip(("premise", "hypothesis", "label"), r, strict=True))) + "\n" for r in records)
    )

    manifest = prepare_recipe(store, ["snli"], folder=str(tmp_path / "copies"))

    assert (manifest.source("snli").negatives, manifest.source("snli").unmined) == (24, True)
    rows = {row.query: set(row.negatives) for row in source_rows(store, "snli", 0, 1)}
    assert rows == {"A man sleeps.": {"He runs.", "He dreams."}, "A dog barks.": set()}
