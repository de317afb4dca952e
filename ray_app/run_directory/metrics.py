"""The metrics of a step, as lines of `metrics.jsonl`."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from data_io.storage.ranged_reads import ReadStats


class SourceMetrics(BaseModel):
    """The metrics of one source in a step: means over its rows."""

    model_config = ConfigDict(frozen=True)

    examples: int
    loss: float
    hard_negative_loss: float
    in_batch_loss: float | None
    distillation_loss: float | None = None


class StepMetrics(BaseModel):
    """A line of metrics.jsonl. `step` counts finished steps from 1; losses are means over the step's examples.

    `loss`: the minimized loss, None if every micro-batch was skipped. `in_batch_loss`: the mean over the examples with
    this loss, None if no example has it. `distillation_loss`: includes its weight, None without a teacher.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    epoch: int
    loss: float | None
    hard_negative_loss: float | None
    in_batch_loss: float | None
    distillation_loss: float | None = None
    learning_rate: float
    grad_norm: float
    examples: int
    tokens: int
    micro_batches_consumed: int
    micro_batches_skipped: int = 0
    workers: int
    seconds: float
    data_wait_seconds: float
    data_requests: int
    data_bytes: int
    data_retries: int
    sources: dict[str, SourceMetrics]


@dataclass(frozen=True)
class PartMetrics:
    """One source's part of a micro-batch, from the rank that ran it.

    `in_batch` is None if the task type has no such loss. `distillation` is None without a teacher. `rows` is 0 if the
    part was skipped.
    """

    source: str
    rows: int
    tokens: int
    hard_negative: float
    in_batch: float | None
    distillation: float | None = None

    @property
    def loss(self) -> float:
        return self.hard_negative + (self.in_batch or 0.0) + (self.distillation or 0.0)


def losses_of(parts: Sequence[PartMetrics]) -> SourceMetrics | None:
    """Means over the rows of `parts`; None without rows."""
    rows = sum(part.rows for part in parts)
    if not rows:
        return None
    return SourceMetrics(
        examples=rows,
        loss=sum(part.loss * part.rows for part in parts) / rows,
        hard_negative_loss=sum(part.hard_negative * part.rows for part in parts) / rows,
        in_batch_loss=_mean([(part.in_batch, part.rows) for part in parts]),
        distillation_loss=_mean([(part.distillation, part.rows) for part in parts]),
    )


def _mean(losses: Iterable[tuple[float | None, int]]) -> float | None:
    """Mean over the rows that have a loss; None if no row has one."""
    found = [(loss, rows) for loss, rows in losses if loss is not None]
    total = sum(rows for _, rows in found)
    return sum(loss * rows for loss, rows in found) / total if total else None


def losses_by_source(parts: Sequence[PartMetrics]) -> dict[str, SourceMetrics]:
    """`losses_of` each source, in alphabetical order."""
    names = sorted({part.source for part in parts})
    means = {name: losses_of([part for part in parts if part.source == name]) for name in names}
    return {name: metrics for name, metrics in means.items() if metrics is not None}


def reads_of(by_rank: Sequence[Mapping[str, ReadStats]]) -> dict[str, Any]:
    """Fields of the event DataRead: totals by source over all workers, and by worker over all sources."""
    sources = sorted({name for reads in by_rank for name in reads})
    return {
        "sources": {name: _facts([reads[name] for reads in by_rank if name in reads]) for name in sources},
        "by_worker": [_facts(reads.values()) for reads in by_rank],
    }


def _facts(reads: Iterable[ReadStats]) -> dict[str, Any]:
    total = sum(reads, ReadStats())
    return asdict(total) | {"seconds": round(total.seconds, 3)}


class Rates:
    """Mean speed over the last `window` steps, without the first step of an attempt, which is a warm-up."""

    def __init__(self, window: int = 20) -> None:
        self._steps: deque[StepMetrics] = deque(maxlen=window)
        self._warm = False

    def add(self, metrics: StepMetrics) -> None:
        if self._warm:
            self._steps.append(metrics)
        self._warm = True

    def of(self, steps_left: int) -> dict[str, Any]:
        """Fields of RunStatus; empty if there is nothing to average yet."""
        seconds = sum(m.seconds for m in self._steps)
        if seconds <= 0:
            return {}
        return {
            "examples_per_second": sum(m.examples for m in self._steps) / seconds,
            "tokens_per_second": sum(m.tokens for m in self._steps) / seconds,
            "data_wait_share": sum(m.data_wait_seconds for m in self._steps) / seconds,
            "eta_seconds": steps_left * seconds / len(self._steps),
        }
