"""A run from the driver's side: claim the run directory, evaluate, train, export, report.

The driver holds no state of the run. If it dies, starting the same job spec again resumes from the newest checkpoint.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from time import sleep
from typing import Any

from ray_app.ray_runtime.cluster import cluster  # isort: skip - must be imported before Ray

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from data_io.dataset.manifest import load_manifest
from data_io.dataset.tokenizer import own_tokenizer
from data_io.errors import ConfigError
from data_io.storage.probe import probe_store
from data_io.storage.store import Store, open_store
from data_io.wording import counted
from ray_app.data_order import make_order, select_sources
from ray_app.inference.hub import commit_of, hub_models
from ray_app.job_spec import JobSpec
from ray_app.orchestration.active_run import ActiveRun
from ray_app.orchestration.checkpoint_evaluator import CheckpointEvaluator
from ray_app.orchestration.monitor import Monitor
from ray_app.orchestration.preload import preload
from ray_app.orchestration.trainer import environment_of_workers, fit, make_trainer
from ray_app.orchestration.watchers import (
    CancelOnSignal,
    EvaluateCheckpoints,
    KeepLease,
    LogProgress,
    NothingToWaitFor,
    RaiseFatal,
    RecoverFromHangs,
    ReportFailure,
    ReportStoreOutage,
    ReportWaitForRoom,
    ShowStatus,
    ShowTask,
    StopOnSignal,
    Watcher,
    poll_all,
)
from ray_app.orchestration.worker import Task, WorkerConfig, run_task
from ray_app.ray_runtime.environment import EMBEDDED, check_gpus
from ray_app.ray_runtime.failures import classify_error
from ray_app.reporting.run_record import save_data_facts
from ray_app.run_directory.checkpoint_manifest import trained_steps
from ray_app.run_directory.directory import BEFORE, claim, read_status
from ray_app.run_directory.driver_lease import DriverLease
from ray_app.run_directory.exit_record import EXIT
from ray_app.run_directory.hub_commits import HubCommits, at_commits, read_hub_commits, save_hub_commits
from ray_app.run_directory.process_log import process_log
from ray_app.run_directory.status import Phase, Reason, RunStatus
from ray_app.signals import Interruption, listening
from ray_app.structured_log import LogFormat, fields, log_format_of_environment

_POLL_SECONDS = 0.3

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `signal` is the signal that stopped it, None if the run finished or reached its step limit."""

    run_uri: str
    status: RunStatus
    signal: int | None = None


def run(
    name: str,
    spec: JobSpec,
    *,
    job_spec_yaml: str,
    differences: Callable[[str], list[str]],
    changes: Callable[[str], list[str]],
    stop_after_steps: int | None = None,
    on_status: Callable[[RunStatus], None] = lambda status: None,
    namespace: str | None = None,
) -> RunResult:
    """Run a job until it is finished, until `stop_after_steps` steps of the run are done, or until SIGTERM or SIGINT.

    `frozen` is the job spec that the run directory was started with. `differences(frozen)` lists the fields that this
    job spec changes but must not change; `changes(frozen)` lists the allowed changes. `namespace` appears in log lines.
    $F2LLM_LOG_FORMAT also sends the log lines to standard error.

    Call it from the main thread. Raises CapacityError if this machine has too few GPUs and no cluster is joined. Other
    failures raise an F2LLMError after they are recorded in the run directory. Trained steps are kept in checkpoints.
    """
    console = log_format_of_environment()
    data = open_store(spec.data.uri, spec.storage.s3)
    run_store = open_store(spec.storage.uri, spec.storage.s3).child(name)
    manifest = load_manifest(data)
    plan = make_order(manifest, select_sources(manifest, spec), spec)
    _refuse_unknown_tasks(spec, data)
    if spec.model.needs_tokenizer_of_data:
        own_tokenizer(data)  # raises if it is missing, before the run starts
    with DriverLease(run_store, say=lambda message: on_status(RunStatus(name=name, message=message))) as lease:
        commits = _hub_commits(spec, run_store)  # before the claim: an unknown model claims no run directory
        spec = at_commits(spec, commits)
        claim(run_store, job_spec_yaml, differences, changes)
        save_data_facts(run_store, manifest)
        save_hub_commits(run_store, commits)
        status = read_status(run_store) or RunStatus(name=name)
        if status.phase == Phase.SUCCEEDED:
            return RunResult(run_store.uri, status)
        check_gpus(spec.workers.lowest * spec.workers.gpus, of_job=True)
        run_store.delete([EXIT])
        total_steps = spec.train.epochs * plan.steps_per_epoch
        why = _reason_to_start(status)
        abilities = ", ".join(probe_store(run_store))
        start = {"total_steps": total_steps, "workers": spec.workers.replicas, "message": "", "store": abilities}
        status = status.model_copy(update=start)
        label = f"{namespace}/{name}" if namespace else name
        active = ActiveRun(name, spec, data, run_store, status, on_status, lease, label=label)
        evaluates = spec.evaluation.checkpoints and bool(manifest.evaluations)
        return _run(active, why, total_steps, stop_after_steps, evaluates_checkpoints=evaluates, console=console)


