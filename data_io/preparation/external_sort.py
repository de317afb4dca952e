"""Sources of any size as shards: in bounded memory, in independent pieces, and resumable after every one of them.

An external sort. Every piece of a source's input is spilled into buckets of the rows' keys; the rows that are left in
each bucket when repeated ones are removed are counted, which says where every shard begins; then ranges of shards are
written, each from the buckets that it overlaps. What a piece of work leaves is decided by its input alone, and a
record says when it is there: so neither workers nor kills show in the result.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.curation.held_out import SplitCounts, no_rows
from data_io.dataset.manifest import Shard, SourceData, SourceInfo
from data_io.dataset.rows import Row
from data_io.dataset.shards import ShardSize, WrittenShard, find_shard, source_data, write_shards
from data_io.dataset.spill import Spill, SpillWriter, bucket_count, count_unique, is_whole, sorted_buckets
from data_io.execution import Executor, Pace, Say
from data_io.storage.resumable import Work

_BUCKETS_A_TASK = 8
"""A shard that crosses the border of two tasks has a bucket read twice: once more for each eight."""

Piece = Callable[[SplitCounts], Iterable[Row]]
"""Reads the rows of a part of a source, counting what it does with them. Pickles, and may be called again."""


@dataclass(frozen=True)
class SourcePieces:
    """A source before it is written: `text_bytes` is about what its texts take, `sizes` what each piece takes."""

    info: SourceInfo
    pieces: tuple[Piece, ...]
    sizes: tuple[int, ...]
    text_bytes: int


@dataclass(frozen=True)
class WrittenSource:
    """A source whose shards are there; `counts.kept` of its rows were spilled, `repeated` of them left out."""

    data: SourceData
    counts: SplitCounts
    repeated: int


@dataclass(frozen=True)
class _SpillTask:
    work: Work
    source: int
    number: int
    info: SourceInfo
    piece: Piece
    size: int
    buckets: int
    memory_bytes: int
    seed: int


@dataclass(frozen=True, eq=False)
class _CountTask:
    work: Work
    source: int
    name: str
    spills: tuple[Spill, ...]
    buckets: int


@dataclass(frozen=True)
class ShardRange:
    """Shards that are written together: where their first row is, and how many rows they have."""

    first_shard: int
    first_bucket: int
    last_bucket: int
    skip: int
    rows: int


@dataclass(frozen=True, eq=False)
class _WriteTask:
    work: Work
    source: int
    name: str
    spills: tuple[Spill, ...]
    part: ShardRange
    size: ShardSize


def write_sources(
    work: Work,
    sources: Sequence[SourcePieces],
    *,
    executor: Executor,
    size: ShardSize,
    memory_bytes: int,
    seed: int,
    say: Say,
) -> list[WrittenSource]:
    """Write every source under sources/<name>/ of the data set, or go on where an earlier call ended.

    Raises DataError for a row that is not valid and for a source without rows.
    """
    buckets = [bucket_count(source.text_bytes, memory_bytes) for source in sources]
    spilled: list[dict[int, tuple[Spill, SplitCounts]]] = [{} for _ in sources]
    pace = Pace("sorting", sum(sum(source.sizes) for source in sources), say)
    tasks = (
        _SpillTask(work, s, number, source.info, piece, source.sizes[number], buckets[s], memory_bytes, seed)
        for s, source in enumerate(sources)
        for number, piece in enumerate(source.pieces)
    )
    for task, (spill, counts) in executor(_spill, tasks):
        spilled[task.source][task.number] = spill, counts
        pace(counts.kept, task.size)
    spills = [tuple(found[number][0] for number in sorted(found)) for found in spilled]
    totals = [_total(counts for _, counts in found.values()) for found in spilled]
    for source, found, total in zip(sources, spills, totals, strict=True):
        if not any(spill.rows for spill in found):
            raise no_rows(source.info.name, total)

    counting = (_CountTask(work, s, sources[s].info.name, spills[s], buckets[s]) for s in range(len(sources)))
    unique = {task.source: found for task, found in executor(_count, counting)}

    ranges = {s: shard_ranges(found, size.rows) for s, found in unique.items()}
    pace = Pace("writing", sum(int(found.sum()) for found in unique.values()), say)
    writing = (
        _WriteTask(work, s, sources[s].info.name, spills[s], part, size)
        for s in range(len(sources))
        for part in ranges[s]
    )
    written: list[dict[int, list[WrittenShard]]] = [{} for _ in sources]
    for task, shards in executor(_write, writing):
        written[task.source][task.part.first_shard] = shards
        pace(task.part.rows, task.part.rows)

    finished = []
    for source, total, parts in zip(sources, totals, written, strict=True):
        data = source_data(source.info, [shard for first in sorted(parts) for shard in parts[first]])
        finished.append(WrittenSource(data, total, total.kept - data.entry.rows))
    return finished


def _total(parts: Iterable[SplitCounts]) -> SplitCounts:
    total = SplitCounts()
    for counts in parts:
        total.add(counts)
    return total


def shard_ranges(rows_of_bucket: npt.NDArray[np.int64], rows_per_shard: int) -> list[ShardRange]:
    """Every shard once, each with the eight buckets in which its first row lies."""
    end = np.cumsum(rows_of_bucket)
    total = int(end[-1])
    ranges = []
    first_shard = 0
    for group in range(0, len(end), _BUCKETS_A_TASK):
        behind = int(end[min(group + _BUCKETS_A_TASK, len(end)) - 1])
        next_shard = -(-behind // rows_per_shard)
        if next_shard > first_shard:
            start, stop = first_shard * rows_per_shard, min(next_shard * rows_per_shard, total)
            first, last = (int(np.searchsorted(end, row, side="right")) for row in (start, stop - 1))
            skip = start - int(end[first] - rows_of_bucket[first])
            ranges.append(ShardRange(first_shard, first, last, skip, stop - start))
            first_shard = next_shard
    return ranges


def _spill(task: _SpillTask) -> tuple[Spill, SplitCounts]:
    key = f"spill/{task.info.name}/{task.number:05d}"
    state = task.work.state
    if (done := task.work.load(f"{key}.json")) is not None:
        spill = Spill(key, done["size"], np.array(done["sections"], dtype=np.int64).reshape(-1, 6))
        if is_whole(state, spill):
            return spill, SplitCounts(**done["counts"])
    counts = SplitCounts()
    with state.open_writer(key) as out:
        writer = SpillWriter(out, task.info, buckets=task.buckets, memory_bytes=task.memory_bytes, seed=task.seed)
        for row in task.piece(counts):
            writer.add(row)
        spill = writer.finish(key)
    record = {"size": spill.size, "sections": spill.sections.tolist(), "counts": asdict(counts)}
    task.work.save(f"{key}.json", record)
    return spill, counts


def _count(task: _CountTask) -> npt.NDArray[np.int64]:
    key = f"count/{task.name}.json"
    if (done := task.work.load(key)) is not None:
        return np.array(done["rows_of_bucket"], dtype=np.int64)
    found = count_unique(task.work.state, task.spills, task.buckets)
    task.work.save(key, {"rows_of_bucket": found.tolist()})
    return found


def _write(task: _WriteTask) -> list[WrittenShard]:
    key, part, store = f"shards/{task.name}/{task.part.first_shard:05d}.json", task.part, task.work.store
    if (done := task.work.load(key)) is not None:
        there = [
            find_shard(store, Shard(**shard), number) for number, shard in enumerate(done["shards"], part.first_shard)
        ]
        whole = [shard for shard in there if shard is not None]
        if len(whole) == len(there):
            return whole
    tables = sorted_buckets(task.work.state, task.spills, range(part.first_bucket, part.last_bucket + 1))
    rows = _cut(tables, part.skip, part.rows)
    written = list(write_shards(store, task.name, rows, task.size, first_number=part.first_shard))
    task.work.save(key, {"shards": [asdict(each.shard) for each in written]})
    return written


def _cut(tables: Iterable[pa.Table], skip: int, rows: int) -> Iterator[pa.Table]:
    """`rows` rows of those that come, without the first `skip`."""
    for table in tables:
        cut = table.slice(skip, rows)
        skip, rows = max(0, skip - table.num_rows), rows - cut.num_rows
        yield cut
