"""From the plan to token ids: the micro-batches of one worker, read and tokenized ahead of the training step.

There are two sets of threads, so that neither waits for the other. Some read row groups in the order of use, limited in
number and size. The others build micro-batches from row groups in memory, at most `prefetch_steps` steps ahead. The
threads that tokenize never wait for a store.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from threading import Lock
from time import monotonic
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.data_spec import HardNegatives
from data_io.dataset.manifest import SourceEntry
from data_io.dataset.schema import negative_columns
from data_io.dataset.tokenizer import TextTokenizer, TokenTexts
from data_io.loading.order import DataOrder, Part, Step, slots_of_worker
from data_io.loading.row_group_cache import Key, RowGroup, RowGroupCache, row_group_of
from data_io.loading.token_deletion import delete_tokens
from data_io.task import Kind


@dataclass(frozen=True)
class PartRows:
    """B rows of one source in a micro-batch. The arrays are indices into the micro-batch's texts.

    query_B, positive_B int64 [B] and negatives_BH int64 [B, H]; the hashes, uint64 [B], are of the stored texts.
    `tokens` counts the tokens of texts that do not occur in an earlier part.
    """

    source: str
    kind: Kind
    query_B: npt.NDArray[np.int64]
    positive_B: npt.NDArray[np.int64]
    negatives_BH: npt.NDArray[np.int64]
    query_hash_B: npt.NDArray[np.uint64]
    positive_hash_B: npt.NDArray[np.uint64]
    tokens: int

    @property
    def rows(self) -> int:
        return len(self.query_B)


@dataclass(frozen=True)
class MicroBatch:
    """The texts to embed together, each distinct text once, and the rows of each part of the slot.

    `position` is the slot's position in its step. `strings` are the texts, if the loader was asked to keep them.
    """

    position: int
    texts: TokenTexts
    parts: tuple[PartRows, ...]
    strings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True)
class LoadedStep:
    """One step for one worker: all slots of the step, and this worker's micro-batches in order."""

    step: Step
    micro_batches: tuple[MicroBatch, ...]
    wait_seconds: float


class TableReader(Protocol):
    """The reader, for the loader: columns of one row group in row order, and a useful number of threads."""

    @property
    def parallel_reads(self) -> int: ...

    def read(self, source: str, row_group: int, columns: list[str]) -> pa.Table: ...


READ_AHEAD = 16
"""Maximum number of row groups that are being read or wait for their first use."""


