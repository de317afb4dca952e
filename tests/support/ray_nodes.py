"""A Ray cluster of several simulated nodes on this machine: nodes are added, drained and removed, and workers are
killed.
"""

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

_MARK = "F2LLM_SIMULATED_CLUSTER"


class RayNodes:
    """A head without CPUs for workers, and nodes with CPUs for one worker each. See `ray_nodes`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._mark = secrets.token_hex(8)
        self._environment = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            _MARK: self._mark,
            **environment,
        }
        os.environ.update(self._environment)  # processes of a node read it from here
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False}
        # At exit `close` has been called; and Ray's own handlers of signals can be set in a main thread only.
        self._cluster: Any = Cluster(initialize_head=True, shutdown_at_exit=False, head_node_args=head)
        self._nodes: list[Any] = []
        self._leaving: dict[str, Any] = {}

    def environment(self) -> dict[str, str]:
        """The environment variables with which a driver joins."""
        return {**self._environment, "RAY_ADDRESS": self._cluster.address}

    def count(self) -> int:
        return len(self._nodes)

    def add(self) -> None:
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def remove(self, number: int) -> None:
        """kill -9 for a node and all its processes."""
        self._cluster.remove_node(self._nodes.pop(number), allow_graceful=False)

    def drain(self, number: int, *, seconds: float) -> str:
        """Announce that a node ends in `seconds`; returns its id for `finish_drain`."""
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        node = self._nodes.pop(number)
        accepted, why = GcsClient(address=self._cluster.address).drain_node(
            node_id=node.node_id,
            reason=DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION,
            reason_message="simulated preemption",
            deadline_timestamp_ms=int((time.time() + seconds) * 1000),
        )
        assert accepted, why
        self._leaving[node.node_id] = node
        return str(node.node_id)

    def finish_drain(self, node_id: str) -> None:
        self._cluster.remove_node(self._leaving.pop(node_id), allow_graceful=False)

    def workers(self) -> list[int]:
        """Process ids of the training workers on this cluster."""
        return sorted(pid for pid in self._processes() if "RayTrainWorker" in _read(pid, "cmdline"))

    def at_work(self) -> list[int]:
        """Numbers of the nodes with a worker."""
        parents = {int(_read(pid, "stat").rpartition(")")[2].split()[1] or 0) for pid in self.workers()}
        return [number for number, node in enumerate(self._nodes) if _raylet_of(node) in parents]

    def kill_worker(self, pid: int, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _processes(self) -> Iterator[int]:
        wanted = f"{_MARK}={self._mark}"
        for entry in Path("/proc").glob("[0-9]*"):
            if wanted in _read(int(entry.name), "environ"):
                yield int(entry.name)

    def close(self) -> None:
        self._cluster.shutdown()
        for pid in self._processes():
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class _Manager(BaseManager):
    pass


_Manager.register("RayNodes", RayNodes)


@contextlib.contextmanager
def ray_nodes(**environment: str) -> Iterator[RayNodes]:
    """Simulated nodes with additional environment variables, controlled by a separate process. Ray reads its token once
    per process; in this process the token would make every later embedded Ray reject its own driver.
    """
    with _Manager(ctx=get_context("spawn")) as manager:
        nodes: RayNodes = manager.RayNodes(environment)  # type: ignore[attr-defined]  # a proxy, by name
        try:
            yield nodes
        finally:
            nodes.close()


def _raylet_of(node: Any) -> int:
    process: int = node.all_processes["raylet"][0].process.pid
    return process


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
