"""The exchange of a step between ranks: all-reduce sums in which each rank fills in its own rows and zeros elsewhere
(docs/developers/design.md, "The training step").

A sum with zeros is exact in any order. So every rank gets the same numbers, for any number of ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist

from data_io.loading.loader import LoadedStep
from data_io.storage.ranged_reads import ReadStats
from ray_app.run_directory.metrics import PartMetrics
from ray_app.training.contrastive import PartLoss
from ray_app.training.control import Directive
from ray_app.training.stragglers import ForwardTiming


@dataclass(frozen=True)
class SharedStep:
    """A step as all ranks know it after the exchange."""

    parts: list[PartMetrics]
    """One per part of each micro-batch, in order."""
    wait_seconds: float
    """The longest time that a rank waited for its data."""
    directive: Directive
    """The highest directive that a rank requests."""
    read: ReadStats
    """Requests, bytes and retries of all ranks since the previous step."""
    timings: list[ForwardTiming]
    """The forward passes of each rank, by rank."""


def share_step(
    loaded: LoadedStep,
    losses: Sequence[PartLoss],
    read: ReadStats,
    timing: ForwardTiming,
    *,
    names: Sequence[str],
    directive: Directive,
    device: torch.device,
) -> SharedStep:
    """One all-reduce of a float64 table, [parts + ranks, 7]; every rank must call it.

    `losses`: the losses of the parts of this rank's micro-batches, in order. `read`: this rank's reads since the
    previous step. `timing`: its forward passes. `names`: the sources of the data order, by number.
    """
    step, world_size = loaded.step, dist.get_world_size()
    table = torch.zeros(len(step.parts) + world_size, 7, dtype=torch.float64)
    starts = np.concatenate([[0], np.cumsum([len(slot.parts) for slot in step.slots])])
    own_rows = [
        int(starts[batch.position]) + part for batch in loaded.micro_batches for part in range(len(batch.parts))
    ]
    for row, loss in zip(own_rows, losses, strict=True):
        values = [loss.rows, loss.tokens, loss.hard_negative, *_optional(loss.in_batch), *_optional(loss.distillation)]
        table[row] = torch.tensor(values, dtype=torch.float64)
    own = [loaded.wait_seconds, directive, read.requests, read.bytes, read.retries, timing.seconds, timing.tokens]
    table[len(step.parts) + dist.get_rank()] = torch.tensor(own, dtype=torch.float64)
    rows = _sum_over_ranks(table.to(device)).tolist()
    ranks = rows[len(step.parts) :]
    return SharedStep(
        parts=[
            PartMetrics(
                names[part.source],
                int(examples),
                int(tokens),
                hard,
                in_batch if has_in_batch else None,
                distillation if has_distillation else None,
            )
            for part, (examples, tokens, hard, in_batch, has_in_batch, distillation, has_distillation) in zip(
                step.parts, rows, strict=False
            )
        ],
        wait_seconds=max(row[0] for row in ranks),
        directive=Directive(int(max(row[1] for row in ranks))),
        read=ReadStats(*(int(sum(row[i] for row in ranks)) for i in (2, 3, 4))),
        timings=[ForwardTiming(seconds, int(tokens)) for *_, seconds, tokens in ranks],
    )


def _optional(value: float | None) -> tuple[float, float]:
    """(value, 1); (0, 0) for None."""
    return (0.0, 0.0) if value is None else (value, 1.0)


def share_reads(own: dict[str, ReadStats]) -> list[dict[str, ReadStats]]:
    """On rank 0: the reads by source of each rank, by rank. On all other ranks: empty. Every rank must call it."""
    by_rank: list[dict[str, ReadStats]] | None = None
    if dist.get_rank() == 0:
        by_rank = [{} for _ in range(dist.get_world_size())]
    dist.gather_object(own, by_rank, dst=0)
    return by_rank or []


def share_examples(loaded: LoadedStep, device: torch.device) -> list[list[str]]:
    """Hashes of the query texts of the step, 16 hex digits each, by part, in the order in which the step uses them.

    Every rank must call it.
    """
    step = loaded.step
    first_rows = step.first_rows
    hashes = torch.zeros(step.rows, dtype=torch.int64)
    for batch in loaded.micro_batches:
        first = first_rows[batch.position]
        read = np.concatenate([part.query_hash_B for part in batch.parts])
        hashes[first : first + batch.rows] = torch.from_numpy(read.view(np.int64))
    texts = iter([f"{h & (2**64 - 1):016x}" for h in _sum_over_ranks(hashes.to(device)).tolist()])
    return [list(islice(texts, part.rows)) for part in step.parts]


def _sum_over_ranks(table: torch.Tensor) -> torch.Tensor:
    if dist.get_world_size() > 1:
        dist.all_reduce(table)
    return table
