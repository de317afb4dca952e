"""The loader gives each worker exactly its slots, with the texts of the plan, independent of other readers."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from weakref import WeakSet

import numpy as np
import pyarrow as pa
import pytest

from data_io.data_spec import HardNegatives
from data_io.dataset.manifest import Manifest, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.schema import text_hash
from data_io.dataset.tokenizer import TextTokenizer
from data_io.errors import DataError
from data_io.loading.loader import READ_AHEAD, LoadedStep, Loader, MicroBatch
from data_io.loading.order import DataOrder, SourceRows
from data_io.loading.row_group_cache import RowGroup, row_group_of
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from tests.support.small_training import write_small_dataset

NEGATIVES = HardNegatives(retrieval=3, clustering=2, classification=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("data")))
    write_small_dataset(store)
    return store


@pytest.fixture(scope="module")
def manifest(store: Store) -> Manifest:
    return load_manifest(store)


@pytest.fixture(scope="module")
def tokenizer(store: Store) -> TextTokenizer:
    content = store.get("tokenizer/tokenizer.json").decode()
    return TextTokenizer(content, eos_token="<|endoftext|>", max_tokens=200)


@pytest.fixture(params=["independent", "mixed"])
def plan(manifest: Manifest, request: pytest.FixtureRequest) -> DataOrder:
    return DataOrder(
        [SourceRows(source.name, manifest.row_groups(source.name).rows) for source in manifest.sources],
        micro_batch_size=8,
        micro_batches_per_step=4,
        seed=3,
        step_source=request.param,
    )


class _CountingReader:
    parallel_reads = 4

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._reader = Reader(store, manifest)
        self._lock = Lock()
        self.reads: list[tuple[str, int]] = []

    def read(self, source: str, row_group: int, columns: list[str]) -> pa.Table:
        with self._lock:
            self.reads.append((source, row_group))
        return self._reader.read(source, row_group, columns)


def _load(
    plan: DataOrder,
    manifest: Manifest,
    reader: _CountingReader,
    tokenizer: TextTokenizer,
    steps: range,
    *,
    rank: int = 0,
    world_size: int = 1,
    cache_bytes: int = 2**28,
    threads: int = 2,
    keep_strings: bool = False,
    token_deletion: float = 0.0,
) -> list[LoadedStep]:
    loader = Loader(
        plan,
        manifest.sources,
        reader,
        tokenizer,
        hard_negatives=NEGATIVES,
        first_step=steps.start,
        end_step=steps.stop,
        rank=rank,
        world_size=world_size,
        cache_bytes=cache_bytes,
        threads=threads,
        keep_strings=keep_strings,
        token_deletion=token_deletion,
    )
    try:
        return list(loader)
    finally:
        loader.close()


def _texts(batch: MicroBatch, tokenizer: TextTokenizer) -> list[str]:
    ends = np.cumsum(batch.texts.lengths)
    ids = [batch.texts.ids[end - n : end - 1].tolist() for end, n in zip(ends, batch.texts.lengths, strict=True)]
    return tokenizer._tokenizer.decode_batch(ids)


def _hashes(batch: MicroBatch) -> list[int]:
    return [int(h) for part in batch.parts for h in part.query_hash_B]


def _micro_batches(steps: list[LoadedStep]) -> Iterator[tuple[int, MicroBatch]]:
    return ((loaded.step.index, batch) for loaded in steps for batch in loaded.micro_batches)


def test_an_epoch_holds_every_stored_row_once(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    steps = _load(plan, manifest, _CountingReader(store, manifest), tokenizer, range(plan.steps_per_epoch))

    seen = sorted(h for _, batch in _micro_batches(steps) for h in _hashes(batch))
    reader = Reader(store, manifest)
    stored = sorted(
        int(h)
        for source in manifest.sources
        for group in range(len(manifest.row_groups(source.name)))
        for h in reader.read(source.name, group, ["query_hash"]).column(0).to_numpy()
    )
    assert seen == stored


def test_texts_are_kept_as_tokenized_on_request(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    reader = _CountingReader(store, manifest)

    kept, not_kept = (_load(plan, manifest, reader, tokenizer, range(2), keep_strings=keep) for keep in (True, False))

    for _, batch in _micro_batches(kept):
        again = tokenizer.encode(batch.strings)
        np.testing.assert_array_equal(again.ids, batch.texts.ids)
        np.testing.assert_array_equal(again.lengths, batch.texts.lengths)
    assert all(batch.strings == () for _, batch in _micro_batches(not_kept))


def test_with_token_deletion_each_epoch_loses_other_tokens_and_all_workers_the_same(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    reader, steps = _CountingReader(store, manifest), range(2 * plan.steps_per_epoch)

    whole = _load(plan, manifest, reader, tokenizer, steps)
    alone = _load(plan, manifest, reader, tokenizer, steps, token_deletion=0.3)
    shared = [
        _load(plan, manifest, reader, tokenizer, steps, rank=rank, world_size=2, token_deletion=0.3) for rank in (0, 1)
    ]

    def ids(loaded: list[LoadedStep]) -> dict[tuple[int, int], list[int]]:
        return {(index, batch.position): batch.texts.ids.tolist() for index, batch in _micro_batches(loaded)}

    assert ids(alone) == ids(shared[0]) | ids(shared[1])
    tokens = [sum(map(len, ids(loaded).values())) for loaded in (alone, whole)]
    assert 0.65 < tokens[0] / tokens[1] < 0.85
    assert all(
        sum(part.tokens for part in batch.parts) == len(batch.texts.ids) == batch.texts.lengths.sum()
        for _, batch in _micro_batches(alone)
    )


def test_texts_belong_together_as_they_were_stored(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    steps = _load(plan, manifest, _CountingReader(store, manifest), tokenizer, range(plan.steps_per_epoch))

    for _, batch in _micro_batches(steps):
        texts = _texts(batch, tokenizer)
        assert len(set(texts)) == len(texts)
        assert sum(part.tokens for part in batch.parts) == len(batch.texts.ids)
        for part in batch.parts:
            source = manifest.source(part.source)
            assert part.kind is source.kind
            assert part.negatives_BH.shape == (part.rows, NEGATIVES.of(part.kind))
            for row in range(part.rows):
                query = texts[part.query_B[row]].removeprefix(f"Instruct: {source.instruction}\nQuery: ")
                assert text_hash(query) == part.query_hash_B[row]
                assert text_hash(texts[part.positive_B[row]]) == part.positive_hash_B[row]
                assert part.positive_B[row] not in part.negatives_BH[row]


def test_a_micro_batch_has_the_parts_of_its_slot(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    steps = _load(plan, manifest, _CountingReader(store, manifest), tokenizer, range(plan.steps_per_epoch))

    for loaded in steps:
        for batch in loaded.micro_batches:
            planned = loaded.step.slots[batch.position].parts
            assert [(part.source, part.rows) for part in batch.parts] == [
                (manifest.sources[part.source].name, part.rows) for part in planned
            ]


def test_labels_are_embedded_once_per_micro_batch(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    steps = _load(plan, manifest, _CountingReader(store, manifest), tokenizer, range(plan.steps_per_epoch))

    parts = [part for _, batch in _micro_batches(steps) for part in batch.parts if part.kind is Kind.CLASSIFICATION]
    assert parts
    for part in parts:
        texts = np.unique(np.concatenate([part.query_B, part.positive_B, part.negatives_BH.ravel()]))
        assert len(texts) == part.rows + 2


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_all_workers_together_get_the_same_as_one_worker(
    world_size: int, plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    reader = _CountingReader(store, manifest)
    alone = _load(plan, manifest, reader, tokenizer, range(2, 8))

    shares = [
        _load(plan, manifest, reader, tokenizer, range(2, 8), rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]

    for index, loaded in enumerate(alone):
        together = sorted(
            (batch for share in shares for batch in share[index].micro_batches), key=lambda batch: batch.position
        )
        assert [batch.position for batch in together] == list(range(len(loaded.step.slots)))
        for mine, theirs in zip(loaded.micro_batches, together, strict=True):
            assert _hashes(mine) == _hashes(theirs)
            assert np.array_equal(mine.texts.ids, theirs.texts.ids)


def test_a_start_in_the_middle_loads_what_a_start_from_the_beginning_would(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    reader = _CountingReader(store, manifest)
    whole = _load(plan, manifest, reader, tokenizer, range(2 * plan.steps_per_epoch))

    late = _load(plan, manifest, reader, tokenizer, range(4, 2 * plan.steps_per_epoch))

    assert [_hashes(batch) for _, batch in _micro_batches(late)] == [
        _hashes(batch) for index, batch in _micro_batches(whole) if index >= 4
    ]


def test_one_worker_reads_each_row_group_once_per_epoch(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    reader = _CountingReader(store, manifest)

    _load(plan, manifest, reader, tokenizer, range(plan.steps_per_epoch))

    assert (
        len(reader.reads) == len(set(reader.reads)) == sum(len(manifest.row_groups(s.name)) for s in manifest.sources)
    )


def test_row_groups_whose_rows_were_all_used_are_released(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: WeakSet[RowGroup] = WeakSet()
    most = []

    def remembered(table: pa.Table, instruction: str) -> RowGroup:
        most.append(len(alive))
        alive.add(row_group := row_group_of(table, instruction))
        return row_group

    monkeypatch.setattr("data_io.loading.loader.row_group_of", remembered)

    epochs = 8
    _load(plan, manifest, _CountingReader(store, manifest), tokenizer, range(epochs * plan.steps_per_epoch), threads=2)

    row_groups = sum(len(manifest.row_groups(source.name)) for source in manifest.sources)
    assert len(most) == epochs * row_groups
    slots = [slot for step in range(plan.steps_per_epoch) for slot in plan.step(step).slots]
    at_hand = max(sum(len(plan.select_rows(epoch=0, part=part)) for part in slot.parts) for slot in slots)
    # Row groups that were never used (the last one of each source), and those that three threads are using.
    assert max(most) <= READ_AHEAD + len(manifest.sources) + (2 + 1) * at_hand < len(most)


def test_a_full_cache_costs_reads_and_changes_nothing(
    plan: DataOrder, manifest: Manifest, store: Store, tokenizer: TextTokenizer
) -> None:
    small, large = _CountingReader(store, manifest), _CountingReader(store, manifest)

    with_little = _load(plan, manifest, small, tokenizer, range(plan.steps_per_epoch), cache_bytes=1)
    with_much = _load(plan, manifest, large, tokenizer, range(plan.steps_per_epoch))

    assert len(small.reads) > len(large.reads)
    assert [_hashes(b) for _, b in _micro_batches(with_little)] == [_hashes(b) for _, b in _micro_batches(with_much)]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("cache_bytes", [1, 2**28])  # with 1 the rest of the step is not even requested
def test_a_damaged_shard_stops_the_step_that_needs_it(
    tmp_path: Path, tokenizer: TextTokenizer, plan: DataOrder, cache_bytes: int
) -> None:
    store = open_store(str(tmp_path))
    manifest = write_small_dataset(store)
    shard = tmp_path / manifest.shards("answers")[0].key
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(bytes(content))

    with pytest.raises(DataError, match="answers"):
        _load(
            plan,
            manifest,
            _CountingReader(store, manifest),
            tokenizer,
            range(plan.steps_per_epoch),
            cache_bytes=cache_bytes,
        )
