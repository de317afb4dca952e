"""Translates the errors of Ray, torch and the system into errors of this project, which say what to do.

Foreign exceptions are recognized by name, so that this module imports neither Ray nor torch.
"""

import errno
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_io.errors import F2LLMError
from ray_app.errors import CapacityError, PeerLost, TrainingError, WorkerLost

_RESUMES = "the same command resumes from the last checkpoint"
_LOOK = f"see logs/ in the run directory; {_RESUMES}"


def classify_error(error: BaseException) -> F2LLMError:
    """The project's own error among the causes of `error`, or the translation of a known cause, or a TrainingError.

    If several workers failed, the root cause takes precedence over a PeerLost that follows from it.
    """
    found = [cause for each in _causes(error) if (cause := _translated(each)) is not None]
    for cause in found:
        if not isinstance(cause, PeerLost):
            return cause
    return found[0] if found else TrainingError(f"a worker failed: {_last_line(error)}", remedy=_LOOK)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all its causes, nearest first."""
    queue, seen = [error], set[int]()
    while queue:
        found = queue.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        queue.extend(each for each in _made_of(found) if isinstance(each, BaseException))


def _made_of(error: BaseException) -> Iterator[Any]:
    """Direct causes. Ray Train stores workers' errors by rank; torch's checkpoints store (error, traceback) tuples."""
    yield from getattr(error, "worker_failures", {}).values()
    yield from (each[0] for each in getattr(error, "failures", {}).values() if isinstance(each, tuple))
    for name in ("cause", "_base_exc", "health_check_failure", "controller_failure", "training_failed_error"):
        yield getattr(error, name, None)
    yield error.__cause__


def _translated(error: BaseException) -> F2LLMError | None:
    if isinstance(error, F2LLMError):
        # Ray wraps a task's error in an error of a derived class, whose text is a traceback.
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
        remedy="give each worker more memory (on Kubernetes: spec.cluster.worker.memory), or use fewer workers per "
        f"machine; `f2llm plan` shows the memory per worker; {_RESUMES}",
    )


def _gpu_memory(error: BaseException) -> F2LLMError:
    return CapacityError(
        f"a GPU ran out of memory: {_first_line(error)}",
        remedy="use GPUs with more memory, or start a new run with a lower train.micro_batch_size "
        "(`f2llm plan` shows the memory of a step)",
    )


def _disk_full(error: BaseException) -> F2LLMError:
    return CapacityError(f"a disk is full: {_first_line(error)}", remedy=f"free some space; {_RESUMES}")


def _no_room(error: BaseException) -> F2LLMError:
    return CapacityError(
        f"the cluster has too few resources for the workers: {_first_line(error)}",
        remedy="lower workers.min, workers.cpus or workers.gpus, or add nodes (`ray status` shows the resources)",
    )


def _process_died(error: BaseException) -> F2LLMError:
    text = str(error)
    if getattr(error, "preempted", False) or "node has died" in text:
        return WorkerLost(f"the node of a worker died{_address(text)}", remedy=_RESUMES)
    return WorkerLost(
        f"the process of a worker died{_address(text)}; it was killed, or crashed outside of Python",
        remedy=f"look for the kernel's out-of-memory killer in the output of `dmesg` on that node; {_RESUMES}",
    )


def _node_died(error: BaseException) -> F2LLMError:
    return WorkerLost(f"the node of a worker died: {_first_line(error)}", remedy=_RESUMES)


def _unresponsive(error: BaseException) -> F2LLMError:
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
    "ray.WorkerHealthCheckTimeoutError": _unresponsive,
    "torch.DistError": _peer_lost,
}


def _address(text: str) -> str:
    """Node and process from Ray's message, for example " (10.0.0.7, process 123)"; empty if the message has neither."""
    lines = [line.strip().partition(": ") for line in text.splitlines() if line.startswith("\t")]
    facts = {name: value for name, _, value in lines if value}
    named = [facts[key] if key == "ip" else f"process {facts[key]}" for key in ("ip", "pid") if key in facts]
    return f" ({', '.join(named)})" if named else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    """The last line of the message if it is a traceback (as Ray's messages are); otherwise the exception's repr."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return repr(error) if len(lines) < 2 else lines[-1]
