"""The data order: a pure function of (sources, seed, batch size) that no worker owns (docs/developers/design.md#data-order).

Shapes: S sources, M micro-batches an epoch, B rows a micro-batch, G micro-batches ("slots") a step, R row groups of a
source.

    source s of N_s rows  ->  m_s = ceil(N_s / B) micro-batches, the last one may be short
    an epoch              =   a uniformly random permutation of the multiset {s repeated m_s times}
    step t of the epoch   =   slots [tG, (t+1)G), the last step may be short
    worker r of W         ->  slots tG + r, tG + r + W, ... of step t

Drawing the next source with probability proportional to what is left of it, as each worker of the recipe does on its
own (arXiv 2510.02294, section 3), is the same law as that permutation. Nothing here depends on W. With `uniform`
sampling the permutation is one of rounds instead: in each, every source that has a micro-batch left has one.

With `mixed` step sources it is the rows of all sources that are permuted, {s repeated N_s times}, and slot k of the
epoch is the rows [kB, (k+1)B) of that permutation, divided into one part a source.
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
"""Grows whenever the same inputs would give another order; it is part of every checkpoint's fingerprint."""

# Each use of a key gets its own tag, so that no two draws share a stream.
_SOURCES, _ROW_GROUPS, _ROWS, _NEGATIVES = range(1, 5)

StepSource = Literal["independent", "same", "mixed"]
SourceSampling = Literal["proportional", "uniform"]


@dataclass(frozen=True)
class SourceRows:
    """What the plan needs to know of a source: its name and the rows of each of its row groups, int [R]."""

    name: str
    group_rows: npt.NDArray[np.int32]

    @property
    def rows(self) -> int:
        return int(self.group_rows.sum(dtype=np.int64))


@dataclass(frozen=True)
class Part:
    """`rows` rows of source number `source`, from position `first` of the order on that the source has in an epoch."""

    source: int
    first: int
    rows: int


@dataclass(frozen=True)
class Slot:
    """One micro-batch of a step: one part, or one of each of its sources where they are mixed.

    `occurrence` counts, from 0, the micro-batches of its source in the epoch; all of the epoch where they are mixed.
    One that is `skipped` is consumed and weighs nothing.
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
        """Those of all slots, in order: what is said of a step's rows source by source is said part by part."""
        return [part for slot in self.slots for part in slot.parts]

    @property
    def rows(self) -> int:
        return sum(slot.rows for slot in self.slots)

    @property
    def first_rows(self) -> list[int]:
        """Where each slot's rows begin among those of the step."""
        return list(accumulate((slot.rows for slot in self.slots[:-1]), initial=0))

    @property
    def weighed_rows(self) -> int:
        """Rows of the slots that are not skipped: the loss is the mean over these."""
        return sum(slot.rows for slot in self.slots if not slot.skipped)


@dataclass(frozen=True)
class RowSelection:
    """Rows `rows`, int64 [n], of row group number `row_group`, in the order of use."""

    row_group: int
    rows: npt.NDArray[np.int64]


def slots_of_worker(slots: int, *, rank: int, world_size: int) -> range:
    """Positions in a step of `slots` slots that worker `rank` takes; the union over ranks is every slot once."""
    return range(rank, slots, world_size)


