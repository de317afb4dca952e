"""All uses of Ray's private interfaces: an upgrade of Ray touches only this file and its test.

Import `ray_app.ray_runtime.environment` before this module, as before Ray.
"""

from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.state import state as global_state
from ray._raylet import setproctitle  # type: ignore[attr-defined]
from ray.core.generated.common_pb2 import Language
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.train.v2._internal.execution.callback import (
    ControllerCallback,  # the only hooks in Ray Train's controller
    WorkerCallback,  # the only hook in a worker's main thread
    WorkerGroupCallback,  # the only hook that names failed ranks
)
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.scaling_policy import AUTOSCALING_REQUESTS_GET_TIMEOUT_S, NoopDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy

__all__ = ["ControllerCallback", "WorkerCallback", "WorkerGroupCallback"]

_PRESTART_SETUP_SECONDS = 600
_PRESTART_CALL_SECONDS = 30
_PAUSE_SECONDS = 0.2


def set_process_title(title: str) -> None:
    """Set the title of this process, which `ps` shows."""
    setproctitle(title)


def prestart_processes(count: int, *, runtime_environment: str, keep_seconds: int) -> None:
    """Make this node start `count` processes of this job that wait up to `keep_seconds` for an actor or a task.

    `runtime_environment` has the format of `get_runtime_env_string`. Raises the errors of a gRPC call.
    """
    context = ray.get_runtime_context()
    node = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    request = PrestartWorkersRequest(
        language=Language.PYTHON,
        job_id=bytes.fromhex(context.get_job_id()),
        keep_alive_duration_secs=keep_seconds,
        num_workers=count,
    )
    environment = request.runtime_env_info
    environment.serialized_runtime_env = runtime_environment
    environment.runtime_env_config.setup_timeout_seconds = _PRESTART_SETUP_SECONDS
    environment.runtime_env_config.eager_install = True
    with init_grpc_channel(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}") as channel:
        NodeManagerServiceStub(channel).PrestartWorkers(request, timeout=_PRESTART_CALL_SECONDS)


def is_preempted() -> bool:
    """Whether Ray Train has notified this worker that its node is about to be preempted. Never waits.

    ray.train.get_preemption_info() would wait at a barrier through an actor that takes 10 s to start.
    """
    return get_train_context().preemption_context.preemption_info is not None


def draining_nodes() -> set[str]:
    """Ids of the nodes that are draining."""
    return set(global_state.get_draining_nodes())


def release_reservation_of_lost_driver(key: str, run_id: str) -> None:
    """Release the resources that an earlier driver reserved under `key`. They would stay reserved for three minutes.

    `run_id` is the id of this driver's Ray Train run. It is stored under `key` for the next driver.
    """
    before = _internal_kv_get(key)
    if before:
        ray.get(get_or_create_autoscaling_coordinator().cancel_request.remote(before.decode()))
    _internal_kv_put(key, f"train-{run_id}".encode())


def change_elastic_scaling(*, choose: Callable[[int, int], int], waits_for_room: Callable[[bool], Any]) -> None:
    """Change how Ray Train's controller, in this process, counts the free resources of a cluster.

    Ray Train alone checks the nodes only every 20 s, and counts draining nodes as free. While resources are missing, it
    asks without a pause, which uses one CPU of the head node. With this change it checks before each decision, ignores
    draining nodes, and pauses.

    `choose(there, fewest)` returns the number of workers to start. `there`: how many fit; `fewest`: the minimum.
    `waits_for_room` is called at every check before a start, with whether resources are missing.
    """
    reserved_resources = ElasticScalingPolicy._get_reserved_resources
    decide = ElasticScalingPolicy.make_decision_for_non_running_worker_group
    count = ElasticScalingPolicy._count_possible_workers

    def reserved_on_nodes_that_stay(policy: Any) -> Any:
        seen = policy._latest_reserved_resources_query_time
        if monotonic() - seen >= policy.GET_RESERVED_RESOURCES_INTERVAL_S:
            with suppress(RayError):  # like Ray Train: on an error, the previous result is good enough
                fresh = get_or_create_autoscaling_coordinator().get_reserved_resources.remote("", recompute=True)
                ray.get(fresh, timeout=AUTOSCALING_REQUESTS_GET_TIMEOUT_S)
        reserved = reserved_resources(policy)
        if policy._latest_reserved_resources_query_time != seen and reserved is not None:
            stay = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - draining_nodes()
            reserved = {node: room for node, room in reserved.items() if node in stay}
            policy._latest_reserved_resources = reserved
        return reserved

    def decide_with_a_pause(policy: Any) -> Any:
        decision = decide(policy)
        waits = isinstance(decision, NoopDecision)
        waits_for_room(waits)
        if waits:
            sleep(_PAUSE_SECONDS)
        return decision

    def count_chosen(policy: Any, reserved: Any) -> int:
        return choose(count(policy, reserved), policy.scaling_config.min_workers)

    ElasticScalingPolicy._count_possible_workers = count_chosen
    ElasticScalingPolicy._get_reserved_resources = reserved_on_nodes_that_stay
    ElasticScalingPolicy.make_decision_for_non_running_worker_group = decide_with_a_pause
