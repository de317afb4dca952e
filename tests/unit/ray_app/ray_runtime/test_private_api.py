"""The parts of Ray's private API that are used exist, in the version of Ray that the code was written for."""

import inspect
from dataclasses import fields
from typing import Any

import pytest
import ray
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import _AutoscalingCoordinatorActor
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.context import TrainContext, TrainRunContext
from ray.train.v2._internal.execution.preemption import PreemptionContext
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.worker_group.poll import WorkerGroupPollStatus
from ray.train.v2._internal.execution.worker_group.worker import ActorMetadata, Worker

from ray_app.orchestration.callbacks import FailureWatch
from ray_app.orchestration.preemption import PreemptionNotice
from ray_app.orchestration.resize import CheckpointBeforeResize, CountAvailableWorkers
from ray_app.ray_runtime import private_api

VERSION = "2.60"


def test_ray_has_the_version_that_private_api_was_written_for() -> None:
    assert ray.__version__.rpartition(".")[0] == VERSION, (
        "read private_api.py against this version, then change VERSION"
    )


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (ElasticScalingPolicy._get_reserved_resources, ["self"]),
        (ElasticScalingPolicy._count_possible_workers, ["self", "reserved_resources"]),
        (ElasticScalingPolicy.make_decision_for_non_running_worker_group, ["self"]),
        (_AutoscalingCoordinatorActor.cancel_request, ["self", "requester_id"]),
        (_AutoscalingCoordinatorActor.get_reserved_resources, ["self", "requester_id", "recompute"]),
        (private_api.global_state.get_draining_nodes, []),
        (private_api.setproctitle, ["title"]),
        (private_api.get_train_context, []),
        (private_api._internal_kv_get, ["key", "namespace"]),
        (private_api._internal_kv_put, ["key", "value", "overwrite", "namespace"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_private_functions_accept_our_arguments(method: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters


def test_the_scaling_policy_caches_the_reserved_resources() -> None:
    policy = ElasticScalingPolicy(ScalingConfig(num_workers=(1, 8)))

    assert vars(policy).keys() >= {"_latest_reserved_resources_query_time", "_latest_reserved_resources"}
    assert policy.GET_RESERVED_RESOURCES_INTERVAL_S > 0
    assert policy.scaling_config.min_workers == 1
    assert private_api.AUTOSCALING_REQUESTS_GET_TIMEOUT_S > 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (TrainContext, {"preemption_context"}),
        (TrainRunContext, {"run_id"}),
        (ResizeDecision, {"num_workers", "resources_per_worker"}),
        (Worker, {"metadata"}),
        (ActorMetadata, {"hostname"}),
    ],
)
def test_objects_of_ray_train_have_the_fields_that_we_use(kind: Any, names: set[str]) -> None:
    assert names <= {field.name for field in fields(kind)}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (PreemptionContext, "preemption_info"),
        (WorkerGroupPollStatus, "errors"),
        (Worker, "distributed_context"),
        (private_api.NoopDecision, "__init__"),
    ],
)
def test_objects_of_ray_train_have_the_properties_that_we_use(kind: Any, name: str) -> None:
    assert hasattr(kind, name)


@pytest.mark.parametrize("hooks", [CheckpointBeforeResize, CountAvailableWorkers, FailureWatch, PreemptionNotice])
def test_ray_train_has_every_hook_that_we_implement(hooks: type) -> None:
    ours = [name for name in vars(hooks) if not name.startswith("_")]
    (base,) = hooks.__bases__

    assert ours
    for name in ours:
        here, there = (inspect.signature(getattr(kind, name)).parameters for kind in (hooks, base))
        assert list(here) == list(there)


def test_the_request_for_processes_has_the_fields_that_we_set() -> None:
    fields_of_request = set(PrestartWorkersRequest.DESCRIPTOR.fields_by_name)
    environment = PrestartWorkersRequest().runtime_env_info

    assert fields_of_request >= {"language", "job_id", "keep_alive_duration_secs", "num_workers", "runtime_env_info"}
    assert {"serialized_runtime_env", "runtime_env_config"} <= set(environment.DESCRIPTOR.fields_by_name)
    assert {"setup_timeout_seconds", "eager_install"} <= set(environment.runtime_env_config.DESCRIPTOR.fields_by_name)
    assert "PrestartWorkers" in inspect.getsource(private_api.NodeManagerServiceStub)
