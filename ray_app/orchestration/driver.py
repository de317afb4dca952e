"""A run from the driver's side: claim the run directory, measure, train, export, report.

The driver holds no state of the run. It may die at any moment; the same document started again goes on from the newest
checkpoint.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any

from ray_app.ray_runtime.cluster import cluster  # isort: skip - before Ray, which reads what it sets

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data_io.dataset.manifest import load_manifest
from data_io.dataset.tokenizer import own_tokenizer
from data_io.errors import F2LLMError, StorageError
from data_io.storage.probe import probe_store
from data_io.storage.store import Store, open_store
from ray_app.config import JobSpec
from ray_app.data_order import make_order, select_sources
from ray_app.evaluation.job_tasks import refuse_unknown_tasks
from ray_app.orchestration.checkpoint_evaluator import CheckpointEvaluation
from ray_app.orchestration.hang_recovery import end_hang
from ray_app.orchestration.monitor import Monitor, View
from ray_app.orchestration.preload import preload
from ray_app.orchestration.trainer import environment_of_workers, fit, make_trainer
from ray_app.orchestration.worker import Task, WorkerConfig, run_task
from ray_app.ray_runtime.environment import EMBEDDED, check_gpus
from ray_app.ray_runtime.failures import classify_error
from ray_app.reporting.run_record import save_data_facts
from ray_app.reporting.run_report import write_report
from ray_app.run_directory.checkpoints import trained_steps
from ray_app.run_directory.directory import BEFORE, append_event, claim, read_status, write_status
from ray_app.run_directory.driver_lease import DriverLease
from ray_app.run_directory.exit_record import EXIT, Failure, exit_record, write_exit_record
from ray_app.run_directory.process_log import ProcessLog, process_log
from ray_app.run_directory.status import Phase, Reason, RunStatus
from ray_app.signals import Interruption, listening

_POLL_SECONDS = 0.3
_IDLE_SECONDS = 5.0
"""Once no worker has been at work for so long, a run that is to stop waits for none."""
_TASK_SECONDS = 20.0
"""A task that has room is at work by then."""
_BUG = "this is not meant to happen; run it again with --debug and report what it prints"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `signal` is the one that stopped it, None where it ended by itself or by its step limit."""

    run_uri: str
    status: RunStatus
    signal: int | None = None


def run(
    name: str,
    spec: JobSpec,
    *,
    document_yaml: str,
    differences: Callable[[str], list[str]],
    changes: Callable[[str], list[str]],
    stop_after_steps: int | None = None,
    on_status: Callable[[RunStatus], None] = lambda status: None,
) -> RunResult:
    """Run a job to its end, or until `stop_after_steps` steps are done in all, or until SIGTERM or SIGINT.

    `differences(frozen)` lists what this document may not change of the one that the run directory was started with,
    `changes(frozen)` what it changes and may.
    Call it from the main thread. Raises CapacityError where this machine has too few GPUs and no cluster is joined,
    else an F2LLMError, after the run directory says so too; what was trained is never lost.
    """
    data = open_store(spec.data.uri, spec.storage.s3)
    run_store = open_store(spec.storage.uri, spec.storage.s3).child(name)
    manifest = load_manifest(data)
    plan = make_order(manifest, select_sources(manifest, spec), spec)
    refuse_unknown_tasks(spec, data)
    if spec.model.needs_tokenizer_of_data:
        own_tokenizer(data)  # it is asked for here so that nothing is begun without one
    with DriverLease(run_store, say=lambda message: on_status(RunStatus(name=name, message=message))) as lease:
        claim(run_store, document_yaml, differences, changes)
        save_data_facts(run_store, manifest)
        status = read_status(run_store) or RunStatus(name=name)
        if status.phase == Phase.SUCCEEDED:
            return RunResult(run_store.uri, status)
        check_gpus(spec.workers.lowest * spec.workers.gpus)
        run_store.delete([EXIT])
        total_steps = spec.train.epochs * plan.steps_per_epoch
        why = _reason_to_start(status)
        abilities = ", ".join(probe_store(run_store))
        start = {"total_steps": total_steps, "workers": spec.workers.replicas, "message": "", "store": abilities}
        status = status.model_copy(update=start)
        measures = spec.evaluation.checkpoints and bool(manifest.evaluations)
        job = _Job(name, spec, data, run_store, status, on_status, lease, measures_checkpoints=measures)
        return _run(job, why, total_steps, stop_after_steps)


def _reason_to_start(before: RunStatus) -> Reason:
    """Why a driver starts, by the status that the one before left."""
    if not before.attempt:
        return Reason.FIRST_START
    return {Phase.STOPPED: Reason.STOPPED, Phase.FAILED: Reason.FAILED}.get(before.phase, Reason.DRIVER_LOST)


