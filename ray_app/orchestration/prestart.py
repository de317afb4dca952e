"""Pre-warmed workers: idle Ray processes that have imported everything, so that a restart takes only a few seconds.

If a node has an idle process of the same job and runtime environment, Ray uses it for a new actor. So each node starts
one idle process per worker. These processes import everything during training, and then wait.
"""

import logging
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

MARK = {"F2LLM_TRAINS": "1"}
"""Environment variables of training workers, and so of pre-warmed workers."""
READY = "ray::IDLE (ready to train)"
"""The title of a process that has imported everything."""
_POLL_SECONDS = 0.2
MOST_WARM_UP_SECONDS = 120.0
_KEEP_SECONDS = 10 * 365 * 86400


def prewarm_workers() -> None:
    """Make sure that this node has one pre-warmed worker per worker. Every worker calls this; one per node acts.

    Does not wait for them. If they cannot be started, training continues without them.
    """
    here = _processes_here()
    missing = len(here.workers) - len(here.prestarted)
    if missing > 0 and os.getpid() == min(here.workers):
        try:
            _prestart(missing, worker_environment())
        except Exception as error:  # a call to Ray's own process can raise anything
            logging.getLogger(__name__).warning("cannot start pre-warmed workers: %r", error)


def worker_environment() -> str:
    """The runtime environment of the calling worker, as Ray writes it. A pre-warmed worker must have the same."""
    import ray

    return str(ray.get_runtime_context().get_runtime_env_string())


def warm_up(environment: str, resources: Mapping[str, float], *, but: Collection[str]) -> list[Any]:
    """Start pre-warmed workers on all nodes except `but`, as many as a node's resources allow.

    Returns one task per node to wait for. A task ends when the node's pre-warmed workers have imported everything.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    fill = ray.remote(num_cpus=0, max_retries=0)(_fill)
    tasks = []
    for node in ray.nodes():
        room = min(int(node["Resources"].get(name, 0) // amount) for name, amount in resources.items() if amount)
        if node["Alive"] and node["NodeID"] not in but and room:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            tasks.append(fill.options(scheduling_strategy=here).remote(room, environment))
    return tasks


def _fill(room: int, environment: str) -> None:
    """Make sure that this node has `room` pre-warmed workers. Waits for them, at most MOST_WARM_UP_SECONDS."""
    missing = room - len(_processes_here().prestarted)
    if missing > 0:
        _prestart(missing, environment)
    deadline = monotonic() + MOST_WARM_UP_SECONDS
    while _processes_here().ready < room and monotonic() < deadline:
        sleep(_POLL_SECONDS)


def _prestart(count: int, environment: str) -> None:
    # Imported late, like Ray: processes other than training workers load this file too.
    from ray_app.ray_runtime.private_api import prestart_processes

    prestart_processes(count, runtime_environment=environment, keep_seconds=_KEEP_SECONDS)


@dataclass
class _Processes:
    """Process ids with a worker (`workers`) and without one (`prestarted`).

    `ready`: the number of prestarted processes that have imported everything.
    """

    workers: list[int] = field(default_factory=list)
    prestarted: list[int] = field(default_factory=list)
    ready: int = 0


def _processes_here() -> _Processes:
    """The processes of this node: those with the same parent as this process, and the mark.

    Several simulated nodes can share a machine. Each has a Ray process that is the parent of its workers.
    """
    mark = b"\0".join(f"{name}={value}".encode() for name, value in MARK.items())
    here = _Processes()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getppid() and mark in (process / "environ").read_bytes():
                title = (process / "cmdline").read_bytes()
                if b"RayTrainWorker" in title:
                    here.workers.append(int(process.name))
                else:
                    here.prestarted.append(int(process.name))
                    here.ready += title.startswith(READY.encode())
    return here
