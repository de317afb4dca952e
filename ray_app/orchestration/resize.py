"""How many workers a run takes, and a checkpoint before that changes: hooks in Ray Train's controller."""

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
"""A step and a checkpoint take less. After that the resize is done, and steps are repeated."""


class CheckpointBeforeResize(ControllerCallback):  # type: ignore[misc]
    """A resize that nobody forces waits for a checkpoint: Ray Train by itself would end the workers where they are."""

    def __init__(self, monitor: Any, *, prestart: bool) -> None:
        """With `prestart`, workers leave for more of them only once processes for those have imported everything."""
        self._monitor = monitor
        self._prestart = prestart

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Ask the workers to write a checkpoint and leave, and wait until they have, or until they are gone."""
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
    """Ray Train would count on room that is gone, or will be, or wait for room that is there, and keep what a lost
    driver had asked for. And it would take workers that make no step shorter.
    """

    def __init__(self, run_uri: str, monitor: Any, *, micro_batches: int) -> None:
        """The monitor hears whether there is room for the fewest workers; a step has so many micro-batches."""
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
        """What a driver of this run had asked for stays reserved for three minutes after it died, and there may be no
        more than that. Only one driver has the lease, so the one before is gone.
        """
        release_reservation_of_lost_driver(self._key, train_run_context.run_id)


def useful_workers(there: int, *, fewest: int, micro_batches: int) -> int:
    """The least number of workers, of those that are there, with which a step of so many micro-batches takes as long as
    with all of them: W workers take ceil(micro_batches / W) passes. Never below `fewest` where so many are there.
    """
    if there <= fewest:
        return there
    passes = -(-micro_batches // there)
    return max(fewest, -(-micro_batches // passes))
