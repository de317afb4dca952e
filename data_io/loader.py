"""From the plan to token ids: what one worker trains on, read and tokenised ahead of the step that needs it."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.config import HardNegatives
from data_io.manifest import SourceEntry
from data_io.plan import DataPlan, Slot, Step, slots_of_worker
from data_io.schema import negative_columns
from data_io.task import Kind, format_query
from data_io.tokenization import TextTokenizer, TokenTexts


@dataclass(frozen=True)
class MicroBatch:
    """B rows of one source. Every distinct text is held and embedded once; rows point at texts by index.

    `position` is the slot's place in its step; query_B, positive_B int64 [B] and negatives_BH int64 [B, H] index
    `texts`; the hashes, uint64 [B], are those of the stored texts.
    """

    position: int
    source: str
    kind: Kind
    texts: TokenTexts
    query_B: npt.NDArray[np.int64]
    positive_B: npt.NDArray[np.int64]
    negatives_BH: npt.NDArray[np.int64]
    query_hash_B: npt.NDArray[np.uint64]
    positive_hash_B: npt.NDArray[np.uint64]

    @property
    def rows(self) -> int:
        return len(self.query_B)


@dataclass(frozen=True)
class LoadedStep:
    """One step as one worker sees it: the whole step's slots, and this worker's own micro-batches in order."""

    step: Step
    micro_batches: tuple[MicroBatch, ...]
    wait_seconds: float


class TableReader(Protocol):
    """What the loader needs of a reader: columns of one row group, in row order."""

    def read(self, source: str, row_group: int, columns: list[str]) -> pa.Table: ...


class Loader:
    """Iterates the steps [first_step, end_step) for one worker. Reading and tokenising run in threads, never in a
    fork.
    """

    def __init__(
        self,
        plan: DataPlan,
        sources: tuple[SourceEntry, ...],
        reader: TableReader,
        tokenizer: TextTokenizer,
        *,
        hard_negatives: HardNegatives,
        first_step: int,
        end_step: int,
        rank: int,
        world_size: int,
        prefetch_steps: int = 4,
        threads: int = 2,
        cache_bytes: int = 256 * 2**20,
    ) -> None:
        """`sources` in the order of the plan's. Memory: `cache_bytes` of decoded row groups, plus the steps ahead."""
        self._plan = plan
        self._sources = sources
        self._reader = reader
        self._tokenizer = tokenizer
        self._hard_negatives = hard_negatives
        self._steps = range(first_step, end_step)
        self._rank, self._world_size = rank, world_size
        self._prefetch_steps = prefetch_steps
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        self._tables = _TableCache(cache_bytes)

    def __iter__(self) -> Iterator[LoadedStep]:
        ahead: deque[tuple[Step, list[Future[MicroBatch]]]] = deque()
        upcoming = iter(self._steps)
        while True:
            while len(ahead) <= self._prefetch_steps and (index := next(upcoming, None)) is not None:
                ahead.append(self._submit(index))
            if not ahead:
                return
            step, futures = ahead.popleft()
            start = monotonic()
            micro_batches = tuple(future.result() for future in futures)
            yield LoadedStep(step=step, micro_batches=micro_batches, wait_seconds=monotonic() - start)

    def close(self) -> None:
        """Stop the threads; what is being read is given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, index: int) -> tuple[Step, list[Future[MicroBatch]]]:
        step = self._plan.step(index)
        mine = slots_of_worker(len(step.slots), rank=self._rank, world_size=self._world_size)
        return step, [self._pool.submit(self._load, step.epoch, position, step.slots[position]) for position in mine]

    def _load(self, epoch: int, position: int, slot: Slot) -> MicroBatch:
        source = self._sources[slot.source]
        selection = self._plan.select_rows(epoch=epoch, source=slot.source, occurrence=slot.occurrence)
        queries, positives = [""] * slot.rows, [""] * slot.rows
        negatives: list[list[str]] = [[]] * slot.rows
        query_hash, positive_hash = np.empty(slot.rows, np.uint64), np.empty(slot.rows, np.uint64)
        for row_group in np.unique(selection.row_group):
            places = np.flatnonzero(selection.row_group == row_group)
            columns, table = self._table(epoch, slot.source, source, int(row_group))
            rows = table.take(selection.row[places])
            query_hash[places] = rows.column("query_hash").to_numpy()
            positive_hash[places] = rows.column("positive_hash").to_numpy()
            texts = [rows.column(name).to_pylist() for name in ("query", "positive", *columns)]
            for i, place in enumerate(places):
                queries[place] = format_query(texts[0][i], source.instruction)
                positives[place] = texts[1][i]
                negatives[place] = [column[i] for column in texts[2:]]
        index: dict[str, int] = {}
        query_B = [index.setdefault(text, len(index)) for text in queries]
        positive_B = [index.setdefault(text, len(index)) for text in positives]
        negatives_BH = [[index.setdefault(text, len(index)) for text in row] for row in negatives]
        return MicroBatch(
            position=position,
            source=source.name,
            kind=source.kind,
            texts=self._tokenizer.encode(list(index)),
            query_B=np.array(query_B, dtype=np.int64),
            positive_B=np.array(positive_B, dtype=np.int64),
            negatives_BH=np.array(negatives_BH, dtype=np.int64).reshape(slot.rows, -1),
            query_hash_B=query_hash,
            positive_hash_B=positive_hash,
        )

    def _table(self, epoch: int, number: int, source: SourceEntry, row_group: int) -> tuple[list[str], pa.Table]:
        stored = negative_columns(source.negatives)
        window = self._plan.select_negatives(
            epoch=epoch,
            source=number,
            row_group=row_group,
            stored=source.negatives,
            used=self._hard_negatives.of(source.kind),
        )
        negatives = [stored[column] for column in window]
        columns = ["query", "positive", *negatives, "query_hash", "positive_hash"]
        key = (epoch, number, row_group)
        return negatives, self._tables.get(key, lambda: self._reader.read(source.name, row_group, columns))


class _TableCache:
    """Decoded row groups, least recently used first out; two threads that want the same one share one read."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = Lock()
        self._entries: OrderedDict[tuple[int, int, int], Future[pa.Table]] = OrderedDict()

    def get(self, key: tuple[int, int, int], read: Callable[[], pa.Table]) -> pa.Table:
        with self._lock:
            entry = self._entries.get(key)
            mine = entry is None
            if entry is None:
                entry = self._entries[key] = Future()
            self._entries.move_to_end(key)
        if mine:
            try:
                entry.set_result(read())
            except BaseException as error:
                with self._lock:
                    self._entries.pop(key, None)
                entry.set_exception(error)
            self._evict()
        return entry.result()

    def _evict(self) -> None:
        with self._lock:
            done = {key: e.result().nbytes for key, e in self._entries.items() if e.done() and not e.exception()}
            total = sum(done.values())
            for key, size in done.items():
                if total <= self._limit:
                    return
                del self._entries[key]
                total -= size