class DataOrder:
    """The order of all epochs. Cheap to build; an epoch's arrays (about 10 bytes a micro-batch, or a row where sources
    are mixed) are made when first used.
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
        """`skipped` holds the epoch, source and occurrence of slots that are to weigh nothing, the source None where
        they are mixed. Raises DataError where there is no source, or one without rows.
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
        # One epoch, and the next while the loader reads ahead over the boundary.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._row_groups = lru_cache(maxsize=2 * len(sources))(self._draw_row_groups)
        self._rows = lru_cache(maxsize=4 * len(sources) + 64)(self._draw_rows)

    @property
    def micro_batches_of_sources(self) -> list[int]:
        """Micro-batches an epoch of each source."""
        return [int(count) for count in self._source_batches]

    @property
    def micro_batches_per_epoch(self) -> int:
        if self.step_source == "mixed":
            return -(-int(self._source_rows.sum()) // self.micro_batch_size)
        return int(self._source_batches.sum())

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch: ceil(M / G), or with one source a step the sum of ceil(m_s / G)."""
        if self.step_source == "same":
            return int((-(-self._source_batches // self.micro_batches_per_step)).sum())
        return -(-self.micro_batches_per_epoch // self.micro_batches_per_step)

    def step(self, index: int) -> Step:
        """The `index`-th optimizer step since the start of training, whatever happened in between."""
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
        """The step that comes next once so many micro-batches are consumed: all that a checkpoint has to remember.

        Raises DataError where the number is not a boundary between two steps of this plan.
        """
        epoch, slot = divmod(micro_batches_consumed, self.micro_batches_per_epoch)
        bounds = self._epoch(epoch).step_bounds
        step_in_epoch = int(np.searchsorted(bounds, slot))
        if bounds[step_in_epoch] != slot:
            raise DataError(
                f"micro_batches_consumed={micro_batches_consumed} does not lie between two steps of "
                f"{self.micro_batches_per_step} micro-batches",
                remedy="resume with the global_batch_size that wrote the checkpoint",
            )
        return epoch * self.steps_per_epoch + step_in_epoch

    def sources_of_epoch(self, epoch: int) -> npt.NDArray[np.uint16]:
        """Source number of every slot of an epoch, in order, uint16 [M]; of every row where sources are mixed."""
        return self._epoch(epoch).source

    def select_rows(self, *, epoch: int, part: Part) -> list[RowSelection]:
        """Where the rows of a part are: consecutive positions of the source's own order in this epoch, most often in
        one row group.

        Row groups are permuted and rows are permuted inside each, so that a source's next part shares its row group.
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
        """Which of a row's `stored` hard negatives an epoch uses, int64 [min(used, stored)].

        A cyclic window of columns, drawn per row group so that a step reads few columns. The negatives of each row were
        shuffled when the shards were written, so a window is an unbiased draw. (The recipe draws per micro-batch.)
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
        """One source a step: the same law, with steps in the place of micro-batches."""
        width = self.micro_batches_per_step
        steps_of_source = -(-self._source_batches // width)
        step_source = _permuted_multiset(key, steps_of_source, self.source_sampling)
        step_occurrence = _occurrences(step_source, steps_of_source)
        slots = np.minimum(width, self._source_batches[step_source] - step_occurrence.astype(np.int64) * width)
        source = np.repeat(step_source, slots)
        bounds = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(slots)])
        return _EpochOrder(source=source, occurrence=_occurrences(source, self._source_batches), step_bounds=bounds)

    def _draw_row_groups(self, epoch: int, source: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The source's row groups in this epoch's order, int64 [R], and the position where each ends, int64 [R]."""
        group_rows = self.sources[source].group_rows
        order = permutation(mix(self.seed, _ROW_GROUPS, epoch, source), len(group_rows))
        return order, np.cumsum(group_rows[order], dtype=np.int64)

    def _draw_rows(self, epoch: int, source: int, row_group: int) -> npt.NDArray[np.int64]:
        rows = int(self.sources[source].group_rows[row_group])
        return permutation(mix(self.seed, _ROWS, epoch, source, row_group), rows)


@dataclass(frozen=True)
class _EpochOrder:
    """M slots, or M rows where sources are mixed."""

    source: npt.NDArray[np.uint16]  # [M]
    occurrence: npt.NDArray[np.int32]  # [M]: how many of this source came before
    step_bounds: npt.NDArray[np.int64]  # [steps + 1], in slots


def _permuted_multiset(key: int, counts: npt.NDArray[np.int64], sampling: SourceSampling) -> npt.NDArray[np.uint16]:
    """Source numbers in a random order, uint16 [sum(counts)], source s exactly counts[s] times.

    Proportional: every order is equally likely. Uniform: round after round of every source that has a member left, the
    order in each equally likely.
    """
    keys = hashes(key, int(counts.sum()))
    members = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    if sampling == "uniform":
        rounds = np.arange(len(members)) - np.repeat(np.cumsum(counts) - counts, counts)
        return members[np.lexsort((keys, rounds))]
    return members[np.argsort(keys, kind="stable")]


def _occurrences(source: npt.NDArray[np.uint16], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """For each place, how many earlier ones hold the same source, int32 [M]."""
    by_source = np.argsort(source, kind="stable")
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    occurrence = np.empty(len(source), dtype=np.int32)
    occurrence[by_source] = np.arange(len(source)) - starts
    return occurrence
