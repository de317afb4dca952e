"""From the plan to token ids: what one worker trains on, read and tokenised ahead of the step that needs it.

Two sets of threads, so that neither waits for the other: some read row groups, a bounded number and size ahead, in the
order in which they are needed; others turn rows of row groups that are there into micro-batches, at most
`prefetch_steps` steps ahead. The threads that tokenise never wait for a store.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from time import monotonic
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.config import HardNegatives
from data_io.manifest import SourceEntry
from data_io.plan import DataPlan, Slot, Step, slots_of_worker
from data_io.row_groups import Key, RowGroup, RowGroupCache, row_group_of
from data_io.schema import negative_columns
from data_io.task import Kind
from data_io.tokenization import TextTokenizer, TokenTexts


@dataclass(frozen=True)
class MicroBatch:
    """B rows of one source. Every distinct text is held and embedded once; rows point at texts by index.

    `strings` are the texts themselves, where the loader was asked to keep them.

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
    strings: tuple[str, ...] = ()

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
    """What the loader needs of a reader: columns of one row group, in row order, and how many threads to ask from."""

    @property
    def parallel_reads(self) -> int: ...

    def read(self, source: str, row_group: int, columns: list[str]) -> pa.Table: ...


READ_AHEAD = 16
"""Row groups that are read, or wait to be used for the first time, at once."""


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
        keep_strings: bool = False,
    ) -> None:
        """`sources` in the order of the plan's. Memory: `cache_bytes` of decoded row groups, plus the steps ahead.
        A row group that is larger than that is read all the same, alone.
        """
        self._plan = plan
        self._sources = sources
        self._reader = reader
        self._tokenizer = tokenizer
        self._hard_negatives = hard_negatives
        self._unplanned = iter(range(first_step, end_step))
        self._rank, self._world_size = rank, world_size
        self._prefetch_steps = prefetch_steps
        self._keep_strings = keep_strings
        self._tokenising = ThreadPoolExecutor(threads, thread_name_prefix="tokenise")
        self._reading = ThreadPoolExecutor(reader.parallel_reads, thread_name_prefix="read")
        self._row_groups = RowGroupCache(self._reading, cache_bytes, ahead=READ_AHEAD)
        self._lock = Lock()
        # All of what follows is guarded by it.
        self._ahead: deque[tuple[Step, list[_Work]]] = deque()
        self._unread: deque[_Work] = deque()
        self._open: dict[int, Key] = {}
        self._last_to_build = first_step + prefetch_steps
        self._closed = False

    def __iter__(self) -> Iterator[LoadedStep]:
        while True:
            self._advance()
            with self._lock:
                if not self._ahead:
                    return
                step, mine = self._ahead.popleft()
            start = monotonic()
            # All together: this thread wakes once a step, not once a micro-batch, or where one has failed.
            done, _ = wait([work.micro_batch for work in mine], return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            micro_batches = tuple(work.micro_batch.result() for work in mine)
            waited = monotonic() - start
            self._may_build_until(step.index + 1 + self._prefetch_steps)
            yield LoadedStep(step=step, micro_batches=micro_batches, wait_seconds=waited)

    def close(self) -> None:
        """Stop the threads; what is being read is given up."""
        with self._lock:
            self._closed = True
        for pool in (self._reading, self._tokenising):
            pool.shutdown(wait=True, cancel_futures=True)

    def _advance(self) -> None:
        """Plan steps and ask for row groups, in order, as far as there is room for them."""
        while True:
            with self._lock:
                if self._closed or not (self._unread or self._plan_next()):
                    return
                work = self._unread[0] if self._unread else None
                if work is None:
                    continue  # a step without a slot for this worker
                if not self._row_groups.may_pin(work.keys):
                    return
                self._unread.popleft()
                reads = [self._pin(work, key) for key in work.keys]
                self._finish_before(work)
            for read in reads:
                read.add_done_callback(partial(self._arrived, work))

    def _plan_next(self) -> bool:
        # Steps without slots of this worker need nothing, but must not be planned without end.
        if len(self._ahead) > self._prefetch_steps and not any(mine for _, mine in self._ahead):
            return False
        index = next(self._unplanned, None)
        if index is None:
            return False
        step = self._plan.step(index)
        places = slots_of_worker(len(step.slots), rank=self._rank, world_size=self._world_size)
        mine = [self._work(step, position) for position in places]
        self._ahead.append((step, mine))
        self._unread.extend(mine)
        return True

    def _work(self, step: Step, position: int) -> "_Work":
        slot = step.slots[position]
        chosen = self._plan.select_rows(epoch=step.epoch, source=slot.source, occurrence=slot.occurrence)
        return _Work(
            step=step.index,
            position=position,
            slot=slot,
            keys=[(step.epoch, slot.source, part.row_group) for part in chosen],
            rows=[part.rows for part in chosen],
            unread=len(chosen),
        )

    def _pin(self, work: "_Work", key: Key) -> Future[RowGroup]:
        row_group = self._row_groups.pin(key, lambda: self._read(key))
        work.row_groups.append(row_group)
        return row_group

    def _finish_before(self, work: "_Work") -> None:
        """A source's row groups are used one after another: those before the last of this work are needed no more."""
        *before, last = dict.fromkeys([self._open.get(work.slot.source, work.keys[0]), *work.keys])
        self._open[work.slot.source] = last
        for key in before:
            self._row_groups.finish(key)

    def _read(self, key: Key) -> RowGroup:
        epoch, number, row_group = key
        source = self._sources[number]
        stored = negative_columns(source.usable_negatives)
        window = self._plan.select_negatives(
            epoch=epoch,
            source=number,
            row_group=row_group,
            stored=len(stored),
            used=self._hard_negatives.of(source.kind),
        )
        columns = ["query", "positive", *(stored[i] for i in window), "query_hash", "positive_hash"]
        return row_group_of(self._reader.read(source.name, row_group, columns), source.instruction)

    def _arrived(self, work: "_Work", _: Future[RowGroup]) -> None:
        """One of its row groups is there, or will never be."""
        with self._lock:
            work.unread -= 1
            if work.unread or work.step > self._last_to_build or self._closed:
                return
        self._submit(work)

    def _may_build_until(self, step: int) -> None:
        with self._lock:
            before, self._last_to_build = self._last_to_build, step
            ready = [
                work for _, mine in self._ahead for work in mine if before < work.step <= step and work.unread == 0
            ]
        for work in ready:
            self._submit(work)

    def _submit(self, work: "_Work") -> None:
        try:
            self._tokenising.submit(self._build, work)
        except RuntimeError:  # closed in the meantime
            work.micro_batch.cancel()
            work.micro_batch.set_running_or_notify_cancel()

    def _build(self, work: "_Work") -> None:
        try:
            row_groups = [future.result() for future in work.row_groups]
            work.row_groups.clear()
            micro_batch = self._micro_batch(work, row_groups)
        except BaseException as error:
            work.micro_batch.set_exception(error)
            return
        finally:
            for key in work.keys:
                self._row_groups.unpin(key)
        work.micro_batch.set_result(micro_batch)
        self._advance()

    def _micro_batch(self, work: "_Work", row_groups: list[RowGroup]) -> MicroBatch:
        source, parts = self._sources[work.slot.source], list(zip(row_groups, work.rows, strict=True))
        texts_CB = np.hstack([group.texts_CR[:, rows] for group, rows in parts])
        distinct: dict[str, int] = {}
        index = [distinct.setdefault(text, len(distinct)) for text in texts_CB.ravel().tolist()]
        index_CB = np.array(index, dtype=np.int64).reshape(texts_CB.shape)
        return MicroBatch(
            position=work.position,
            source=source.name,
            kind=source.kind,
            texts=self._tokenizer.encode(list(distinct)),
            query_B=index_CB[0],
            positive_B=index_CB[1],
            negatives_BH=index_CB[2:].T,
            query_hash_B=np.concatenate([group.query_hash[rows] for group, rows in parts]),
            positive_hash_B=np.concatenate([group.positive_hash[rows] for group, rows in parts]),
            strings=tuple(distinct) if self._keep_strings else (),
        )


@dataclass(eq=False)
class _Work:
    """A micro-batch to be: which rows of which row groups, in the order of use, and how far it is."""

    step: int
    position: int
    slot: Slot
    keys: list[Key]
    rows: list[npt.NDArray[np.int64]]
    unread: int
    row_groups: list[Future[RowGroup]] = field(default_factory=list)
    micro_batch: "Future[MicroBatch]" = field(default_factory=Future)
