"""Metrics, examples, events and status of a run, which rank 0 writes during training.

The files are described in docs/reference/run-directory.md.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any

from data_io.loading.order import DataOrder
from data_io.storage.ranged_reads import ReadStats
from data_io.storage.store import Store
from ray_app.checkpointing.checkpoint import CheckpointSaver, Restored, SavedCheckpoint
from ray_app.checkpointing.interval import CheckpointInterval
from ray_app.job_spec import JobSpec
from ray_app.run_directory.attempts import begin_attempt, refuse_if_replaced
from ray_app.run_directory.directory import EXAMPLES, METRICS, LineLog, append_event, read_status, write_status
from ray_app.run_directory.metrics import Rates, StepMetrics, losses_by_source, losses_of, reads_of
from ray_app.run_directory.status import Phase, RunStatus, WorkerGroup
from ray_app.structured_log import fields
from ray_app.training.control import Start
from ray_app.training.recorder import StepResult
from ray_app.training.start_profile import StartProfile
from ray_app.training.stragglers import Stragglers

_STATUS_SECONDS = 5.0
_GROUPS_SHOWN = 20

log = logging.getLogger(__name__)


class RunRecorder:
    """The recorder of rank 0. Once a later attempt has begun, writing raises RunConflict.

    A resume drops the lines of steps that it will compute again. So the files have only the steps that contributed to
    the weights.
    """

    def __init__(
        self,
        name: str,
        spec: JobSpec,
        run: Store,
        *,
        order: DataOrder,
        attempt: int,
        first_step: int,
        workers: int,
        flops_per_token: int,
        start: Start | None,
        profile: StartProfile,
        report: Callable[[RunStatus], None],
    ) -> None:
        """Begins the attempt. `report` gets the status at the start, after every step, and at the end."""

        def keep(line: dict[str, Any]) -> bool:
            step, seconds = line.get("step"), line.get("seconds", 0.0)
            return isinstance(step, int) and step <= first_step and isinstance(seconds, int | float)

        begin_attempt(run, attempt, first_step)
        self._run = run
        self._attempt, self._first_step, self._workers, self._start = attempt, first_step, workers, start
        self._source_names = [source.name for source in order.sources]
        self._steps_per_epoch = order.steps_per_epoch
        self._total_steps = order.steps_per_epoch * spec.train.epochs
        self._flops_per_token = flops_per_token
        self._profile = profile
        self._report = report
        self._refuse_if_replaced = partial(refuse_if_replaced, run, attempt)
        self._metrics = LineLog(run, METRICS, keep=keep, before_write=self._refuse_if_replaced)
        self._examples: LineLog | None = None
        if spec.train.record_examples:
            self._examples = LineLog(run, EXAMPLES, keep=keep, before_write=self._refuse_if_replaced)
        self._interval = CheckpointInterval(spec.checkpoint)
        self._rates = Rates()
        self._stragglers = Stragglers()
        self._useful_seconds = sum(line.get("seconds", 0.0) for line in self._metrics.kept())
        self._status = read_status(run) or RunStatus(name=name)
        self._began = monotonic()

    def begin(self, restored: Restored | None) -> None:
        """Write the first status of the attempt, and the events for damaged checkpoints and for the start or resume."""
        before, failure = self._status, self._start.failure if self._start else None
        # Steps whose lines were not in the store when the worker died are counted from the status, or not at all.
        lost = max(self._metrics.dropped, before.step - self._first_step)
        now = datetime.now(UTC)
        group = WorkerGroup(
            attempt=self._attempt,
            time=now,
            step=self._first_step,
            workers=self._workers,
            reason=self._start.reason if self._start else None,
            message=failure.error.message if failure else "",
            steps_lost=lost,
        )
        # Since the previous status was written, the run was training or about to train.
        self._training_seconds = before.training_seconds + max(0.0, (now - before.updated).total_seconds())
        self._status = before.model_copy(
            update={
                "phase": Phase.TRAINING,
                "attempt": group.attempt,
                "restarts": group.attempt - 1,
                "restarts_by_reason": _counted(before, group),
                "groups": (*before.groups, group)[-_GROUPS_SHOWN:],
                "step": group.step,
                "total_steps": self._total_steps,
                "epoch": group.step / self._steps_per_epoch,
                "workers": group.workers,
                "steps_lost": before.steps_lost + lost,
                "message": "",
            }
        )
        self._write_status()
        for damage in restored.skipped if restored else ():
            self._event("CheckpointDamaged", message=damage)
        self._event(
            "Resumed" if restored else "Started",
            step=group.step,
            workers=group.workers,
            checkpoint=str(restored.name) if restored else None,
            reason=group.reason,
            steps_lost=lost,
            **(failure.facts if failure else {}),
        )
        self._report(self._status)

    def save_is_due(self, step: int) -> bool:
        """Follows the job's checkpoint interval, which may depend on the cost of earlier saves."""
        return self._interval.due(step, self._status)

    def step(self, result: StepResult) -> None:
        """Write the step's lines and report the status."""
        metrics = self._metrics_of(result)
        self._metrics.append(metrics.model_dump(mode="json"))
        self._rates.add(metrics)
        self._watch_stragglers(result)
        self._useful_seconds += result.seconds
        self._status = self._status_after(metrics)
        if monotonic() - self._written > _STATUS_SECONDS:
            self._write_status()
        self._write_examples(result)
        self._report(self._status)
        if "first_step" not in self._profile.seconds:
            self._profile.mark("first_step")
            self._event("StartProfile", step=metrics.step, seconds=self._profile.seconds)

    def save_begun(self) -> None:
        """Start the interval to the next save."""
        self._interval.begun()

    def saved(self, checkpoint: SavedCheckpoint | None) -> None:
        """Record the status and the event of a complete checkpoint; None: record nothing."""
        if checkpoint is None:
            return
        self._status = self._status.model_copy(
            update={
                "last_checkpoint_step": checkpoint.name.step,
                "last_checkpoint_time": datetime.now(UTC),
                "checkpoint_stall_seconds": checkpoint.stall_seconds,
                "checkpoint_save_seconds": checkpoint.save_seconds,
            }
        )
        self._event(
            "Checkpointed",
            step=checkpoint.name.step,
            checkpoint=str(checkpoint.name),
            stall_seconds=round(checkpoint.stall_seconds, 3),
            save_seconds=round(checkpoint.save_seconds, 3),
        )
        self._write_status()

    def poll(self, saver: CheckpointSaver) -> None:
        self.saved(saver.poll())

    def finish(self, reads_by_rank: Sequence[Mapping[str, ReadStats]]) -> None:
        """Write the event with the data reads, and report the status a last time."""
        self._event("DataRead", **reads_of(reads_by_rank))
        self._report(self._status)

    def flush(self) -> None:
        """When this returns, every line written so far is in the store. Another thread may write at the same time."""
        self._refuse_if_replaced()
        self._metrics.flush()
        if self._examples is not None:
            self._examples.flush()

    def close(self) -> None:
        """When this returns, lines and status are in the store."""
        self.flush()
        self._write_status()

    def _event(self, event: str, **facts: Any) -> None:
        known = {("detail" if name == "message" else name): value for name, value in facts.items()}
        log.info(event, extra=fields(attempt=self._status.attempt, **known))
        append_event(self._run, event, attempt=self._status.attempt, **facts)

    def _metrics_of(self, result: StepResult) -> StepMetrics:
        step, shared = result.loaded.step, result.shared
        means = losses_of(shared.parts)
        return StepMetrics(
            step=step.index + 1,
            epoch=step.epoch,
            loss=means and means.loss,
            hard_negative_loss=means and means.hard_negative_loss,
            in_batch_loss=means and means.in_batch_loss,
            distillation_loss=means and means.distillation_loss,
            learning_rate=result.learning_rate,
            grad_norm=result.grad_norm,
            examples=means.examples if means else 0,
            tokens=sum(part.tokens for part in shared.parts),
            micro_batches_consumed=result.micro_batches_consumed,
            micro_batches_skipped=sum(slot.skipped for slot in step.slots),
            workers=self._status.workers,
            seconds=result.seconds,
            data_wait_seconds=shared.wait_seconds,
            data_requests=shared.read.requests,
            data_bytes=shared.read.bytes,
            data_retries=shared.read.retries,
            sources=losses_by_source(shared.parts),
        )

    def _watch_stragglers(self, result: StepResult) -> None:
        self._stragglers.add(result.shared.timings)
        for rank, slowness in self._stragglers.newly_found():
            self._event(
                "Straggler",
                rank=rank,
                slowness=slowness,
                message=f"worker {rank} takes {slowness:.1f} times as long per token as the median worker",
            )

    def _status_after(self, metrics: StepMetrics) -> RunStatus:
        status = self._status
        rates = self._rates.of(status.total_steps - metrics.step)
        losses = {name: source.loss for name, source in metrics.sources.items()}
        trained = self._training_seconds + monotonic() - self._began
        return status.model_copy(
            update={
                "step": metrics.step,
                "epoch": metrics.step / self._steps_per_epoch,
                "micro_batches_consumed": metrics.micro_batches_consumed,
                "loss": metrics.loss,
                "source_losses": {**status.source_losses, **losses},
                "store_retries": status.store_retries + metrics.data_retries,
                "model_flops_per_second": self._flops_per_token * rates.get("tokens_per_second", 0.0) or None,
                "worker_slowness": self._stragglers.slowness,
                "learning_rate": metrics.learning_rate,
                "training_seconds": trained,
                "goodput": min(1.0, self._useful_seconds / trained) if trained else None,
                **rates,
            }
        )

    def _write_examples(self, result: StepResult) -> None:
        """Write the examples of the step: for each part its source and the hashes of its query texts."""
        if self._examples is not None:
            step = result.loaded.step
            parts = [
                {"source": self._source_names[part.source], "queries": queries}
                for part, queries in zip(step.parts, result.query_hashes, strict=True)
            ]
            self._examples.append({"step": step.index + 1, "epoch": step.epoch, "parts": parts})

    def _write_status(self) -> None:
        self._refuse_if_replaced()
        write_status(self._run, self._status)
        self._written = monotonic()
        status = self._status
        progress = fields(attempt=status.attempt, step=status.step, total_steps=status.total_steps, loss=status.loss)
        log.info("progress", extra=progress)


def _counted(before: RunStatus, group: WorkerGroup) -> dict[str, int]:
    """Restarts by reason, including this start if it is a restart."""
    counts = dict(before.restarts_by_reason)
    if group.attempt > 1 and group.reason is not None:
        counts[group.reason] = counts.get(group.reason, 0) + 1
    return counts
