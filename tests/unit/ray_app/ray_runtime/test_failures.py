"""The class of each error that ends a worker, and which of several errors is the cause."""

import errno
from importlib import import_module
from typing import Any

import pytest
import ray.exceptions as ray_errors
import torch
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from torch.distributed.checkpoint.api import CheckpointException

from data_io.errors import DataError, F2LLMError, StorageError
from ray_app.errors import CapacityError, PeerLost, TrainingError, WorkerLost
from ray_app.ray_runtime.failures import classify_error

GLOO = "[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.7]:4711"


def actor_died(message: str, pid: int = 123) -> Exception:
    context = ActorDiedErrorContext(error_message=message, node_ip_address="10.0.0.7", pid=pid, actor_id=b"0" * 16)
    return WorkerHealthCheckFailedError("A worker health check failed.", ray_errors.ActorDiedError(context))


def test_an_error_of_a_task_is_returned_and_not_rays_wrapper_of_it() -> None:
    error = DataError("no rows", remedy="give some")

    found = classify_error(ray_errors.RayTaskError("run_task", "a traceback\n" * 9, error).as_instanceof_cause())

    assert type(found) is DataError
    assert (found.message, found.remedy) == ("no rows", "give some")


CAUSES: list[tuple[BaseException, type[F2LLMError], str]] = [
    (ray_errors.OutOfMemoryError("node is low on memory"), CapacityError, "ran out of memory"),
    (MemoryError(), CapacityError, "ran out of memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), CapacityError, "a GPU ran out of memory"),
    (ray_errors.OutOfDiskError("full"), CapacityError, "a disk is full"),
    (OSError(errno.ENOSPC, "No space left on device"), CapacityError, "a disk is full"),
    (
        InsufficientClusterResourcesError("1 GPU asked, none there"),
        CapacityError,
        "too few resources for the workers: 1 GPU",
    ),
    (ControllerError(WorkerGroupStartupTimeoutError(4)), CapacityError, "too few resources for the workers"),
    (actor_died("The actor died because its node has died."), WorkerLost, r"node of a worker died \(10\.0\.0\.7"),
    (actor_died("its worker process has died"), WorkerLost, r"process of a worker died \(10\.0\.0\.7, process 123\)"),
    (ray_errors.NodeDiedError("node 7 is unreachable"), WorkerLost, "node of a worker died: node 7"),
    (WorkerHealthCheckTimeoutError("hanging for 600 s"), WorkerLost, "does not answer: hanging"),
    (RuntimeError(GLOO), PeerLost, "connection to another worker broke"),
    (torch.distributed.DistBackendError("NCCL communicator was aborted"), PeerLost, "connection to another worker"),
    (KeyError("x"), TrainingError, r"a worker failed: KeyError\('x'\)"),
]


@pytest.mark.parametrize(("error", "kind", "message"), CAUSES)
def test_every_failure_of_a_worker_has_a_class_a_message_and_a_remedy(
    error: BaseException, kind: type[F2LLMError], message: str
) -> None:
    cause = classify_error(error)

    assert type(cause) is kind
    assert cause.remedy
    assert cause.retryable
    with pytest.raises(kind, match=message):
        raise cause


def test_our_own_error_is_found_inside_the_wrappers_of_libraries() -> None:
    ours = StorageError("the store is away")
    wrapped: list[BaseException] = [
        WorkerGroupError("text", {0: RuntimeError(GLOO), 1: ours}),
        UserExceptionWithTraceback(ours, "Traceback ..."),
        CheckpointException("save", {1: (ours, None)}),  # type: ignore[dict-item]
        ControllerError(ours),
    ]
    chained = RuntimeError("while reading")
    chained.__cause__ = ours

    assert all(classify_error(error) is ours for error in [ours, chained, *wrapped])


def test_the_lost_worker_is_the_cause_and_not_the_workers_that_lost_it() -> None:
    failures: dict[int, Any] = {0: RuntimeError(GLOO), 1: actor_died("its worker process has died"), 2: PeerLost("x")}

    assert "process 123" in classify_error(WorkerGroupError("text", failures)).message


def test_the_class_says_whether_a_retry_can_help() -> None:
    """User and data errors are never retried, infrastructure errors always. Storage errors can be either."""
    classes = ("user", "data", "storage", "capacity", "infrastructure")
    kinds = [
        kind
        for module in ("data_io.errors", "ray_app.errors", "jobs.errors")
        for kind in vars(import_module(module)).values()
        if isinstance(kind, type) and issubclass(kind, F2LLMError) and kind is not F2LLMError
    ]

    assert DataError in kinds
    for kind in kinds:
        assert kind.error_class in classes, kind
        if kind.error_class != "storage":
            assert kind.retryable is (kind.error_class in ("capacity", "infrastructure")), kind