def _hub_commits(spec: JobSpec, run: Store) -> HubCommits:
    """The commit of each model on the Hub: the one that the run started with, or at its first start the newest one.

    Raises ModelError or StorageError as a download does.
    """
    known = read_hub_commits(run)
    found: dict[str, str] = {role: commit_of(place) for role, place in hub_models(spec) if getattr(known, role) is None}
    return known.model_copy(update=found)


def _refuse_unknown_tasks(spec: JobSpec, data: Store) -> None:
    """Raises ConfigError for a task that cannot be evaluated, before training starts."""
    if not spec.evaluation.measures_tasks:
        return
    if find_spec("mteb") is None:
        raise ConfigError(
            "evaluation.tasks needs the package mteb, which is not installed",
            remedy="install it for the run's driver and workers: pip install '.[benchmark]' in a clone of f2llm-ray",
        )
    from ray_app.evaluation.tasks import find_tasks

    find_tasks(spec.evaluation.tasks, data)


def _reason_to_start(before: RunStatus) -> Reason:
    """Why a driver starts, from the last status of the previous driver."""
    if not before.attempt:
        return Reason.FIRST_START
    return {Phase.STOPPED: Reason.STOPPED, Phase.FAILED: Reason.FAILED}.get(before.phase, Reason.DRIVER_LOST)


def _run(
    run: ActiveRun,
    why: Reason,
    total_steps: int,
    stop_after_steps: int | None,
    *,
    evaluates_checkpoints: bool,
    console: LogFormat | None,
) -> RunResult:
    spec, store = run.spec, run.store
    kept = process_log(store, f"{run.logs}/driver.log", context=run.log_context, console=console)
    with kept as records, run.failures_recorded(records):
        start = fields(
            reason=why,
            resume_step=trained_steps(store),
            total_steps=total_steps,
            workers=spec.workers.replicas,
            workers_min=spec.workers.lowest,
            workers_max=spec.workers.highest,
            run=store.uri,
        )
        log.info("driver started", extra=start)
        for role, place in hub_models(spec):
            log.info("model of the Hub", extra=fields(role=role, model=place))
        # Install signal handlers after Ray has started: Ray would replace them with its own.
        cpus = spec.workers.highest * spec.workers.cpus
        environment = environment_of_workers(spec.workers)
        with cluster(cpus=cpus, env=environment, setup_hook=preload), listening() as interruption:
            monitor = Monitor.options(scheduling_strategy=_on_this_node()).remote(
                why, hang_timeout_seconds=spec.workers.hang_timeout_seconds
            )
            phases = Phases(run, monitor, interruption)
            wants_before = spec.evaluation.enabled and spec.evaluation.before
            if wants_before and not store.exists(BEFORE):
                phases.run_task(Phase.EVALUATING_BEFORE, "evaluate_before")
            if trained_steps(store) < total_steps and not interruption.signal:
                phases.train(stop_after_steps, evaluates_checkpoints=evaluates_checkpoints)
            if trained_steps(store) >= total_steps and not interruption.signal:
                phases.run_task(Phase.EVALUATING_AFTER, "deliver")
        if interruption.signal or trained_steps(store) < total_steps:
            run.end(
                Phase.STOPPED, f"stopped at step {run.status.step} of {total_steps}; run the same command to resume"
            )
        else:
            run.end(Phase.SUCCEEDED, "")
    return RunResult(store.uri, run.status, interruption.signal)


