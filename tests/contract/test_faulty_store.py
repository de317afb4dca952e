"""A store with faults: every example arrives once and unchanged, or the step that needs it raises an error."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data_io.data_spec import HardNegatives, S3Options
from data_io.dataset.manifest import Manifest, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.tokenizer import TextTokenizer
from data_io.errors import DataError, StoreAccessError
from data_io.loading.loader import Loader
from data_io.loading.order import DataOrder, SourceRows
from data_io.storage.node_cache import NodeCache
from data_io.storage.ranged_reads import HEDGE_CAP, HEDGE_EARN
from data_io.storage.store import Store, open_store
from tests.support.faulty_store import Faults, FaultyStore, run_faulty_store
from tests.support.s3_server import S3Server
from tests.support.small_training import write_small_dataset

Content = list[tuple[int, int, str, list[int], list[int], list[int], list[int]]]
NEVER = 3600.0

FAULTS = {
    "503 in bursts": Faults(busy=0.2, busy_burst=3),
    "cut bodies": Faults(cut=0.2),
    "stalled bodies": Faults(stalled=0.1),
    "flipped bits": Faults(flipped=0.2),
    "late answers": Faults(slow=0.1, slow_seconds=NEVER),
    "all together": Faults(busy=0.1, busy_burst=3, cut=0.1, stalled=0.05, flipped=0.05, slow=0.05, slow_seconds=NEVER),
}
"""Far more faults than a real store has, because the data set needs few requests. Manifest and tokenizer have none:
they are read once, at the start, by a store that retries by itself."""


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    monkeypatch.setattr("data_io.storage.store.READ_SECONDS", 0.5)
    with run_faulty_store(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def store(s3: S3Server, proxy: FaultyStore) -> Store:
    """A small data set on the server, read through the proxy."""
    uri = f"{s3.uri}/{uuid.uuid4().hex}"
    write_small_dataset(open_store(uri, s3.options), scale=4)
    return open_store(uri, S3Options(endpoint_url=proxy.endpoint, region="us-east-1", allow_http=True))


def direct(store: Store, s3: S3Server) -> Store:
    """The same without the proxy."""
    return open_store(store.uri, s3.options)


def read_epoch(
    store: Store,
    *,
    reader: Reader | None = None,
    before_step: Callable[[int], None] = lambda _: None,
    epochs: int = 1,
) -> Content:
    """Every micro-batch that a worker gets: step, position, source, and the content of its rows."""
    manifest = load_manifest(store)
    plan = plan_of(manifest)
    content = store.get("tokenizer/tokenizer.json").decode()
    tokenizer = TextTokenizer(content, eos_token="<|endoftext|>", max_tokens=200)
    reader = reader or Reader(store, manifest)
    loader = Loader(
        plan,
        manifest.sources,
        reader,
        tokenizer,
        hard_negatives=HardNegatives(retrieval=3, clustering=2, classification=1),
        first_step=0,
        end_step=epochs * plan.steps_per_epoch,
        rank=0,
        world_size=1,
        prefetch_steps=1,
        cache_bytes=1,  # so that row groups are requested repeatedly, and each step after the previous one
    )
    seen: Content = []
    try:
        for index, loaded in enumerate(loader):
            before_step(index + 1)
            for batch in loaded.micro_batches:
                (part,) = batch.parts
                numbers = (part.query_hash_B, part.positive_hash_B, batch.texts.ids, part.negatives_BH.ravel())
                seen.append((loaded.step.index, batch.position, part.source, *(n.tolist() for n in numbers)))
    finally:
        reader.close()
        loader.close()
    return seen


def plan_of(manifest: Manifest) -> DataOrder:
    return DataOrder(
        [SourceRows(source.name, manifest.row_groups(source.name).rows) for source in manifest.sources],
        micro_batch_size=8,
        micro_batches_per_step=4,
        seed=3,
    )


@pytest.mark.parametrize("faults", list(FAULTS.values()), ids=list(FAULTS))
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_the_store_does_every_example_arrives_once_and_unchanged(
    s3: S3Server, store: Store, proxy: FaultyStore, faults: Faults, seed: int
) -> None:
    expected = read_epoch(direct(store, s3))
    manifest = load_manifest(store)
    reader = Reader(store, manifest)
    proxy.faults = replace(faults, seed=seed, only="/sources/")

    seen = read_epoch(store, reader=reader)

    assert seen == expected
    hashes = sorted(h for _, _, source, queries, *_ in seen for h in queries)
    assert len(hashes) == len(set(hashes)) == sum(source.rows for source in manifest.sources)
    assert sum(proxy.counts().get(name, 0) for name in ("busy", "cut", "stalled", "flipped", "slow")) > 0


def test_repeated_requests_are_counted_by_the_source_that_needed_them(store: Store, proxy: FaultyStore) -> None:
    manifest = load_manifest(store)
    reader, before = Reader(store, manifest), proxy.counts()["gets"]
    proxy.faults = Faults(seed=5, only="/sources/", busy=0.2, busy_burst=2)

    read_epoch(store, reader=reader)

    counts, stats = proxy.counts(), reader.stats_by_source()
    assert set(stats) == {source.name for source in manifest.sources}
    assert sum(s.retries for s in stats.values()) > 0
    # Manifest and tokenizer are read by the store, which retries by itself.
    assert 0 <= counts["gets"] - before - reader.stats.requests <= 3 + counts["busy"]


def test_a_permanently_flipped_bit_fails_the_step_and_is_located(s3: S3Server, store: Store) -> None:
    manifest = load_manifest(store)
    shard = manifest.shards("answers")[0]
    content = bytearray(store.get(shard.key))
    content[int(manifest.row_groups("answers").offset[1]) + 40] ^= 1
    direct(store, s3).put(shard.key, bytes(content))

    with pytest.raises(
        DataError,
        match=rf"source 'answers', row group 1 \(rows \d+ to \d+\): shard {shard.key}.*checksum of column query",
    ):
        read_epoch(store)


def test_an_object_overwritten_during_a_read_fails_the_step_and_is_never_mixed(s3: S3Server, store: Store) -> None:
    manifest = load_manifest(store)
    shards = [shard.key for shard in manifest.shards("answers")]
    # Same length and same column chunks: only the footer differs, and it is not read.
    others = {key: store.get(key)[:-1] + b"?" for key in shards}

    def overwrite(step: int) -> None:
        if step == 2:
            for key, content in others.items():
                direct(store, s3).put(key, content)

    with pytest.raises(DataError, match=r"source 'answers', row group \d+ .* overwritten during the read"):
        read_epoch(store, before_step=overwrite)


def test_credentials_that_expire_are_read_again_from_the_environment(
    s3: S3Server, store: Store, proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_epoch(direct(store, s3))

    def expire(step: int) -> None:
        if step == 2:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.other_access_key)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.other_secret_key)
            proxy.faults = Faults(expired_key=s3.access_key)

    seen = read_epoch(store, before_step=expire)

    assert seen == expected
    assert proxy.counts()["expired"] > 0


def test_credentials_that_stay_expired_fail_the_step_without_the_secret(
    s3: S3Server, store: Store, proxy: FaultyStore
) -> None:
    def expire(step: int) -> None:
        proxy.faults = Faults(expired_key=s3.access_key)

    with pytest.raises(StoreAccessError, match="ExpiredToken") as caught:
        read_epoch(store, before_step=expire)

    assert s3.secret_key not in str(caught.value)


def test_slow_requests_are_hedged_within_the_budget(
    s3: S3Server, store: Store, proxy: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_io.storage.store.READ_SECONDS", NEVER)  # no read times out
    monkeypatch.setattr("data_io.storage.ranged_reads._UNKNOWN_SECONDS", 0.2)
    expected = read_epoch(direct(store, s3))
    reader, before = Reader(store, load_manifest(store)), proxy.counts()["gets"]
    proxy.faults = Faults(seed=4, only="/sources/", slow=0.1, slow_seconds=10)

    seen = read_epoch(store, reader=reader)

    stats = reader.stats
    assert seen == expected
    assert 0 < stats.hedges_won <= stats.hedges <= HEDGE_CAP + HEDGE_EARN * stats.requests
    assert stats.retries == 0
    assert proxy.counts()["gets"] - before <= stats.requests + 3  # manifest and tokenizer


def test_a_second_run_on_the_same_machine_reads_from_its_disk(store: Store, proxy: FaultyStore, tmp_path: Path) -> None:
    manifest = load_manifest(store)
    readers = [Reader(store, manifest, cache=NodeCache(tmp_path / "cache", 2**24)) for _ in range(2)]
    first = read_epoch(store, reader=readers[0])
    proxy.faults = Faults(busy=0.3)

    second = read_epoch(store, reader=readers[1])

    assert second == first
    assert readers[0].stats.requests > 0
    assert readers[1].stats.requests == 0


@pytest.mark.parametrize("damage", ["cut", "flipped", "removed", "a file in its place"])
def test_a_damaged_cache_causes_requests_but_no_changes(store: Store, tmp_path: Path, damage: str) -> None:
    manifest, folder = load_manifest(store), tmp_path / "cache"
    expected = read_epoch(store, reader=Reader(store, manifest, cache=NodeCache(folder, 2**24)))
    for entry in folder.rglob("*.entry"):
        content = bytearray(entry.read_bytes())
        if damage == "cut":
            entry.write_bytes(content[: len(content) // 2])
        elif damage == "flipped":
            content[len(content) // 2] ^= 1
            entry.write_bytes(content)
        else:
            entry.unlink()
    if damage == "a file in its place":
        for child in folder.iterdir():
            child.rmdir()
        folder.rmdir()
        folder.write_text("not a directory")
    reader = Reader(store, manifest, cache=NodeCache(folder, 2**24))

    seen = read_epoch(store, reader=reader)

    assert seen == expected
    assert reader.stats.requests > 0
