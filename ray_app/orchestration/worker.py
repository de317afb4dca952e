"""The code that runs inside Ray: the train function of a worker, and the tasks before and after training."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, TypedDict

import ray
import ray.train
import torch

from data_io.storage.store import Store
from ray_app.job_spec import JobSpec
from ray_app.orchestration.callbacks import Regrouping
from ray_app.orchestration.hang_detector import Order
from ray_app.orchestration.monitor import Welcome
from ray_app.orchestration.preemption import sigterm_received
from ray_app.orchestration.prestart import prewarm_workers, worker_environment
from ray_app.ray_runtime.failures import classify_error
from ray_app.ray_runtime.private_api import is_preempted
from ray_app.run_directory.driver_lease import refuse_without_lease
from ray_app.run_directory.exit_record import Failure
from ray_app.run_directory.process_log import ProcessLog, process_log
from ray_app.run_directory.status import RunStatus
from ray_app.structured_log import error_fields, fields
from ray_app.training.control import Directive, Start
from ray_app.training.heartbeat import Heartbeat, Stage
from ray_app.training.start_profile import StartProfile

Task = Literal["evaluate_before", "deliver"]

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_BEAT_SECONDS = 2.0

log = logging.getLogger(__name__)


class RayControl:
    """A loop's connection to the monitor, on every rank.

    Reports are sent without waiting; the monitor's directive arrives with a later answer.
    """

    def __init__(self, monitor: Any, *, rank: int, workers: int, prestart: bool) -> None:
        """With `prestart`, this rank starts pre-warmed workers after its first step."""
        self._monitor = monitor
        self._rank, self._workers = rank, workers
        self._heartbeat = Heartbeat()
        self._prestarts = prestart
        self._answer: Any = None
        self._directive = Directive.CONTINUE
        self._noticed = False

    def at(self, step: int, stage: Stage) -> None:
        self._heartbeat.at(step, stage)

    def report(self, status: RunStatus) -> None:
        self._collect_answer()
        if self._answer is None:
            self._answer = self._monitor.report.remote(status)

    def directive(self) -> Directive:
        """Never waits. Ranks can learn of a notice at different steps; they agree in the exchange of the next step."""
        self._collect_answer()
        if self._prestarts:
            threading.Thread(target=prewarm_workers, daemon=True).start()
            self._prestarts = False
        if sigterm_received() or is_preempted():
            self._directive = max(self._directive, Directive.REGROUP)
            if not self._noticed:
                self._monitor.notice.remote()
                self._noticed = True
        return self._directive

    def _collect_answer(self) -> None:
        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            self._directive = max(self._directive, ray.get(self._answer))
            self._answer = None

    @contextmanager
    def at_work(self, records: ProcessLog) -> Iterator[Start | None]:
        """Join and leave the group of workers. The monitor gets a failure of this rank before Ray does.

        Yields the reason for the new workers on rank 0, None on all other ranks.
        """
        failure: Failure | None = None
        start: Start | None = None
        ended = threading.Event()
        node, actor = socket.gethostname(), ray.get_runtime_context().current_actor
        ray.get(self._monitor.join.remote(self._rank, node, actor, worker_environment()))
        if self._rank == 0:
            welcome: Welcome = ray.get(self._monitor.enter.remote(self._workers))
            start = welcome.start
            ended.wait(welcome.wait_seconds)
        threading.Thread(target=self._beat, args=(ended,), name="beat", daemon=True).start()
        try:
            yield start
        except Regrouping:
            raise
        except BaseException as raised:  # torch's checkpoints raise an error that is not an Exception
            error = classify_error(raised)
            log.exception("worker failed", extra=fields(**error_fields(error)))
            failure = Failure(error, self._rank, node, records.last_lines)
            raise
        finally:
            ended.set()
            if self._rank == 0 or failure is not None:
                ray.get(self._monitor.leave.remote(failure))

    def _beat(self, ended: threading.Event) -> None:
        """Report the loop's position every few seconds, and follow the monitor's orders during a hang."""
        while not ended.wait(_BEAT_SECONDS):
            try:
                order = ray.get(self._monitor.beat.remote(self._rank, self._heartbeat.position()))
            except ray.exceptions.RayError:  # the driver and its monitor are gone
                return
            if order is Order.SHOW_STACKS:
                self._monitor.show.remote(self._rank, self._heartbeat.position(), self._heartbeat.stacks())
            elif order is Order.END:
                os._exit(1)


class WorkerConfig(TypedDict):
    """The argument of every worker's train function."""

    name: str
    spec: dict[str, Any]
    """A JobSpec as JSON."""
    data: Store
    run: Store
    monitor: Any
    holder: str
    """The holder of the run directory's lease when the workers were started."""
    started: str
    """The directory of this start's logs."""
    stop_after_steps: int | None
    prestart: bool
    """Whether the workers start pre-warmed workers."""


def train_worker(config: WorkerConfig) -> None:
    """The train function of Ray Train: one rank, from its process group to its last checkpoint.

    Raises Regrouping on every rank if the run continues with new workers: Ray Train then starts them.
    """
    profile = StartProfile()
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    run = config["run"]
    control = RayControl(config["monitor"], rank=rank, workers=workers, prestart=config["prestart"])
    log_context = {"job": config["name"], "rank": rank}
    with (
        process_log(run, f"logs/{config['started']}/worker-{rank}.log", context=lambda: log_context) as records,
        control.at_work(records) as start,
    ):
        from ray_app.training.loop import Worker, train

        refuse_without_lease(run, config["holder"])
        spec = JobSpec.model_validate(config["spec"])
        torch.set_num_threads(max(1, int(spec.workers.cpus)))
        device = ray.train.torch.get_device() if spec.workers.gpus else torch.device("cpu")
        profile.mark("welcome")
        outcome = train(
            config["name"],
            spec,
            data=config["data"],
            run=run,
            worker=Worker(rank=rank, world_size=workers, device=device, profile=profile),
            control=control,
            start=start,
            stop_after_steps=config["stop_after_steps"],
        )
        if outcome.directive is Directive.REGROUP and not outcome.finished:
            raise Regrouping(f"regrouping after step {outcome.step}")


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def run_task(task: Task, name: str, spec: JobSpec, data: Store, run: Store, threads: int, monitor: Any) -> None:
    """Run one task before or after training, in a separate process."""
    from ray_app.orchestration import stages

    torch.set_num_threads(threads)
    device = torch.device("cuda" if spec.workers.gpus else "cpu")

    def say(message: str) -> None:
        monitor.say.remote(message)

    say("")
    if task == "evaluate_before":
        stages.evaluate_initial(name, spec, data=data, run=run, device=device, say=say)
    else:
        stages.deliver(name, spec, data=data, run=run, device=device, say=say)