def _on_this_node() -> NodeAffinitySchedulingStrategy:
    """On the driver's node. A node of workers can be lost at any time, and the run depends on the monitor."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


@dataclass(frozen=True)
class Phases:
    """The phases of a run: training, and the tasks before and after it."""

    run: ActiveRun
    monitor: Any
    interruption: Interruption

    def train(self, stop_after_steps: int | None, *, evaluates_checkpoints: bool) -> None:
        """Run the training with Ray Train. Afterwards the run's status is the last status that rank 0 wrote."""
        self.run.enter(Phase.TRAINING)
        if not evaluates_checkpoints:
            self._train(stop_after_steps, [])
            return
        with self._checkpoint_evaluator() as evaluator:
            self._train(stop_after_steps, [EvaluateCheckpoints(self.run, evaluator)])
            if not self.interruption.signal:
                self.run.say("evaluating the last checkpoint")
                evaluator.finish(self._wait)
                self.run.say("")

    def _train(self, stop_after_steps: int | None, evaluation: list[Watcher]) -> None:
        run, monitor = self.run, self.monitor
        trainer = make_trainer(run.spec, monitor, self._worker_config(stop_after_steps))
        outcome: list[BaseException] = []
        thread = threading.Thread(target=fit, args=(trainer, outcome), name="ray-train", daemon=True)
        watchers: list[Watcher] = [
            ShowStatus(run),
            LogProgress(run),
            ReportWaitForRoom(run),
            StopOnSignal(run, monitor, self.interruption),
            *evaluation,
            ReportStoreOutage(run),
            ReportFailure(run),
            KeepLease(run),
            RecoverFromHangs(run, monitor),
            RaiseFatal(run),
        ]
        thread.start()
        with suppress(NothingToWaitFor):
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                poll_all(watchers, monitor)
        run.show_stored()
        run.count_seconds()
        if outcome:
            raise classify_error(outcome[0])

    @contextmanager
    def _checkpoint_evaluator(self) -> Iterator[CheckpointEvaluator]:
        """Evaluate checkpoints in a separate process until the block ends; the run's status shows the scores."""
        evaluator = CheckpointEvaluator(self.run.name, self.run.spec, self.run.data, self.run.store)
        self.run.scores = lambda: evaluator.scores
        try:
            yield evaluator
        finally:
            evaluator.end()

    def _wait(self) -> bool:
        sleep(_POLL_SECONDS)
        self.run.lease.refuse_if_lost()
        return not self.interruption.signal

    def _worker_config(self, stop_after_steps: int | None) -> WorkerConfig:
        run, prestart = self.run, self.run.spec.workers.prestart
        return WorkerConfig(
            name=run.name,
            spec=run.spec.model_dump(mode="json"),
            data=run.data,
            run=run.store,
            monitor=self.monitor,
            holder=run.lease.holder,
            started=run.started,
            stop_after_steps=stop_after_steps,
            prestart=prestart if prestart is not None else not EMBEDDED,
        )

    def run_task(self, phase: Phase, task: Task) -> None:
        """Run one task. A signal cancels it.

        On one machine the task gets the CPUs of all workers, because they are idle. On a cluster it gets the resources
        of one worker, because each worker is on its own node.
        """
        run, monitor, workers = self.run, self.monitor, self.run.spec.workers
        run.enter(phase)
        threads = max(1, int((workers.replicas if EMBEDDED else 1) * workers.cpus))
        needs = counted(threads, "CPU") + (f" and {workers.gpus} GPU" if workers.gpus else "")
        ray.get(monitor.say.remote(None))
        pending = run_task.options(num_cpus=threads, num_gpus=workers.gpus).remote(
            task, run.name, run.spec, run.data, run.store, threads, monitor
        )
        watchers: list[Watcher] = [
            KeepLease(run),
            CancelOnSignal(pending, self.interruption),
            ReportStoreOutage(run),
            ShowTask(run, needs),
        ]
        try:
            with suppress(NothingToWaitFor):
                while not ray.wait([pending], timeout=_POLL_SECONDS)[0]:
                    poll_all(watchers, monitor)
                ray.get(pending)
        except ray.exceptions.RayError as error:
            raise classify_error(error) from error
        finally:
            run.count_seconds()
