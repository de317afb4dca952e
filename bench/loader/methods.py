"""Six ways to read the same rows, each an endless iterator of micro-batches. A micro-batch has nine columns (query,
positive and seven of 24 hard negatives) of 32 Python strings, of one source if the loader supports that.

Imports and the start of a runtime are not timed; everything else is. This module imports only the standard library,
because mosaicml-streaming runs in an environment without this project.

No peer needs to shuffle, because the rows are stored shuffled. A peer always uses the same seven negative columns if
drawing columns would prevent column projection.
"""

import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any

MICRO_BATCH, USED, STORED = 32, 7, 24
DECODING_THREADS, REQUESTS_IN_FLIGHT = 2, 16
FIRST_COLUMNS = ["query", "positive", *(f"negative_{i}" for i in range(1, USED + 1))]
ALL_COLUMNS = ["query", "positive", *(f"negative_{i}" for i in range(1, STORED + 1))]

MicroBatches = Iterator[Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Place:
    """The location of the rows: `folder` has the objects as plain files; `endpoint` is None for local reads."""

    folder: str
    bucket: str
    endpoint: str | None
    scratch: str
    """An empty directory for this measurement only."""
    shards: dict[str, list[str]]
    """Keys of each source's Parquet files, below data/."""

    def paths(self, scheme: str = "s3://") -> dict[str, list[str]]:
        """Each source's Parquet files as paths or as URIs in the bucket."""
        root = f"{self.folder}/data" if self.endpoint is None else f"{scheme}{self.bucket}/data"
        return {source: [f"{root}/{key}" for key in keys] for source, keys in self.shards.items()}


@dataclass(frozen=True)
class Method:
    open: Callable[[Place], MicroBatches]
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    """Packages whose versions the page shows."""
    start: Callable[[], None] | None = None
    """Starts a runtime that would already run in a training job."""

    def prepare(self) -> None:
        """The part that is not timed."""
        for name in self.modules:
            import_module(name)
        if self.start is not None:
            self.start()


# --- this project ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Texts:
    """Replaces the token ids: tokenizing is off, and the texts themselves are returned."""

    texts: list[str]
    lengths: Any
    """A 1 for each text, because the loader sums token counts."""


class _NoTokenizer:
    def encode(self, texts: Sequence[str]) -> Any:
        import numpy as np

        return _Texts(list(texts), np.ones(len(texts), dtype=np.int64))


def open_loader(place: Place) -> Any:
    """This project's loader as in training, without the tokenizer. The only function that calls its constructors."""
    from data_io.data_spec import HardNegatives, S3Options
    from data_io.dataset.manifest import load_manifest
    from data_io.dataset.reader import Reader
    from data_io.loading.loader import Loader
    from data_io.loading.order import DataOrder, SourceRows
    from data_io.storage.store import open_store

    if place.endpoint is None:
        store = open_store(f"{place.folder}/data")
    else:
        store = open_store(f"s3://{place.bucket}/data", S3Options(endpoint_url=place.endpoint, allow_http=True))
    manifest = load_manifest(store)
    rows = [SourceRows(entry.name, manifest.row_groups(entry.name).rows) for entry in manifest.sources]
    tokenizer: Any = _NoTokenizer()
    return Loader(
        DataOrder(rows, micro_batch_size=MICRO_BATCH, micro_batches_per_step=16, seed=0),
        manifest.sources,
        Reader(store, manifest),
        tokenizer,
        hard_negatives=HardNegatives(retrieval=USED),
        first_step=0,
        end_step=10**9,
        rank=0,
        world_size=1,
        prefetch_steps=4,
        threads=DECODING_THREADS,
    )


def _ours(place: Place) -> MicroBatches:
    import numpy as np

    for step in open_loader(place):
        for batch in step.micro_batches:
            texts = np.array(batch.texts.texts, dtype=object)
            for part in batch.parts:
                yield [texts[index].tolist() for index in (part.query_B, part.positive_B, *part.negatives_BH.T)]


# --- the limit: obstore and pyarrow alone ---------------------------------------------------------------------------


def _raw(place: Place) -> MicroBatches:
    """No plan, no checks, no retries: projected row groups in random order, rows in random order within each."""
    import pyarrow.parquet as pq

    paths = list(chain.from_iterable(place.paths("").values()))
    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as fetching, ThreadPoolExecutor(DECODING_THREADS) as decoding:
        if place.endpoint is None:
            footers = [pq.read_metadata(path) for path in paths]
            fetch: Callable[..., Any] = _no_fetch
        else:
            store = _obstore(place)
            keys = [path.removeprefix(f"{place.bucket}/") for path in paths]
            footers = list(fetching.map(lambda key: _footer(store, key), keys))
            fetch, paths = _fetch_from(store), keys
        draw = random.Random(0)
        ahead: deque[Future[Any]] = deque()
        for path, footer, group, columns in _row_groups(paths, footers, draw):
            fetched = fetching.submit(fetch, path, footer, group, columns)
            ahead.append(decoding.submit(_decode, path, footer, group, columns, fetched))
            if len(ahead) < (REQUESTS_IN_FLIGHT if place.endpoint else 2 * DECODING_THREADS):
                continue
            table = ahead.popleft().result()
            order = draw.sample(range(table.num_rows), table.num_rows)
            for first in range(0, len(order), MICRO_BATCH):
                rows = table.take(order[first : first + MICRO_BATCH])
                yield [column.to_pylist() for column in rows.columns]


def _row_groups(paths: list[str], footers: list[Any], draw: random.Random) -> Iterator[tuple[str, Any, int, list[str]]]:
    while True:
        groups = [(i, group) for i, footer in enumerate(footers) for group in range(footer.num_row_groups)]
        draw.shuffle(groups)
        for i, group in groups:
            first = draw.randrange(STORED)
            window = [f"negative_{(first + k) % STORED + 1}" for k in range(USED)]
            yield paths[i], footers[i], group, ["query", "positive", *window]


def _decode(path: str, footer: Any, group: int, columns: list[str], fetched: Future[Any]) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = fetched.result()
    source = pa.memory_map(path) if data is None else pa.BufferReader(data)
    return pq.ParquetFile(source, metadata=footer).read_row_group(group, columns=columns, use_threads=False)


def _no_fetch(path: str, footer: Any, group: int, columns: list[str]) -> None:
    """Local files are memory-mapped."""


def _fetch_from(store: Any) -> Callable[..., Any]:
    import numpy as np
    import obstore

    def fetch(path: str, footer: Any, group: int, columns: list[str]) -> Any:
        described = footer.row_group(group)
        chunks = [described.column(i) for i in range(described.num_columns)]
        wanted = [chunk for chunk in chunks if chunk.path_in_schema in columns]
        starts = [chunk.data_page_offset for chunk in wanted]
        ends = [chunk.data_page_offset + chunk.total_compressed_size for chunk in wanted]
        parts = obstore.get_ranges(store, path, starts=starts, ends=ends, coalesce=64 * 1024)
        # As large as the file up to that point, but only pages that are written use memory.
        whole = np.zeros(ends[-1], np.uint8)
        for start, end, part in zip(starts, ends, parts, strict=True):
            whole[start:end] = np.frombuffer(memoryview(part), np.uint8)
        return whole

    return fetch


def _footer(store: Any, key: str) -> Any:
    import obstore
    import pyarrow as pa
    import pyarrow.parquet as pq

    tail = obstore.get(store, key, options={"range": {"suffix": 256 * 1024}}).bytes()
    return pq.read_metadata(pa.BufferReader(bytes(tail)))


def _obstore(place: Place) -> Any:
    from obstore.store import S3Store

    return S3Store(place.bucket, endpoint=place.endpoint, client_options={"allow_http": True})


# --- peers ----------------------------------------------------------------------------------------------------------


def _hf(place: Place) -> MicroBatches:
    """One stream per source, batched before they are mixed, so that a micro-batch has one source."""
    import pyarrow as pa
    import pyarrow.dataset
    from datasets import disable_progress_bars, interleave_datasets, load_dataset

    disable_progress_bars()
    options: dict[str, Any] = {}
    if place.endpoint is not None:
        # The larger range and the prefetch are the documented settings for streaming. Without them s3fs would read
        # megabytes after every requested column chunk.
        cache = pa.CacheOptions(prefetch_limit=1, range_size_limit=128 << 20)
        options["fragment_scan_options"] = pa.dataset.ParquetFragmentScanOptions(cache_options=cache)
        options["storage_options"] = {
            "client_kwargs": {"endpoint_url": place.endpoint},
            "default_cache_type": "none",
        }
    sources = [
        load_dataset(
            "parquet",
            data_files={"train": paths},
            split="train",
            streaming=True,
            columns=FIRST_COLUMNS,
            cache_dir=place.scratch,
            **options,
        ).batch(MICRO_BATCH)
        for paths in place.paths().values()
    ]
    mixed = interleave_datasets(sources, probabilities=[0.6, 0.3, 0.1], seed=0, stopping_strategy="all_exhausted")
    while True:
        for batch in mixed:
            yield [batch[name] for name in FIRST_COLUMNS]


def _start_ray() -> None:
    import ray
    import ray.data

    ray.init(num_cpus=DECODING_THREADS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _ray(place: Place) -> MicroBatches:
    """One Dataset of all sources: three Datasets, one per source, starve each other on few CPUs."""
    import pyarrow.fs
    import ray.data

    filesystem = None
    if place.endpoint is not None:
        filesystem = pyarrow.fs.S3FileSystem(
            access_key=os.environ["AWS_ACCESS_KEY_ID"],
            secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=place.endpoint.removeprefix("http://"),
            scheme="http",
            region=os.environ["AWS_REGION"],
        )
    paths = list(chain.from_iterable(place.paths("").values()))
    rows = ray.data.read_parquet(paths, filesystem=filesystem).select_columns(FIRST_COLUMNS)
    while True:
        for batch in rows.iter_batches(batch_size=MICRO_BATCH, batch_format="pyarrow", prefetch_batches=16):
            yield [batch.column(name).to_pylist() for name in FIRST_COLUMNS]


def _released(place: Place) -> MicroBatches:
    """All sources in memory, one shuffled DataLoader per source, next source drawn by size, negatives drawn in collate.

    The Parquet files are read into memory; the released code also writes them to its own cache first.
    """
    import pyarrow as pa
    import pyarrow.fs
    import pyarrow.parquet as pq
    from datasets import Dataset
    from torch.utils.data import DataLoader

    filesystem = None
    if place.endpoint is not None:
        filesystem = pyarrow.fs.S3FileSystem(
            endpoint_override=place.endpoint.removeprefix("http://"), scheme="http", region=os.environ["AWS_REGION"]
        )
    loaders = []
    for paths in place.paths("").values():
        table = pa.concat_tables([pq.read_table(p, columns=ALL_COLUMNS, filesystem=filesystem) for p in paths])
        loaders.append(DataLoader(Dataset(table), batch_size=MICRO_BATCH, shuffle=True, collate_fn=_collate))
    draw = random.Random(0)
    weights = [len(loader) for loader in loaders]
    running: list[Iterator[list[list[str]]]] = [iter(loader) for loader in loaders]
    while True:
        chosen = draw.choices(range(len(loaders)), weights)[0]
        try:
            yield next(running[chosen])
        except StopIteration:
            running[chosen] = iter(loaders[chosen])


def _collate(rows: list[dict[str, str]]) -> list[list[str]]:
    drawn = [f"negative_{i}" for i in random.sample(range(1, STORED + 1), USED)]
    return [[row[name] for row in rows] for name in ("query", "positive", *drawn)]


def _mosaic(place: Place) -> MicroBatches:
    from streaming import Stream, StreamingDataset

    streams = []
    for source in place.shards:
        if place.endpoint is None:
            streams.append(Stream(local=f"{place.folder}/mds/{source}"))
        else:
            remote = f"s3://{place.bucket}/mds/{source}"
            streams.append(Stream(remote=remote, local=f"{place.scratch}/{source}"))
    dataset = StreamingDataset(
        streams=streams, batch_size=MICRO_BATCH, batching_method="device_per_stream", shuffle=False
    )
    while True:
        samples = iter(dataset)
        while rows := list(islice(samples, MICRO_BATCH)):
            yield _collate(rows)


# pyarrow imports pandas at the first conversion of a list, if it is installed. A trainer has imported it by then.
_ARROW = ("numpy", "pandas", "pyarrow.parquet")
METHODS = {
    "ours": Method(_ours, (*_ARROW, "data_io.loading.loader", "data_io.dataset.reader"), ("obstore", "pyarrow")),
    "raw": Method(_raw, (*_ARROW, "obstore.store"), ("obstore", "pyarrow")),
    "hf": Method(_hf, (*_ARROW, "pyarrow.dataset", "datasets", "s3fs"), ("datasets", "s3fs")),
    "ray": Method(_ray, (*_ARROW, "pyarrow.fs", "ray.data"), ("ray",), start=_start_ray),
    "mosaic": Method(_mosaic, ("streaming",), ("mosaicml-streaming",)),
    "released": Method(_released, (*_ARROW, "pyarrow.fs", "datasets", "torch.utils.data"), ("datasets", "torch")),
}


def convert_to_mds(place: Place, out: Path) -> None:
    """The same rows in the layout of mosaicml-streaming: one directory per source, uncompressed shards."""
    import pyarrow.parquet as pq
    from streaming import MDSWriter

    for source, paths in place.paths().items():
        with MDSWriter(out=str(out / source), columns=dict.fromkeys(ALL_COLUMNS, "str")) as writer:
            for path in paths:
                for batch in pq.ParquetFile(path).iter_batches(batch_size=1024, columns=ALL_COLUMNS):
                    for row in batch.to_pylist():
                        writer.write(row)
