"""The data order: a pure function of sources, seed and batch size (docs/developers/design.md#data-order).

Shapes: S sources, M micro-batches per epoch, B rows per micro-batch, G micro-batches ("slots") per step, R row groups
of a source.

    source s of N_s rows  ->  m_s = ceil(N_s / B) micro-batches, the last one may be short
    an epoch              =   a uniformly random permutation of the multiset {s repeated m_s times}
    step t of the epoch   =   slots [tG, (t+1)G), the last step may be short
    worker r of W         ->  slots tG + r, tG + r + W, ... of step t

Each worker of the recipe draws its next source with probability proportional to the source's remaining rows (arXiv
2510.02294, section 3). That has the same distribution as this permutation. Nothing here depends on W. With `uniform`
sampling an epoch consists of rounds: each round has one micro-batch of every source that has any left, in random order.

With `mixed` step sources the rows of all sources are permuted, {s repeated N_s times}. Slot k of the epoch is the rows
[kB, (k+1)B) of that permutation, divided into one part per source.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_io.errors import DataError
from data_io.keyed_hash import hashes, mix, permutation

PLANNER_VERSION = 1
"""Increased whenever the same inputs would give another order. Part of every checkpoint's fingerprint."""

# Each use of a key gets its own tag, so that no two draws share a stream.
_SOURCES, _ROW_GROUPS, _ROWS, _NEGATIVES = range(1, 5)

StepSource = Literal["independent", "same", "mixed"]
SourceSampling = Literal["proportional", "uniform"]


@dataclass(frozen=True)
class SourceRows:
    """The plan's view of a source: its name and the number of rows in each row group, int [R]."""

    name: str
    group_rows: npt.NDArray[np.int32]

    @property
    def rows(self) -> int:
        return int(self.group_rows.sum(dtype=np.int64))


@dataclass(frozen=True)
class Part:
    """`rows` rows of source number `source`, starting at position `first` of the source's order in the epoch."""

    source: int
    first: int
    rows: int


@dataclass(frozen=True)
class Slot:
    """One micro-batch of a step: one part, or one part per source if sources are mixed.

    `occurrence` counts from 0: earlier micro-batches of the source in the epoch, or of the whole epoch if sources are
    mixed. A `skipped` slot is consumed and has weight 0.
    """

    occurrence: int
    parts: tuple[Part, ...]
    skipped: bool = False

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True)
class Step:
    """One optimizer step: its epoch, and its slots in order. Every worker knows all of them."""

    index: int
    epoch: int
    first_slot: int
    slots: tuple[Slot, ...]

    @property
    def parts(self) -> list[Part]:
        """The parts of all slots, in order. Values for a step's rows are stored per part."""
        return [part for slot in self.slots for part in slot.parts]

    @property
    def rows(self) -> int:
        return sum(slot.rows for slot in self.slots)

    @property
    def first_rows(self) -> list[int]:
        """The index of each slot's first row among the rows of the step."""
        return list(accumulate((slot.rows for slot in self.slots[:-1]), initial=0))

    @property
    def weighed_rows(self) -> int:
        """Rows of the slots that are not skipped. The loss is the mean over these."""
        return sum(slot.rows for slot in self.slots if not slot.skipped)


@dataclass(frozen=True)
class RowSelection:
    """Rows `rows`, int64 [n], of row group number `row_group`, in the order of use."""

    row_group: int
    rows: npt.NDArray[np.int64]


def slots_of_worker(slots: int, *, rank: int, world_size: int) -> range:
    """Positions in a step of `slots` slots that worker `rank` takes. The union over ranks is every slot once."""
    return range(rank, slots, world_size)