def _run(job: "_Job", why: Reason, total_steps: int, stop_after_steps: int | None) -> RunResult:
    spec, run = job.spec, job.run
    with process_log(run, f"logs/{job.started}/driver.log") as records, job.failures_recorded(records):
        # Listening starts after Ray, which would put handlers of its own in the place of ours.
        cpus = spec.workers.highest * spec.workers.cpus
        environment = environment_of_workers(spec.workers)
        with cluster(cpus=cpus, env=environment, setup_hook=preload), listening() as interruption:
            job.monitor = Monitor.options(scheduling_strategy=_on_this_node()).remote(
                why, hang_timeout_seconds=spec.workers.hang_timeout_seconds
            )
            wants_before = spec.evaluation.enabled and spec.evaluation.before
            if wants_before and not run.exists(BEFORE):
                job.run_task(Phase.EVALUATING_BEFORE, "evaluate_before", interruption)
            if trained_steps(run) < total_steps and not interruption.signal:
                job.train(interruption, stop_after_steps)
            if trained_steps(run) >= total_steps and not interruption.signal:
                job.run_task(Phase.EVALUATING_AFTER, "deliver", interruption)
        if interruption.signal or trained_steps(run) < total_steps:
            job.end(Phase.STOPPED, f"stopped at step {job.status.step} of {total_steps}; run it again to go on")
        else:
            job.end(Phase.SUCCEEDED, "")
    return RunResult(run.uri, job.status, interruption.signal)


