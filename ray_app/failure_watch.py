"""What Ray Train sees of its workers' ends: of a process that was killed nobody else can tell."""

from typing import Any

from ray.train.v2._internal.execution.callback import WorkerGroupCallback  # the only hook that names failed ranks

from ray_app.causes import cause_of
from ray_app.exit_record import Failure
from ray_app.worker import Regrouping


class FailureWatch(WorkerGroupCallback):  # type: ignore[misc]
    """Runs in Ray Train's controller."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._nodes: dict[int, str] = {}

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Remember where each rank is: a worker that died cannot say it any more."""
        self._nodes = {
            worker.distributed_context.world_rank: worker.metadata.hostname for worker in worker_group.get_workers()
        }

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Tell the monitor what ended which rank. Workers that leave in order to regroup have not failed."""
        failures = {
            rank: Failure(cause_of(error), rank, self._nodes.get(rank))
            for rank, error in worker_group_status.errors.items()
            if not isinstance(error, Regrouping)
        }
        if failures:
            self._monitor.workers_failed.remote(failures)