class DataOrder:
    """The order of all epochs. Cheap to build: the arrays of an epoch are made at first use (about 10 bytes per
    micro-batch, or per row if sources are mixed).
    """

    def __init__(
        self,
        sources: Sequence[SourceRows],
        *,
        micro_batch_size: int,
        micro_batches_per_step: int,
        seed: int,
        step_source: StepSource = "independent",
        source_sampling: SourceSampling = "proportional",
        skipped: Set[tuple[int, int | None, int]] = frozenset(),
    ) -> None:
        """`skipped` holds the epoch, source and occurrence of slots with weight 0; the source is None if sources are
        mixed. Raises DataError if there is no source, or a source without rows.
        """
        if not sources:
            raise DataError("no source to train on", remedy="name at least one source of the manifest in data.sources")
        for source in sources:
            if source.rows == 0:
                raise DataError(
                    f"source {source.name!r} has no rows", remedy="leave it out of data.sources or prepare it again"
                )
        self.sources = tuple(sources)
        self.micro_batch_size = micro_batch_size
        self.micro_batches_per_step = micro_batches_per_step
        self.seed = seed
        self.step_source: StepSource = step_source
        self.source_sampling: SourceSampling = source_sampling
        self._skipped = skipped
        self._source_rows = np.array([source.rows for source in sources], dtype=np.int64)
        self._source_batches = -(-self._source_rows // micro_batch_size)
        # The current epoch, and the next one when the loader reads ahead across the boundary.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._row_groups = lru_cache(maxsize=2 * len(sources))(self._draw_row_groups)
        self._rows = lru_cache(maxsize=4 * len(sources) + 64)(self._draw_rows)

    @property
    def micro_batches_of_sources(self) -> list[int]:
        """Micro-batches per epoch of each source."""
        return [int(count) for count in self._source_batches]

    @property
    def micro_batches_per_epoch(self) -> int:
        if self.step_source == "mixed":
            return -(-int(self._source_rows.sum()) // self.micro_batch_size)
        return int(self._source_batches.sum())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch: ceil(M / G), or with one source per step the sum of ceil(m_s / G)."""
        if self.step_source == "same":
            return int((-(-self._source_batches // self.micro_batches_per_step)).sum())
        return -(-self.micro_batches_per_epoch // self.micro_batches_per_step)

    def step(self, index: int) -> Step:
        """The `index`-th optimizer step since the start of training, independent of restarts."""
        epoch, step_in_epoch = divmod(index, self.steps_per_epoch)
        order = self._epoch(epoch)
        first, end = int(order.step_bounds[step_in_epoch]), int(order.step_bounds[step_in_epoch + 1])
        slot = self._mixed_slot if self.step_source == "mixed" else self._slot
        return Step(
            index=index,
            epoch=epoch,
            first_slot=epoch * self.micro_batches_per_epoch + first,
            slots=tuple(slot(epoch, order, number) for number in range(first, end)),
        )

    def _slot(self, epoch: int, order: "_EpochOrder", number: int) -> Slot:
        source, occurrence = int(order.source[number]), int(order.occurrence[number])
        first = occurrence * self.micro_batch_size
        rows = min(self.micro_batch_size, int(self._source_rows[source]) - first)
        return Slot(occurrence, (Part(source, first, rows),), (epoch, source, occurrence) in self._skipped)

    def _mixed_slot(self, epoch: int, order: "_EpochOrder", number: int) -> Slot:
        rows = slice(number * self.micro_batch_size, (number + 1) * self.micro_batch_size)
        sources, index, counts = np.unique(order.source[rows], return_index=True, return_counts=True)
        firsts = order.occurrence[rows][index]
        parts = tuple(Part(int(s), int(first), int(n)) for s, first, n in zip(sources, firsts, counts, strict=True))
        return Slot(number, parts, (epoch, None, number) in self._skipped)

    def step_after(self, micro_batches_consumed: int) -> int:
        """The step that follows after so many consumed micro-batches. A checkpoint has to store only this number.

        Raises DataError if the number is not a boundary between two steps of this plan.
        """
        epoch, slot = divmod(micro_batches_consumed, self.micro_batches_per_epoch)
        bounds = self._epoch(epoch).step_bounds
        step_in_epoch = int(np.searchsorted(bounds, slot))
        if bounds[step_in_epoch] != slot:
            raise DataError(
                f"micro_batches_consumed={micro_batches_consumed} is not a boundary between steps of "
                f"{self.micro_batches_per_step} micro-batches",
                remedy="resume with the global_batch_size that wrote the checkpoint",
            )
        return epoch * self.steps_per_epoch + step_in_epoch

    def sources_of_epoch(self, epoch: int) -> npt.NDArray[np.uint16]:
        """Source number of every slot of an epoch, in order, uint16 [M]; of every row if sources are mixed."""
        return self._epoch(epoch).source

    def select_rows(self, *, epoch: int, part: Part) -> list[RowSelection]:
        """The positions of the rows of a part: consecutive in the source's order of this epoch, usually in one row
        group.

        Row groups are permuted, and rows are permuted within each, so that the source's next part uses the same row
        group.
        """
        source, at, end = part.source, part.first, part.first + part.rows
        groups, ends = self._row_groups(epoch, source)
        place = int(np.searchsorted(ends, at, side="right"))
        found = []
        while at < end:
            row_group, group_end = int(groups[place]), int(ends[place])
            rows = self._rows(epoch, source, row_group)
            first = at - (group_end - len(rows))
            found.append(RowSelection(row_group, rows[first : first + end - at]))
            at, place = group_end, place + 1
        return found

    def select_negatives(
        self, *, epoch: int, source: int, row_group: int, stored: int, used: int
    ) -> npt.NDArray[np.int64]:
        """The hard negatives of a row, out of `stored`, that an epoch uses: int64 [min(used, stored)].

        A cyclic window of columns, drawn per row group so that a step reads few columns. The negatives of each row were
        shuffled when the shards were written, so the window is an unbiased draw. (The recipe draws per micro-batch.)
        """
        used = min(used, stored)
        if used == 0:
            return np.empty(0, dtype=np.int64)
        start = mix(self.seed, _NEGATIVES, epoch, source, row_group) % stored
        return (start + np.arange(used)) % stored

    def _draw_epoch(self, epoch: int) -> "_EpochOrder":
        key = mix(self.seed, _SOURCES, epoch)
        if self.step_source == "same":
            return self._draw_epoch_of_uniform_steps(key)
        members = self._source_rows if self.step_source == "mixed" else self._source_batches
        source = _permuted_multiset(key, members, self.source_sampling)
        total, width = self.micro_batches_per_epoch, self.micro_batches_per_step
        bounds = np.minimum(np.arange(self.steps_per_epoch + 1, dtype=np.int64) * width, total)
        return _EpochOrder(source=source, occurrence=_occurrences(source, members), step_bounds=bounds)

    def _draw_epoch_of_uniform_steps(self, key: int) -> "_EpochOrder":
        """One source per step: the same distribution, with steps instead of micro-batches."""
        width = self.micro_batches_per_step
        steps_of_source = -(-self._source_batches // width)
        step_source = _permuted_multiset(key, steps_of_source, self.source_sampling)
        step_occurrence = _occurrences(step_source, steps_of_source)
        slots = np.minimum(width, self._source_batches[step_source] - step_occurrence.astype(np.int64) * width)
        source = np.repeat(step_source, slots)
        bounds = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(slots)])
        return _EpochOrder(source=source, occurrence=_occurrences(source, self._source_batches), step_bounds=bounds)

    def _draw_row_groups(self, epoch: int, source: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The source's row groups in this epoch's order, int64 [R], and the end position of each, int64 [R]."""
        group_rows = self.sources[source].group_rows
        order = permutation(mix(self.seed, _ROW_GROUPS, epoch, source), len(group_rows))
        return order, np.cumsum(group_rows[order], dtype=np.int64)

    def _draw_rows(self, epoch: int, source: int, row_group: int) -> npt.NDArray[np.int64]:
        rows = int(self.sources[source].group_rows[row_group])
        return permutation(mix(self.seed, _ROWS, epoch, source, row_group), rows)


@dataclass(frozen=True)
class _EpochOrder:
    """M slots, or M rows if sources are mixed."""

    source: npt.NDArray[np.uint16]  # [M]
    occurrence: npt.NDArray[np.int32]  # [M]: earlier entries of the same source
    step_bounds: npt.NDArray[np.int64]  # [steps + 1], in slots


def _permuted_multiset(key: int, counts: npt.NDArray[np.int64], sampling: SourceSampling) -> npt.NDArray[np.uint16]:
    """Source numbers in a random order, uint16 [sum(counts)], source s exactly counts[s] times.

    Proportional: every order is equally likely. Uniform: rounds with one entry of every source that has any left, each
    round in an equally likely order.
    """
    keys = hashes(key, int(counts.sum()))
    members = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    if sampling == "uniform":
        rounds = np.arange(len(members)) - np.repeat(np.cumsum(counts) - counts, counts)
        return members[np.lexsort((keys, rounds))]
    return members[np.argsort(keys, kind="stable")]


def _occurrences(source: npt.NDArray[np.uint16], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """For each position, the number of earlier positions with the same source, int32 [M]."""
    by_source = np.argsort(source, kind="stable")
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    occurrence = np.empty(len(source), dtype=np.int32)
    occurrence[by_source] = np.arange(len(source)) - starts
    return occurrence
