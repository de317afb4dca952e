"""Writes sources of any size as shards: in bounded memory, in independent tasks, and resumable after each task.

An external sort in three stages:

1. Each part of a source's input is written to a spill object, in buckets of the rows' keys.
2. The distinct rows of each bucket are counted, which gives the start of each shard.
3. Ranges of shards are written, each from the buckets that it overlaps.

The objects of a task depend only on its input, and a record says when they are complete. So the result depends neither
on the number of workers nor on restarts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data_io.curation.held_out import SplitCounts, no_rows
from data_io.dataset.manifest import Shard, SourceData, SourceInfo
from data_io.dataset.rows import Row
from data_io.dataset.shards import ShardSize, WrittenShard, find_shard, source_data, write_shards
from data_io.dataset.spill import Spill, SpillWriter, bucket_count, count_unique, is_whole, sorted_buckets
from data_io.execution import ProgressLine
from data_io.preparation.attempt import Resources
from data_io.storage.resumable import Work

_BUCKETS_A_TASK = 8
"""Buckets per writing task. A bucket at the border of two tasks is read twice: one extra read per eight buckets."""

ReadPart = Callable[[SplitCounts], Iterable[Row]]
"""Reads the rows of a part of a source, and counts the rows kept and left out. Picklable; may be called again."""


@dataclass(frozen=True)
class SourceParts:
    """A source before it is written, in parts that can be read separately."""

    info: SourceInfo
    parts: tuple[ReadPart, ...]
    part_bytes: tuple[int, ...]
    """About the bytes to read for each part, for the progress line."""
    text_bytes: int
    """About the bytes of all texts of the source. Determines the number of buckets."""


@dataclass(frozen=True)
class WrittenSource:
    """A source whose shards are written. Of `counts.kept` rows, `counts.repeated` were left out as repeated."""

    data: SourceData
    counts: SplitCounts


@dataclass(frozen=True)
class _SpillTask:
    work: Work
    source: int
    number: int
    info: SourceInfo
    read: ReadPart
    part_bytes: int
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
    """Shards that are written together: the position of their first row, and the number of their rows."""

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
    work: Work, sources: Sequence[SourceParts], resources: Resources, *, seed: int, size: ShardSize | None = None
) -> list[WrittenSource]:
    """Write every source under sources/<name>/ of the data set, or resume an earlier call.

    Raises DataError for an invalid row and for a source without rows.
    """
    return _ExternalSort(work, sources, resources, seed, size or ShardSize()).run()


@dataclass(frozen=True)
class _ExternalSort:
    """The stages for all sources. Each list has one entry per source, in order."""

    work: Work
    sources: Sequence[SourceParts]
    resources: Resources
    seed: int
    size: ShardSize

    def run(self) -> list[WrittenSource]:
        buckets = [bucket_count(source.text_bytes, self.resources.memory_bytes) for source in self.sources]
        spills, counts = self._spill(buckets)
        for source, found, count in zip(self.sources, spills, counts, strict=True):
            if not any(spill.rows for spill in found):
                raise no_rows(source.info.name, count)
        unique = self._count_unique(spills, buckets)
        shards = self._write(spills, unique)
        written = []
        for source, count, own_shards in zip(self.sources, counts, shards, strict=True):
            data = source_data(source.info, own_shards)
            written.append(WrittenSource(data, replace(count, repeated=count.kept - data.entry.rows)))
        return written

    def _spill(self, buckets: Sequence[int]) -> tuple[list[tuple[Spill, ...]], list[SplitCounts]]:
        """The spills of each source, one per part, and the sum of their counts."""
        memory_bytes = self.resources.memory_bytes
        tasks = (
            _SpillTask(self.work, s, number, source.info, read, part_bytes, buckets[s], memory_bytes, self.seed)
            for s, source in enumerate(self.sources)
            for number, (read, part_bytes) in enumerate(zip(source.parts, source.part_bytes, strict=True))
        )
        line = ProgressLine("sorting", sum(sum(source.part_bytes) for source in self.sources), self.resources.say)
        spilled: list[dict[int, Spill]] = [{} for _ in self.sources]
        totals = [SplitCounts() for _ in self.sources]
        for task, (spill, counts) in self.resources.executor(_spill_part, tasks):
            spilled[task.source][task.number] = spill
            totals[task.source].add(counts)
            line.advance(counts.kept, task.part_bytes)
        return [tuple(found[number] for number in sorted(found)) for found in spilled], totals

    def _count_unique(self, spills: Sequence[tuple[Spill, ...]], buckets: Sequence[int]) -> list[npt.NDArray[np.int64]]:
        """Numbers of distinct rows in each bucket of each source."""
        tasks = (
            _CountTask(self.work, s, source.info.name, spills[s], buckets[s]) for s, source in enumerate(self.sources)
        )
        found = {task.source: rows for task, rows in self.resources.executor(_count_buckets, tasks)}
        return [found[s] for s in range(len(self.sources))]

    def _write(
        self, spills: Sequence[tuple[Spill, ...]], unique: Sequence[npt.NDArray[np.int64]]
    ) -> list[list[WrittenShard]]:
        """The shards of each source, in order."""
        tasks = (
            _WriteTask(self.work, s, source.info.name, spills[s], part, self.size)
            for s, source in enumerate(self.sources)
            for part in shard_ranges(unique[s], self.size.rows)
        )
        line = ProgressLine("writing", sum(int(rows.sum()) for rows in unique), self.resources.say)
        written: list[dict[int, list[WrittenShard]]] = [{} for _ in self.sources]
        for task, shards in self.resources.executor(_write_range, tasks):
            written[task.source][task.part.first_shard] = shards
            line.advance(task.part.rows, task.part.rows)
        return [[shard for first in sorted(found) for shard in found[first]] for found in written]


def shard_ranges(rows_of_bucket: npt.NDArray[np.int64], rows_per_shard: int) -> list[ShardRange]:
    """Every shard once, grouped by the eight buckets that contain its first row."""
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


def _spill_part(task: _SpillTask) -> tuple[Spill, SplitCounts]:
    key = f"spill/{task.info.name}/{task.number:05d}"
    state = task.work.state
    if (done := task.work.load(f"{key}.json")) is not None:
        spill = Spill(key, done["size"], np.array(done["sections"], dtype=np.int64).reshape(-1, 6))
        if is_whole(state, spill):
            return spill, SplitCounts(**done["counts"])
    counts = SplitCounts()
    with state.open_writer(key) as out:
        writer = SpillWriter(out, task.info, buckets=task.buckets, memory_bytes=task.memory_bytes, seed=task.seed)
        for row in task.read(counts):
            writer.add(row)
        spill = writer.finish(key)
    record = {"size": spill.size, "sections": spill.sections.tolist(), "counts": asdict(counts)}
    task.work.save(f"{key}.json", record)
    return spill, counts


def _count_buckets(task: _CountTask) -> npt.NDArray[np.int64]:
    key = f"count/{task.name}.json"
    if (done := task.work.load(key)) is not None:
        return np.array(done["rows_of_bucket"], dtype=np.int64)
    found = count_unique(task.work.state, task.spills, task.buckets)
    task.work.save(key, {"rows_of_bucket": found.tolist()})
    return found


def _write_range(task: _WriteTask) -> list[WrittenShard]:
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
    """Skip the first `skip` rows and return the next `rows` rows."""
    for table in tables:
        cut = table.slice(skip, rows)
        skip, rows = max(0, skip - table.num_rows), rows - cut.num_rows
        yield cut
