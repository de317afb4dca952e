"""Metrics, examples, events and status of a run, written by rank 0 during training; and the phases of a start."""

import logging
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any

from data_io.loading.loader import LoadedStep
from data_io.storage.store import Store
from ray_app.checkpointing.checkpoint import SavedCheckpoint
from ray_app.run_directory.attempts import refuse_if_replaced
from ray_app.run_directory.directory import EXAMPLES, METRICS, LineLog, append_event, read_status, write_status
from ray_app.run_directory.metrics import Rates, StepMetrics, losses_by_source, losses_of
from ray_app.run_directory.status import Phase, RunStatus, WorkerGroup
from ray_app.training.collectives import SharedStep
from ray_app.training.control import Start
from ray_app.training.stragglers import Stragglers

_STATUS_SECONDS = 5.0
_GROUPS_SHOWN = 20

log = logging.getLogger(__name__)


class StartProfile:
    """Seconds by phase, in order, from the beginning of a worker's train function to the end of its first step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = monotonic()

    def mark(self, phase: str) -> None:
        """`phase` ends now."""
        now = monotonic()
        self.seconds[phase] = round(now - self._last, 2)
        self._last = now


class Recorder:
    """Follows one attempt, until a later one has begun: then writing raises RunConflict.

    A resume drops the lines of steps that it will repeat: what stays is the surviving trajectory.
    """

    def __init__(
        self,
        name: str,
        run: Store,
        *,
        attempt: int,
        first_step: int,
        steps_per_epoch: int,
        epochs: int,
        workers: int,
        record_examples: bool,
        flops_per_token: int,
        start: Start | None = None,
    ) -> None:
        def keep(line: dict[str, Any]) -> bool:
            return bool(line["step"] <= first_step)

        self._run = run
        self._steps_per_epoch = steps_per_epoch
        self._flops_per_token = flops_per_token
        self._own = own = partial(refuse_if_replaced, run, attempt)
        self._metrics = LineLog(run, METRICS, keep=keep, before_write=own)
        self._examples = LineLog(run, EXAMPLES, keep=keep, before_write=own) if record_examples else None
        self._rates = Rates()
        self._stragglers = Stragglers()
        self._useful_seconds = sum(line["seconds"] for line in self._metrics.kept())
        before = read_status(run) or RunStatus(name=name)
        # Lines that were not yet in the store when their worker died are counted by the status, or not at all.
        lost = max(self._metrics.dropped, before.step - first_step)
        now, failure = datetime.now(UTC), start.failure if start else None
        group = WorkerGroup(
            attempt=attempt,
            time=now,
            step=first_step,
            workers=workers,
            reason=start.reason if start else None,
            message=failure.error.message if failure else "",
            steps_lost=lost,
        )
        self.facts_of_start = {"reason": group.reason, "steps_lost": lost, **(failure.facts if failure else {})}
        # Since the status before was written the run was training, or about to.
        self._training_seconds = before.training_seconds + max(0.0, (now - before.updated).total_seconds())
        self._clock = monotonic()
        self.status = before.model_copy(
            update={
                "phase": Phase.TRAINING,
                "attempt": attempt,
                "restarts": attempt - 1,
                "restarts_by_reason": _counted(before, group),
                "groups": (*before.groups, group)[-_GROUPS_SHOWN:],
                "step": first_step,
                "total_steps": steps_per_epoch * epochs,
                "epoch": first_step / steps_per_epoch,
                "workers": workers,
                "steps_lost": before.steps_lost + lost,
                "message": "",
            }
        )
        self._write_status()

    def event(self, event: str, **facts: Any) -> None:
        log.info("%s %s", event, facts)
        append_event(self._run, event, attempt=self.status.attempt, **facts)

    def step(
        self,
        loaded: LoadedStep,
        shared: SharedStep,
        *,
        learning_rate: float,
        grad_norm: float,
        seconds: float,
        consumed: int,
    ) -> RunStatus:
        """Write the step's line; returns the status after it."""
        means = losses_of(shared.parts)
        metrics = StepMetrics(
            step=loaded.step.index + 1,
            epoch=loaded.step.epoch,
            loss=means and means.loss,
            hard_negative_loss=means and means.hard_negative_loss,
            in_batch_loss=means and means.in_batch_loss,
            distillation_loss=means and means.distillation_loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            examples=means.examples if means else 0,
            tokens=sum(part.tokens for part in shared.parts),
            micro_batches_consumed=consumed,
            micro_batches_skipped=sum(slot.skipped for slot in loaded.step.slots),
            workers=self.status.workers,
            seconds=seconds,
            data_wait_seconds=shared.wait_seconds,
            data_requests=shared.read.requests,
            data_bytes=shared.read.bytes,
            data_retries=shared.read.retries,
            sources=losses_by_source(shared.parts),
        )
        self._metrics.append(metrics.model_dump(mode="json"))
        self._rates.add(metrics)
        self._stragglers.add(shared.work)
        for rank, ratio in self._stragglers.found():
            self.event(
                "Straggler",
                rank=rank,
                slowness=ratio,
                message=f"worker {rank} takes {ratio:.1f} times as long for a token as the median worker",
            )
        self._useful_seconds += seconds
        rates = self._rates.of(self.status.total_steps - metrics.step)
        losses = {name: source.loss for name, source in metrics.sources.items()}
        trained = self._training_seconds + monotonic() - self._clock
        self.status = self.status.model_copy(
            update={
                "step": metrics.step,
                "epoch": metrics.step / self._steps_per_epoch,
                "micro_batches_consumed": consumed,
                "loss": metrics.loss,
                "source_losses": {**self.status.source_losses, **losses},
                "store_retries": self.status.store_retries + metrics.data_retries,
                "model_flops_per_second": self._flops_per_token * rates.get("tokens_per_second", 0.0) or None,
                "worker_slowness": self._stragglers.slowness,
                "learning_rate": learning_rate,
                "training_seconds": trained,
                "goodput": min(1.0, self._useful_seconds / trained) if trained else None,
                **rates,
            }
        )
        if monotonic() - self._written > _STATUS_SECONDS:
            self._write_status()
        return self.status

    def examples(self, loaded: LoadedStep, names: list[str], hashes: list[list[str]]) -> None:
        """Which examples the step used: per part its source and the hashes of the query texts that were read."""
        if self._examples is not None:
            parts = [
                {"source": names[part.source], "queries": queries}
                for part, queries in zip(loaded.step.parts, hashes, strict=True)
            ]
            self._examples.append({"step": loaded.step.index + 1, "epoch": loaded.step.epoch, "parts": parts})

    def saved(self, checkpoint: SavedCheckpoint | None) -> None:
        """A save that was under way is complete."""
        if checkpoint is None:
            return
        self.status = self.status.model_copy(
            update={
                "last_checkpoint_step": checkpoint.name.step,
                "last_checkpoint_time": datetime.now(UTC),
                "checkpoint_stall_seconds": checkpoint.stall_seconds,
                "checkpoint_save_seconds": checkpoint.save_seconds,
            }
        )
        self.event(
            "Checkpointed",
            step=checkpoint.name.step,
            checkpoint=str(checkpoint.name),
            stall_seconds=round(checkpoint.stall_seconds, 3),
            save_seconds=round(checkpoint.save_seconds, 3),
        )
        self._write_status()

    def flush(self) -> None:
        """Every line written so far is in the store when this returns. Another thread may go on writing."""
        self._own()
        self._metrics.flush()
        if self._examples is not None:
            self._examples.flush()

    def close(self) -> None:
        """Lines and status are in the store when this returns."""
        self.flush()
        self._write_status()

    def _write_status(self) -> None:
        self._own()
        write_status(self._run, self.status)
        self._written = monotonic()
        log.info("step %d of %d, loss %s", self.status.step, self.status.total_steps, self.status.loss)


def _counted(before: RunStatus, group: WorkerGroup) -> dict[str, int]:
    """Restarts by reason, with this one where it is one."""
    counts = dict(before.restarts_by_reason)
    if group.attempt > 1 and group.reason is not None:
        counts[group.reason] = counts.get(group.reason, 0) + 1
    return counts
