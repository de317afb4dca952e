"""Ray Train's hooks for the end of workers: failures by rank, and workers that exit to regroup."""

from typing import Any

from ray_app.ray_runtime.failures import classify_error
from ray_app.ray_runtime.private_api import WorkerGroupCallback
from ray_app.run_directory.exit_record import Failure


class Regrouping(Exception):
    """Not a failure: the workers have written a checkpoint and exit, so that Ray Train starts new ones."""


class FailureWatch(WorkerGroupCallback):  # type: ignore[misc]
    """Reports failed workers to the monitor. Runs in Ray Train's controller, which also learns of killed processes."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self._nodes: dict[int, str] = {}

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Remember the node of each rank, because a dead worker cannot report it."""
        self._nodes = {
            worker.distributed_context.world_rank: worker.metadata.hostname for worker in worker_group.get_workers()
        }

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Report the error of each failed rank to the monitor. Workers that exit to regroup have not failed."""
        failures = {
            rank: Failure(classify_error(error), rank, self._nodes.get(rank))
            for rank, error in worker_group_status.errors.items()
            if not isinstance(error, Regrouping)
        }
        if failures:
            self._monitor.workers_failed.remote(failures)
