"""What Ray Train's controller does otherwise here when workers come and go."""

from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.train.v2._internal.execution.callback import ControllerCallback  # the only hooks there are
from ray.train.v2._internal.execution.scaling_policy import AUTOSCALING_REQUESTS_GET_TIMEOUT_S, NoopDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy

from ray_app.spares import MOST_WARM_UP_SECONDS, warm_up
from ray_app.status import Reason
from ray_app.worker_count import useful_workers

_POLL_SECONDS = 0.2
_MOST_SECONDS = 900.0
"""A step and a checkpoint take less. After that the resize is done, and steps are repeated."""


class CheckpointBeforeResize(ControllerCallback):  # type: ignore[misc]
    """A resize that nobody forces waits for a checkpoint: Ray Train by itself would end the workers where they are."""

    def __init__(self, monitor: Any, *, spares: bool) -> None:
        """With `spares`, workers leave for more of them only once processes for those have imported everything."""
        self._monitor = monitor
        self._spares = spares

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        """Ask the workers to write a checkpoint and leave, and wait until they have, or until they are gone."""
        workers = self._workers_at_work()
        if not workers:
            return
        reason = Reason.RESIZE
        if resize_decision.num_workers < workers and _draining_nodes():
            reason = Reason.PREEMPTION
        elif self._spares:
            environment = ray.get(self._monitor.worker_environment.remote())
            waiting = warm_up(environment, resize_decision.resources_per_worker, but=_draining_nodes())
            began = monotonic()
            while waiting and self._workers_at_work() and monotonic() - began < MOST_WARM_UP_SECONDS:
                waiting = ray.wait(waiting, num_returns=len(waiting), timeout=_POLL_SECONDS)[1]
        ray.get(self._monitor.request_regroup.remote(reason))
        began = monotonic()
        while self._workers_at_work() and monotonic() - began < _MOST_SECONDS:
            sleep(_POLL_SECONDS)

    def _workers_at_work(self) -> int:
        return int(ray.get(self._monitor.workers_at_work.remote()))


class CountWhatIsThere(ControllerCallback):  # type: ignore[misc]
    """Ray Train would count on room that is gone, or will be, or wait for room that is there: it looks at the nodes
    every 20 s only, takes drained ones for room, keeps what a lost driver had asked for, and while there is no room it
    asks without a pause, which takes a core of the head. And it would take workers that make no step shorter.
    """

    def __init__(self, run_uri: str, monitor: Any, *, micro_batches: int) -> None:
        """The monitor hears whether there is room for the fewest workers; a step has so many micro-batches."""
        self._key = f"f2llm-ray/room/{run_uri}"
        self._monitor = monitor
        self._micro_batches = micro_batches

    def after_controller_start(self, train_run_context: Any) -> None:
        self._give_up_room_of_lost_driver(train_run_context)
        take_what_is_reserved = ElasticScalingPolicy._get_reserved_resources
        decide = ElasticScalingPolicy.make_decision_for_non_running_worker_group
        count = ElasticScalingPolicy._count_possible_workers
        monitor, micro_batches = self._monitor, self._micro_batches

        def take_what_stays(policy: Any) -> Any:
            seen = policy._latest_reserved_resources_query_time
            if monotonic() - seen >= policy.GET_RESERVED_RESOURCES_INTERVAL_S:
                with suppress(RayError):  # as Ray Train asks: what was known before is good enough
                    fresh = get_or_create_autoscaling_coordinator().get_reserved_resources.remote("", recompute=True)
                    ray.get(fresh, timeout=AUTOSCALING_REQUESTS_GET_TIMEOUT_S)
            reserved = take_what_is_reserved(policy)
            if policy._latest_reserved_resources_query_time != seen and reserved is not None:
                stay = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - _draining_nodes()
                reserved = {node: room for node, room in reserved.items() if node in stay}
                policy._latest_reserved_resources = reserved
            return reserved

        def decide_with_a_pause(policy: Any) -> Any:
            decision = decide(policy)
            waits = isinstance(decision, NoopDecision)
            monitor.wait_for_room.remote(waits)
            if waits:
                sleep(_POLL_SECONDS)
            return decision

        def count_what_helps(policy: Any, reserved: Any) -> int:
            fewest = policy.scaling_config.min_workers
            return useful_workers(count(policy, reserved), fewest=fewest, micro_batches=micro_batches)

        ElasticScalingPolicy._count_possible_workers = count_what_helps
        ElasticScalingPolicy._get_reserved_resources = take_what_stays
        ElasticScalingPolicy.make_decision_for_non_running_worker_group = decide_with_a_pause

    def _give_up_room_of_lost_driver(self, train_run_context: Any) -> None:
        """What a driver of this run had asked for stays reserved for three minutes after it died, and there may be no
        more than that. Only one driver has the lease, so the one before is gone.
        """
        before = internal_kv._internal_kv_get(self._key)
        if before:
            ray.get(get_or_create_autoscaling_coordinator().cancel_request.remote(before.decode()))
        internal_kv._internal_kv_put(self._key, f"train-{train_run_context.run_id}".encode())


def _draining_nodes() -> set[str]:
    return set(ray._private.state.state.get_draining_nodes())