def _on_this_node() -> NodeAffinitySchedulingStrategy:
    """Beside the driver: a node of workers may go at any time, and must not take with it what the run depends on."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class _Job:
    """A run under way, and its status."""

    monitor: Any

    def __init__(
        self,
        name: str,
        spec: JobSpec,
        data: Store,
        run_store: Store,
        status: RunStatus,
        on_status: Callable[[RunStatus], None],
        lease: DriverLease,
        *,
        measures_checkpoints: bool,
    ) -> None:
        self.name, self.spec, self.data, self.run = name, spec, data, run_store
        self.status = status
        self._on_status = on_status
        self.lease = lease
        self.started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._failure: Failure | None = None
        self._measures_checkpoints = measures_checkpoints
        self._measured: CheckpointEvaluation | None = None

    def train(self, interruption: Interruption, stop_after_steps: int | None) -> None:
        """All training under Ray Train; at the end `status` is what rank 0 wrote last."""
        self._enter(Phase.TRAINING)
        with self._measuring():
            self._train(interruption, stop_after_steps)
            if self._measured is not None and not interruption.signal:
                self._say("measuring the last checkpoint")
                self._measured.finish(lambda: self._wait(interruption))
                self._say("")

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        """Checkpoints are measured beside the block, where the document asks for it."""
        if not self._measures_checkpoints:
            yield
            return
        self._measured = CheckpointEvaluation(self.name, self.spec, self.data, self.run)
        try:
            yield
        finally:
            self._measured.end()

    def _wait(self, interruption: Interruption) -> bool:
        sleep(_POLL_SECONDS)
        self.lease.refuse_if_lost()
        return not interruption.signal

    def _train(self, interruption: Interruption, stop_after_steps: int | None) -> None:
        begin, seconds_before = monotonic(), dict(self.status.seconds)
        trainer = make_trainer(self.spec, self.monitor, self._worker_config(stop_after_steps))
        outcome: list[BaseException] = []
        thread = threading.Thread(target=fit, args=(trainer, outcome), name="ray-train", daemon=True)
        thread.start()
        asked, waits, shown = False, False, self.status
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            view: View = ray.get(self.monitor.view.remote())
            if view.status is not None and view.status != shown:
                shown = view.status
                self._show(shown)
            if view.waits_for_room != waits:
                waits, fewest = view.waits_for_room, self.spec.workers.lowest
                self._say(f"waiting for room for {fewest} worker{'s' if fewest > 1 else ''}" if waits else "")
            if interruption.signal and not asked:
                self.monitor.request_stop.remote()
                doing = "ending, no worker is at work" if view.idle_seconds else "writing a checkpoint"
                self._say(f"{signal.Signals(interruption.signal).name}: {doing}")
                asked = True
            if asked and view.idle_seconds > _IDLE_SECONDS:
                break  # there is nothing to save, and leaving Ray ends its wait
            if self._measured is not None and self._measured.look(shown.last_checkpoint_step):
                self._show(self.status)
            self._hear_of_the_store()
            self._hear_of(view.failure)
            self.lease.refuse_if_lost()
            end_hang(self.monitor, self.run, logs=f"logs/{self.started}")
            if view.fatal is not None:
                self._failure = view.fatal
                raise view.fatal.error  # Ray Train would start the workers again; leaving Ray ends it
        spent = monotonic() - begin
        self._show(read_status(self.run) or self.status)
        self._add_seconds(Phase.TRAINING, spent, seconds_before)
        if outcome:
            raise classify_error(outcome[0])

    def _worker_config(self, stop_after_steps: int | None) -> WorkerConfig:
        prestart = self.spec.workers.prestart
        return WorkerConfig(
            name=self.name,
            spec=self.spec.model_dump(mode="json"),
            data=self.data,
            run=self.run,
            monitor=self.monitor,
            holder=self.lease.holder,
            started=self.started,
            stop_after_steps=stop_after_steps,
            prestart=prestart if prestart is not None else not EMBEDDED,
        )

    def run_task(self, phase: Phase, task: Task, interruption: Interruption) -> None:
        """One task on the resources of all workers together, as they are idle; given up when a signal comes.

        On a cluster a task has the resources of one of them, as each is on a node of its own.
        """
        self._enter(phase)
        begin, seconds_before = monotonic(), dict(self.status.seconds)
        workers = self.spec.workers
        threads = max(1, int((workers.replicas if EMBEDDED else 1) * workers.cpus))
        options = {"num_cpus": threads, "num_gpus": workers.gpus}
        needs = f"{threads} CPU" + (f" and {workers.gpus} GPU" if workers.gpus else "")
        ray.get(self.monitor.say.remote(None))
        pending = run_task.options(**options).remote(
            task, self.name, self.spec, self.data, self.run, threads, self.monitor
        )
        try:
            while not ray.wait([pending], timeout=_POLL_SECONDS)[0]:
                self.lease.refuse_if_lost()
                if interruption.signal:
                    ray.cancel(pending, force=True)
                    return
                self._hear_of_the_store()
                view: View = ray.get(self.monitor.view.remote())
                message = view.message
                if message is None:
                    late = not EMBEDDED and monotonic() - begin > _TASK_SECONDS
                    message = f"waiting for room for a task of {needs}" if late else ""
                if message != self.status.message:
                    self._say(message)
            ray.get(pending)
        except ray.exceptions.RayError as error:
            raise classify_error(error) from error
        finally:
            self._add_seconds(phase, monotonic() - begin, seconds_before)

    def end(self, phase: Phase, message: str) -> None:
        self._show(self.status.model_copy(update={"phase": phase, "message": message, "eta_seconds": None}))
        write_status(self.run, self.status)
        append_event(self.run, phase.value, step=self.status.step, message=message)
        write_report(self.run)

    @contextmanager
    def failures_recorded(self, records: ProcessLog) -> Iterator[None]:
        """An error that ends the run is in the run directory before the caller sees it."""
        try:
            yield
        except Exception as raised:
            if self.lease.lost is not None:  # the run directory is another driver's
                raise
            ours = isinstance(raised, (F2LLMError, ray.exceptions.RayError))
            error = classify_error(raised) if ours else F2LLMError(f"{type(raised).__name__}: {raised}", remedy=_BUG)
            of_workers = self._failure if self._failure is not None and self._failure.error is error else None
            with suppress(StorageError):  # a store that is away must not hide what happened
                self._record(of_workers or Failure(error), records)
            raise error from raised

    def _record(self, failure: Failure, records: ProcessLog) -> None:
        error = failure.error
        if failure is not self._failure:
            log.error("%s", error.message, exc_info=error)
        write_exit_record(self.run, exit_record(failure, self.status, driver_log=records.last_lines))
        self._show(self.status.model_copy(update={"phase": Phase.FAILED, "message": error.message}))
        write_status(self.run, self.status)
        append_event(self.run, "Failed", **failure.facts, remedy=error.remedy or "")

    def _hear_of(self, failure: Failure | None) -> None:
        """Say what the workers failed from, once; Ray Train starts others."""
        if failure is not None and (self._failure is None or failure.time != self._failure.time):
            where = "a worker" if failure.rank is None else f"worker {failure.rank} on {failure.node}"
            log.warning("%s failed: %s", where, failure.error.message)
            self._say(f"{where} failed, workers are started again: {failure.error.message}")
        self._failure = failure

    def _hear_of_the_store(self) -> None:
        since = self.lease.store_silent_since
        if since != self.status.store_silent_since:
            log.warning("the store answers again" if since is None else f"the store has not answered since {since}")
            self._show(self.status)

    def _enter(self, phase: Phase) -> None:
        log.info("%s", phase.value)
        self._show(self.status.model_copy(update={"phase": phase, "message": ""}))
        write_status(self.run, self.status)

    def _say(self, message: str) -> None:
        self._show(self.status.model_copy(update={"message": message}))

    def _show(self, status: RunStatus) -> None:
        scores = self._measured.scores if self._measured is not None else {}
        self.status = status.model_copy(update={"store_silent_since": self.lease.store_silent_since, **scores})
        self._on_status(self.status)

    def _add_seconds(self, phase: Phase, spent: float, before: dict[str, float]) -> None:
        seconds = {**before, phase.value: before.get(phase.value, 0.0) + spent}
        self.status = self.status.model_copy(update={"seconds": seconds})
        write_status(self.run, self.status)
