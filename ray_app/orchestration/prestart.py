"""Spare workers: idle processes of Ray that have imported everything, so that a restart takes seconds and not tens of
them.

Ray puts a new actor into an idle process of the same job and runtime environment where its node has one. So a node is
asked for as many more as it has workers; those import while training goes on, and wait.
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
"""What the environment of the workers of training has, and so that of their spares."""
READY = "ray::IDLE (ready to train)"
"""The title of a process that has imported everything."""
_POLL_SECONDS = 0.2
MOST_WARM_UP_SECONDS = 120.0
_KEEP_SECONDS = 10 * 365 * 86400


def ask_for_spares() -> None:
    """See to it that this node has as many spares as workers. Every worker asks, one of each node is heard.

    Does not wait for them; where there can be none, training goes on without.
    """
    here = _processes_here()
    missing = len(here.workers) - len(here.prestarted)
    if missing > 0 and os.getpid() == min(here.workers):
        try:
            _prestart(missing, worker_environment())
        except Exception as error:  # whatever a call to Ray's own process may raise
            logging.getLogger(__name__).warning("no spare workers: %r", error)


def worker_environment() -> str:
    """The runtime environment of the worker that calls this, as Ray writes it. A spare must have the same."""
    import ray

    return str(ray.get_runtime_context().get_runtime_env_string())


def warm_up(environment: str, resources: Mapping[str, float], *, but: Collection[str]) -> list[Any]:
    """Start spares for as many workers that need these resources as there is room for, on all nodes `but` these.

    Answers what to wait for: a task on each node, which ends when its spares have imported everything.
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
    """See to it that this node has as many spares as there is room for workers; waits until they are ready, or for
    MOST_WARM_UP_SECONDS.
    """
    missing = room - len(_processes_here().prestarted)
    if missing > 0:
        _prestart(missing, environment)
    deadline = monotonic() + MOST_WARM_UP_SECONDS
    while _processes_here().ready < room and monotonic() < deadline:
        sleep(_POLL_SECONDS)


def _prestart(count: int, environment: str) -> None:
    # Imported late, as Ray: the processes that are no workers of training load this file too.
    from ray_app.ray_runtime.private_api import prestart_processes

    prestart_processes(count, runtime_environment=environment, keep_seconds=_KEEP_SECONDS)


@dataclass
class _Processes:
    """Numbers of processes: with a worker in them, and without; `ready` of the latter have imported everything."""

    workers: list[int] = field(default_factory=list)
    prestarted: list[int] = field(default_factory=list)
    ready: int = 0


def _processes_here() -> _Processes:
    """Those of this node: the ones with the same parent as this one, and the mark.

    Several simulated nodes may share a machine; each has a process of Ray that is the parent of its workers.
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
