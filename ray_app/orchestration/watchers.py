"""The driver's duties during a phase: small objects with one duty each, polled in turn.

An exception in a watcher ends the phase; NothingToWaitFor ends it without an error.
"""

import logging
import signal
from collections.abc import Sequence
from time import monotonic
from typing import Any, Protocol

from ray_app.ray_runtime.environment import EMBEDDED  # isort: skip - must be imported before Ray

import ray

from data_io.wording import counted
from ray_app.orchestration.active_run import ActiveRun
from ray_app.orchestration.checkpoint_evaluator import CheckpointEvaluator
from ray_app.orchestration.hang_recovery import recover_from_hang
from ray_app.orchestration.monitor import View
from ray_app.signals import Interruption
from ray_app.structured_log import error_fields, fields

_IDLE_SECONDS = 5.0
"""If no worker has been running for this long, a run that must stop does not wait for workers."""
_TASK_SECONDS = 20.0
"""A task that has enough resources is running by then."""

log = logging.getLogger(__name__)


class NothingToWaitFor(Exception):
    """Not an error: ends the phase without waiting for its result."""


class Watcher(Protocol):
    """One duty of the driver."""

    def poll(self, view: View) -> None:
        """Act on the monitor's current view."""


def poll_all(watchers: Sequence[Watcher], monitor: Any) -> None:
    """Poll each watcher once, in order, with the same view of the monitor."""
    view: View = ray.get(monitor.view.remote())
    for watcher in watchers:
        watcher.poll(view)


class ShowStatus:
    """Shows the last status that rank 0 reported."""

    def __init__(self, run: ActiveRun) -> None:
        self._run, self._shown = run, run.status

    def poll(self, view: View) -> None:
        if view.status is not None and view.status != self._shown:
            self._shown = view.status
            self._run.show(view.status)


class LogProgress:
    """Logs each new worker group and each checkpoint."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._attempt, self._checkpoint_step = run.status.attempt, run.status.last_checkpoint_step

    def poll(self, view: View) -> None:
        status = self._run.status
        for group in status.groups:
            if group.attempt > self._attempt:
                self._attempt = group.attempt
                start = fields(
                    workers=group.workers,
                    reason=group.reason,
                    resume_step=group.step,
                    steps_lost=group.steps_lost,
                    error=group.message,
                )
                log.info("workers started", extra=start)
        if status.last_checkpoint_step is not None and status.last_checkpoint_step != self._checkpoint_step:
            self._checkpoint_step = status.last_checkpoint_step
            seconds = status.checkpoint_save_seconds
            save_seconds = None if seconds is None else round(seconds, 3)
            log.info("checkpoint written", extra=fields(step=self._checkpoint_step, save_seconds=save_seconds))


class ReportWaitForRoom:
    """Reports that the cluster lacks resources for workers.min workers, and when it has them again."""

    def __init__(self, run: ActiveRun) -> None:
        self._run, self._waits = run, False

    def poll(self, view: View) -> None:
        if view.waits_for_room == self._waits:
            return
        self._waits, fewest = view.waits_for_room, self._run.spec.workers.lowest
        log.info("waiting for resources" if self._waits else "resources found", extra=fields(workers_min=fewest))
        self._run.say(f"waiting for resources for {counted(fewest, 'worker')}" if self._waits else "")


class StopOnSignal:
    """After a signal, asks the workers to write a checkpoint and exit."""

    def __init__(self, run: ActiveRun, monitor: Any, interruption: Interruption) -> None:
        self._run, self._monitor, self._interruption = run, monitor, interruption
        self._requested = False

    def poll(self, view: View) -> None:
        number = self._interruption.signal
        if number and not self._requested:
            self._monitor.request_stop.remote()
            doing = "ending, no worker is running" if view.idle_seconds else "writing a checkpoint"
            log.info("stop requested", extra=fields(signal=signal.Signals(number).name, step=self._run.status.step))
            self._run.say(f"{signal.Signals(number).name}: {doing}")
            self._requested = True
        if self._requested and view.idle_seconds > _IDLE_SECONDS:
            raise NothingToWaitFor  # nothing to save; Ray stops waiting when the driver leaves it


class EvaluateCheckpoints:
    """Requests the evaluation of each new checkpoint, and shows the scores."""

    def __init__(self, run: ActiveRun, evaluator: CheckpointEvaluator) -> None:
        self._run, self._evaluator = run, evaluator

    def poll(self, view: View) -> None:
        if self._evaluator.poll(self._run.status.last_checkpoint_step):
            self._run.show(self._run.status)


class ReportStoreOutage:
    """Reports when the store stops answering the driver's lease, and when it answers again."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def poll(self, view: View) -> None:
        since = self._run.lease.store_unreachable_since
        if since == self._run.status.store_unreachable_since:
            return
        if since is None:
            log.warning("the store is reachable again")
        else:
            log.warning("the store is unreachable", extra=fields(since=since.isoformat(timespec="seconds")))
        self._run.show(self._run.status)


class ReportFailure:
    """Reports each failure of the workers once. Ray Train restarts them."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def poll(self, view: View) -> None:
        failure, known = view.failure, self._run.failure
        if failure is not None and (known is None or failure.time != known.time):
            where = "a worker" if failure.rank is None else f"worker {failure.rank} on {failure.node}"
            failed = fields(rank=failure.rank, node=failure.node, **error_fields(failure.error))
            log.warning("worker failed", extra=failed)
            self._run.say(f"{where} failed, the workers restart: {failure.error.message}")
        self._run.failure = failure


class KeepLease:
    """Raises RunConflict if another driver has taken over the run."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def poll(self, view: View) -> None:
        self._run.lease.refuse_if_lost()


class RecoverFromHangs:
    """Ends workers that hang, so that Ray Train starts new ones."""

    def __init__(self, run: ActiveRun, monitor: Any) -> None:
        self._run, self._monitor = run, monitor

    def poll(self, view: View) -> None:
        recover_from_hang(self._monitor, self._run.store, logs=self._run.logs)


class RaiseFatal:
    """Raises a failure that a restart of the workers would not fix."""

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def poll(self, view: View) -> None:
        if view.fatal is not None:
            self._run.failure = view.fatal
            raise view.fatal.error  # Ray Train would restart the workers; it ends when the driver leaves Ray


class CancelOnSignal:
    """Cancels a task after a signal."""

    def __init__(self, task: Any, interruption: Interruption) -> None:
        self._task, self._interruption = task, interruption

    def poll(self, view: View) -> None:
        if self._interruption.signal:
            log.info("task canceled", extra=fields(signal=signal.Signals(self._interruption.signal).name))
            ray.cancel(self._task, force=True)
            raise NothingToWaitFor


class ShowTask:
    """Shows the progress of a task, or the resources that it waits for."""

    def __init__(self, run: ActiveRun, needs: str) -> None:
        self._run, self._needs, self._began = run, needs, monotonic()

    def poll(self, view: View) -> None:
        message = view.message
        if message is None:
            late = not EMBEDDED and monotonic() - self._began > _TASK_SECONDS
            message = f"waiting for resources for a task: {self._needs}" if late else ""
        if message != self._run.status.message:
            self._run.say(message)
