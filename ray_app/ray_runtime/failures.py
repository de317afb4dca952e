"""What ended a worker, as an error of ours: Ray, torch and the system have their own, and none says what to do.

Foreign exceptions are recognized by name, so that whoever asks loads neither Ray nor torch.
"""

import errno
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_io.errors import F2LLMError
from ray_app.errors import CapacityError, PeerLost, TrainingError, WorkerLost

_GOES_ON = "the same command goes on from the last checkpoint"
_LOOK = f"see logs/ of the run directory; {_GOES_ON}"


def classify_error(error: BaseException) -> F2LLMError:
    """The error of ours at the bottom of `error`, or what is known of its causes, or a TrainingError with what it says.

    Of several workers' errors the one counts that the others only suffered from.
    """
    found = [cause for each in _causes(error) if (cause := _translated(each)) is not None]
    for cause in found:
        if not isinstance(cause, PeerLost):
            return cause
    return found[0] if found else TrainingError(f"a worker failed: {_last_line(error)}", remedy=_LOOK)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it was made of, nearest first."""
    queue, seen = [error], set[int]()
    while queue:
        found = queue.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        queue.extend(each for each in _made_of(found) if isinstance(each, BaseException))


def _made_of(error: BaseException) -> Iterator[Any]:
    """Ray Train keeps a worker's error by rank, torch's checkpoints with a traceback beside it."""
    yield from getattr(error, "worker_failures", {}).values()
    yield from (each[0] for each in getattr(error, "failures", {}).values() if isinstance(each, tuple))
    for name in ("cause", "_base_exc", "health_check_failure", "controller_failure", "training_failed_error"):
        yield getattr(error, name, None)
    yield error.__cause__


def _translated(error: BaseException) -> F2LLMError | None:
    if isinstance(error, F2LLMError):
        # Ray hands on an error of a task as one of its own class too, whose text is a traceback.
        cause = getattr(error, "cause", None)
        return cause if isinstance(cause, F2LLMError) else error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(error)
    for kind in type(error).__mro__:
        known = _KNOWN.get(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if known is not None:
            return known(error)
    if isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL")):
        return _peer_lost(error)
    return None


def _host_memory(error: BaseException) -> F2LLMError:
    return CapacityError(
        f"a worker ran out of memory: {_first_line(error)}",
        remedy="give a worker more memory (on Kubernetes spec.cluster.worker.memory), or put fewer on a machine; "
        f"`f2llm plan` says what one needs; {_GOES_ON}",
    )


def _gpu_memory(error: BaseException) -> F2LLMError:
    return CapacityError(
        f"a GPU ran out of memory: {_first_line(error)}",
        remedy="use GPUs with more memory, or start a new run with a lower train.micro_batch_size "
        "(`f2llm plan` says what a step needs)",
    )


def _disk_full(error: BaseException) -> F2LLMError:
    return CapacityError(f"a disk is full: {_first_line(error)}", remedy=f"free some space; {_GOES_ON}")


def _no_room(error: BaseException) -> F2LLMError:
    return CapacityError(
        f"the cluster has no room for the workers: {_first_line(error)}",
        remedy="lower workers.min, workers.cpus or workers.gpus, or add nodes (what there is: `ray status`)",
    )


def _process_died(error: BaseException) -> F2LLMError:
    text = str(error)
    if getattr(error, "preempted", False) or "node has died" in text:
        return WorkerLost(f"the node of a worker died{_address(text)}", remedy=_GOES_ON)
    return WorkerLost(
        f"the process of a worker died{_address(text)}; it was killed, or crashed outside of Python",
        remedy=f"look for the kernel's out-of-memory killer in `dmesg` of that node; {_GOES_ON}",
    )


def _node_died(error: BaseException) -> F2LLMError:
    return WorkerLost(f"the node of a worker died: {_first_line(error)}", remedy=_GOES_ON)


def _silent(error: BaseException) -> F2LLMError:
    return WorkerLost(f"a worker does not answer: {_first_line(error)}", remedy=_LOOK)


def _peer_lost(error: BaseException) -> F2LLMError:
    return PeerLost(f"the connection to another worker broke: {_first_line(error)}", remedy=_LOOK)


_KNOWN: Mapping[str, Callable[[BaseException], F2LLMError]] = {
    "builtins.MemoryError": _host_memory,
    "ray.OutOfMemoryError": _host_memory,
    "ray.ObjectStoreFullError": _host_memory,
    "torch.OutOfMemoryError": _gpu_memory,
    "ray.OutOfDiskError": _disk_full,
    "ray.InsufficientClusterResourcesError": _no_room,
    "ray.WorkerGroupStartupTimeoutError": _no_room,
    "ray.ActorUnschedulableError": _no_room,
    "ray.TaskUnschedulableError": _no_room,
    "ray.RayActorError": _process_died,
    "ray.WorkerCrashedError": _process_died,
    "ray.LocalRayletDiedError": _node_died,
    "ray.NodeDiedError": _node_died,
    "ray.WorkerHealthCheckTimeoutError": _silent,
    "torch.DistError": _peer_lost,
}


def _address(text: str) -> str:
    """The node and process that Ray names in its message, as in " (10.0.0.7, process 123)"; empty where it does not."""
    lines = [line.strip().partition(": ") for line in text.splitlines() if line.startswith("\t")]
    facts = {name: value for name, _, value in lines if value}
    named = [facts[key] if key == "ip" else f"process {facts[key]}" for key in ("ip", "pid") if key in facts]
    return f" ({', '.join(named)})" if named else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    """What a traceback ends with, where Ray has made the message of one; else what the exception is and says."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return repr(error) if len(lines) < 2 else lines[-1]
