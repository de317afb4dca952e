"""Chooses the number of workers, and writes a checkpoint before it changes: hooks in Ray Train's controller."""

from time import monotonic, sleep
from typing import Any

import ray

from ray_app.orchestration.prestart import MOST_WARM_UP_SECONDS, warm_up
from ray_app.ray_runtime.private_api import (
    ControllerCallback,
    change_elastic_scaling,
    draining_nodes,
    release_reservation_of_lost_driver,
)
from ray_app.run_directory.status import Reason

_POLL_SECONDS = 0.2
_MOST_SECONDS = 900.0
"""A step and a checkpoint take less time. After it the resize is done anyway, and steps are recomputed."""


class CheckpointBeforeResize(ControllerCallback):  # type: ignore[misc]
    """A voluntary resize waits for a checkpoint. Ray Train alone would end the workers in the middle of a step."""

    def __init__(self, monitor: Any, *, prestart: bool) -> None:
        """With `prestart`, a group is enlarged only after pre-warmed processes for it have imported everything."""
        self._monitor = monitor
        self._prestart = prestart

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Ask the workers to write a checkpoint and exit, and wait until no worker is running."""
        workers = self._workers_at_work()
        if not workers:
            return
        reason = Reason.RESIZE
        if resize_decision.num_workers < workers and draining_nodes():
            reason = Reason.PREEMPTION
        elif self._prestart:
            environment = ray.get(self._monitor.worker_environment.remote())
            waiting = warm_up(environment, resize_decision.resources_per_worker, but=draining_nodes())
            began = monotonic()
            while waiting and self._workers_at_work() and monotonic() - began < MOST_WARM_UP_SECONDS:
                waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS)[1]
        ray.get(self._monitor.request_regroup.remote(reason))
        began = monotonic()
        while self._workers_at_work() and monotonic() - began < _MOST_SECONDS:
            sleep(_POLL_SECONDS)

    def _workers_at_work(self) -> int:
        return int(ray.get(self._monitor.workers_at_work.remote()))


class CountAvailableWorkers(ControllerCallback):  # type: ignore[misc]
    """Corrects Ray Train's view of free resources, and the number of workers that it chooses.

    Ray Train's view can be stale, can include draining nodes, and can include a lost driver's reservation. Ray Train
    would also use workers that do not make a step shorter.
    """

    def __init__(self, run_uri: str, monitor: Any, *, micro_batches: int) -> None:
        """`monitor` is told whether resources for workers.min workers are missing. `micro_batches`: per step."""
        self._key = f"f2llm-ray/room/{run_uri}"
        self._monitor = monitor
        self._micro_batches = micro_batches

    def after_controller_start(self, train_run_context: Any) -> None:
        self._release_reservation_of_lost_driver(train_run_context)
        monitor, micro_batches = self._monitor, self._micro_batches
        change_elastic_scaling(
            choose=lambda there, fewest: useful_workers(there, fewest=fewest, micro_batches=micro_batches),
            waits_for_room=lambda waits: monitor.wait_for_room.remote(waits),
        )

    def _release_reservation_of_lost_driver(self, train_run_context: Any) -> None:
        """Release the reservation of an earlier driver of this run.

        It would remain for three minutes after that driver died, and the cluster may have no other free resources. Only
        one driver holds the lease, so the earlier driver is gone.
        """
        release_reservation_of_lost_driver(self._key, train_run_context.run_id)


def useful_workers(there: int, *, fewest: int, micro_batches: int) -> int:
    """The smallest number of workers for which a step is as fast as with all `there` available workers.

    W workers need ceil(micro_batches / W) passes per step. The result is at least `fewest` if that many are available.
    """
    if there <= fewest:
        return there
    passes = -(-micro_batches // there)
    return max(fewest, -(-micro_batches // passes))