class Loader:
    """Iterates over the steps [first_step, end_step) for one worker. Reading and tokenizing run in threads, never in a
    forked process.
    """

    def __init__(
        self,
        plan: DataOrder,
        sources: tuple[SourceEntry, ...],
        reader: TableReader,
        tokenizer: TextTokenizer,
        *,
        hard_negatives: HardNegatives,
        first_step: int,
        end_step: int,
        rank: int,
        world_size: int,
        token_deletion: float = 0.0,
        prefetch_steps: int = 4,
        threads: int = 2,
        cache_bytes: int = 256 * 2**20,
        keep_strings: bool = False,
    ) -> None:
        """`sources` are in the plan's order; `token_deletion` is the share of tokens to leave out.

        Memory: `cache_bytes` of decoded row groups, plus the steps ahead. A larger row group is read on its own.
        """
        self._plan = plan
        self._sources = sources
        self._reader = reader
        self._tokenizer = tokenizer
        self._hard_negatives = hard_negatives
        self._token_deletion = token_deletion
        self._unplanned = iter(range(first_step, end_step))
        self._rank, self._world_size = rank, world_size
        self._prefetch_steps = prefetch_steps
        self._keep_strings = keep_strings
        self._tokenizing = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._reading = ThreadPoolExecutor(reader.parallel_reads, thread_name_prefix="read")
        self._row_groups = RowGroupCache(self._reading, cache_bytes, ahead=READ_AHEAD)
        self._lock = Lock()
        # Guards all fields below.
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
            # Wait for all at once: this thread wakes once per step or on a failure, not once per micro-batch.
            done, _ = wait([work.micro_batch for work in mine], return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            micro_batches = tuple(work.micro_batch.result() for work in mine)
            waited = monotonic() - start
            self._may_build_until(step.index + 1 + self._prefetch_steps)
            yield LoadedStep(step=step, micro_batches=micro_batches, wait_seconds=waited)

    def close(self) -> None:
        """Stop the threads and abort running reads."""
        with self._lock:
            self._closed = True
        for pool in (self._reading, self._tokenizing):
            pool.shutdown(wait=True, cancel_futures=True)

    def _advance(self) -> None:
        """Plan steps and request row groups, in order, while there is room."""
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
                reads = [self._pin(part, key) for part in work.parts for key in part.keys]
                for part in work.parts:
                    self._finish_before(part)
            for read in reads:
                read.add_done_callback(partial(self._arrived, work))

    def _plan_next(self) -> bool:
        # Steps without slots of this worker need no data, but the loop must still end.
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
        parts = [self._part(step.epoch, part) for part in step.slots[position].parts]
        return _Work(step.index, step.epoch, position, parts, unread=sum(len(part.keys) for part in parts))

    def _part(self, epoch: int, part: Part) -> "_PartWork":
        chosen = self._plan.select_rows(epoch=epoch, part=part)
        keys = [(epoch, part.source, selection.row_group) for selection in chosen]
        return _PartWork(part.source, keys, [selection.rows for selection in chosen])

    def _pin(self, part: "_PartWork", key: Key) -> Future[RowGroup]:
        row_group = self._row_groups.pin(key, lambda: self._read(key))
        part.row_groups.append(row_group)
        return row_group

    def _finish_before(self, part: "_PartWork") -> None:
        """Mark row groups before the last of this part as finished: a source uses its row groups one after another."""
        *before, last = dict.fromkeys([self._open.get(part.source, part.keys[0]), *part.keys])
        self._open[part.source] = last
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
        """A row group of the micro-batch was read, or its read failed."""
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
            self._tokenizing.submit(self._build, work)
        except RuntimeError:  # the pool was closed
            work.micro_batch.cancel()
            work.micro_batch.set_running_or_notify_cancel()

    def _build(self, work: "_Work") -> None:
        try:
            micro_batch = self._micro_batch(work)
        except BaseException as error:
            work.micro_batch.set_exception(error)
            return
        finally:
            for key in work.keys:
                self._row_groups.unpin(key)
        work.micro_batch.set_result(micro_batch)
        self._advance()

    def _micro_batch(self, work: "_Work") -> MicroBatch:
        distinct: dict[str, int] = {}
        chosen, indices, ends = [], [], [0]
        for part in work.parts:
            rows_of = list(zip((future.result() for future in part.row_groups), part.rows, strict=True))
            part.row_groups.clear()
            texts_CB = np.hstack([group.texts_CR[:, rows] for group, rows in rows_of])
            index = [distinct.setdefault(text, len(distinct)) for text in texts_CB.ravel().tolist()]
            chosen.append(rows_of)
            indices.append(np.array(index, dtype=np.int64).reshape(texts_CB.shape))
            ends.append(len(distinct))
        texts = self._tokenizer.encode(list(distinct))
        if self._token_deletion:
            share, seed = self._token_deletion, self._plan.seed
            texts = delete_tokens(texts, list(distinct), share=share, seed=seed, epoch=work.epoch)
        return MicroBatch(
            position=work.position,
            texts=texts,
            parts=tuple(
                PartRows(
                    source=self._sources[part.source].name,
                    kind=self._sources[part.source].kind,
                    query_B=index_CB[0],
                    positive_B=index_CB[1],
                    negatives_BH=index_CB[2:].T,
                    query_hash_B=np.concatenate([group.query_hash[rows] for group, rows in rows_of]),
                    positive_hash_B=np.concatenate([group.positive_hash[rows] for group, rows in rows_of]),
                    tokens=int(texts.lengths[first:end].sum()),
                )
                for part, rows_of, index_CB, (first, end) in zip(
                    work.parts, chosen, indices, pairwise(ends), strict=True
                )
            ),
            strings=tuple(distinct) if self._keep_strings else (),
        )


@dataclass(eq=False)
class _PartWork:
    """One part of a future micro-batch: rows of row groups of a source, in the order of use."""

    source: int
    keys: list[Key]
    rows: list[npt.NDArray[np.int64]]
    row_groups: list[Future[RowGroup]] = field(default_factory=list)


@dataclass(eq=False)
class _Work:
    """A future micro-batch and its progress."""

    step: int
    epoch: int
    position: int
    parts: list[_PartWork]
    unread: int
    micro_batch: "Future[MicroBatch]" = field(default_factory=Future)

    @property
    def keys(self) -> list[Key]:
        return [key for part in self.parts for key in part.keys]
