"""What ranks tell each other about a step: two sums, in which each rank fills in its own rows and leaves zeros
elsewhere.

A sum with zeros is exact and has no order, so every rank knows the same numbers, whatever their count.
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
from ray_app.training.stragglers import Work


@dataclass(frozen=True)
class SharedStep:
    """What all ranks know of a step once they have exchanged it."""

    parts: list[PartMetrics]
    """One for each part of each slot, in order."""
    wait_seconds: float
    directive: Directive
    read: ReadStats
    """What all ranks have asked of the store since the step before: requests, bytes and retries."""
    work: list[Work]
    """The forward passes of each rank."""


def share_step(
    loaded: LoadedStep,
    losses: Sequence[PartLoss],
    read: ReadStats,
    work: Work,
    *,
    names: Sequence[str],
    directive: Directive,
    device: torch.device,
) -> SharedStep:
    """Everybody's losses. What is wished of any rank is wished of all; the longest wait for data counts.

    `losses` are those of the parts of this rank's micro-batches, in order; `names` are the plan's sources by number;
    `read` is what this rank asked of the store since the step before, `work` its forward passes.
    """
    step, world_size = loaded.step, dist.get_world_size()
    table = torch.zeros(len(step.parts) + world_size, 7, dtype=torch.float64)
    starts = np.concatenate([[0], np.cumsum([len(slot.parts) for slot in step.slots])])
    places = [int(starts[batch.position]) + at for batch in loaded.micro_batches for at in range(len(batch.parts))]
    for place, loss in zip(places, losses, strict=True):
        values = [loss.rows, loss.tokens, loss.hard_negative, *_perhaps(loss.in_batch), *_perhaps(loss.distillation)]
        table[place] = torch.tensor(values, dtype=torch.float64)
    mine = [loaded.wait_seconds, directive, read.requests, read.bytes, read.retries, work.seconds, work.tokens]
    table[len(step.parts) + dist.get_rank()] = torch.tensor(mine, dtype=torch.float64)
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
        work=[Work(seconds, int(tokens)) for *_, seconds, tokens in ranks],
    )


def _perhaps(value: float | None) -> tuple[float, float]:
    """A value that may be missing, as two numbers."""
    return (0.0, 0.0) if value is None else (value, 1.0)


def share_reads(mine: dict[str, ReadStats]) -> list[dict[str, ReadStats]]:
    """What each rank has read of each source, by rank; empty on all ranks but the first."""
    everybody: list[dict[str, ReadStats]] | None = None
    if dist.get_rank() == 0:
        everybody = [{} for _ in range(dist.get_world_size())]
    dist.gather_object(mine, everybody, dst=0)
    return everybody or []


def share_examples(loaded: LoadedStep, device: torch.device) -> list[list[str]]:
    """Hashes of the query texts that were read, 16 hex digits each, by part and in the order of use."""
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
