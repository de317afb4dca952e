"""The operator with a thousand jobs: delay from a driver's update to the job's status, requests, memory, idle cost.

    python -m bench.operator [--jobs 1000] [--changes 600] [--rates 10 50]

A real API server without nodes. The benchmark plays KubeRay and the drivers. The operator's requests are counted in the
API server's audit log. Needs the programs that tests/cluster/build.sh builds.
"""

import argparse
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np

from bench.support.report import machine, table, write_result
from jobs.kube.api import KubeApi, connect
from jobs.kube.status import JobPhase, status_of
from ray_app.run_directory.status import Phase
from tests.support.control_plane import ControlPlane, missing_programs, run_control_plane
from tests.support.custom_resources import KUBERAY_TYPES, install_kuberay_types, install_our_type
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.operator import LEASES, RULES, KubeRay, leads, run_operator, token_of_account
from tests.support.waiting import wait_for

THREADS = 8
ACCOUNT = "system:serviceaccount:default:measured"
QUIET_SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=600, help="driver updates at each rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[10.0, 50.0], help="driver updates per second")
    arguments = parser.parse_args()
    if missing := missing_programs() or ([] if KUBERAY_TYPES.is_dir() else ["kuberay-manifests"]):
        raise SystemExit(f"not built: {', '.join(missing)}; tests/cluster/build.sh builds them")
    with tempfile.TemporaryDirectory() as folder, run_control_plane(Path(folder)) as plane, _operator(plane) as process:
        _write_page(arguments, _Fleet(plane, process.pid, arguments.jobs))


@contextmanager
def _operator(plane: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    """The operator with the rights of its chart."""
    kubectl = Kubectl(plane.kubeconfig)
    install_our_type(kubectl)
    install_kuberay_types(kubectl)
    kubeconfig = plane.kubeconfig_of(token_of_account(kubectl, "measured", [*RULES, LEASES]), "measured.kubeconfig")
    log = plane.folder / "operator.log"
    with run_operator(kubeconfig, log) as process:
        wait_for(lambda: leads(log), "it is the leader")
        time.sleep(5)  # until it has loaded everything
        yield process


class _Fleet:
    """Jobs `job-0`, `job-1`, ... in training."""

    def __init__(self, plane: ControlPlane, operator: int, jobs: int) -> None:
        self._plane, self._operator = plane, operator
        self._api: KubeApi = connect(kubeconfig=str(plane.kubeconfig))
        self._pool = ThreadPoolExecutor(THREADS)
        self.names = [f"job-{number}" for number in range(jobs)]

    def start(self) -> float:
        """Submit all jobs and play their start. Returns the seconds until the last one trains."""
        begun = time.monotonic()
        list(self._pool.map(self._start, self.names))
        left = set(self.names)

        def all_train() -> bool:
            time.sleep(1)
            for each in self._api.list("EmbeddingJob")["items"]:
                if status_of(each).phase is JobPhase.TRAINING:
                    left.discard(each["metadata"]["name"])
            return not left

        wait_for(all_train, f"{len(left)} jobs do not train", seconds=600)
        return time.monotonic() - begun

    def _start(self, name: str) -> None:
        self._api.create(job_spec(ON_A_CLUSTER, metadata={"name": name}))
        kuberay = KubeRay(self._api, name, 1)
        kuberay.starts()
        kuberay.says(Phase.TRAINING, step=1, total_steps=100_000, workers=2)

    def latencies(self, changes: int, rate: float) -> list[float]:
        """Seconds from a driver's update to the status that contains it, at `rate` updates per second."""
        chosen = random.Random(0).choices(self.names, k=changes)
        said: dict[tuple[str, int], float] = {}
        observed: dict[tuple[str, int], float] = {}
        version = self._api.list("EmbeddingJob")["metadata"]["resourceVersion"]
        over = threading.Event()

        def watch() -> None:
            for event in self._api.watch("EmbeddingJob", version=version, seconds=int(changes / rate) + 60):
                job = event["object"]
                if event["type"] == "MODIFIED":
                    key = job["metadata"]["name"], job["status"]["step"]
                    observed.setdefault(key, time.monotonic())
                if over.is_set():
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.monotonic()
        for number, name in enumerate(chosen):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            step = next(_STEPS)
            said[name, step] = time.monotonic()
            self._pool.submit(
                KubeRay(self._api, name, 1).says, Phase.TRAINING, step=step, total_steps=100_000, workers=2
            )
        last = dict(said.keys())
        wait_for(lambda: all(key in observed for key in last.items()), "the last updates are in the status")
        over.set()
        KubeRay(self._api, chosen[0], 1).says(Phase.TRAINING, step=next(_STEPS), total_steps=100_000)
        watcher.join()
        # An update that is followed by a newer one of the same job may never appear in a status.
        return [at - said[key] for key, at in observed.items() if key in said]

    def requests(self) -> Counter[str]:
        """The operator's requests so far by verb, without its own Lease and long-running watches."""
        ours = (line for line in self._plane.answers() if line["user"].get("username") == ACCOUNT)
        return Counter(line["verb"] for line in ours if line.get("objectRef", {}).get("resource") != "leases")

    def memory(self) -> float:
        """Megabytes that the operator uses now."""
        text = Path(f"/proc/{self._operator}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self._operator}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100


_STEPS = count(2)


def _write_page(arguments: argparse.Namespace, fleet: _Fleet) -> None:
    before, empty = fleet.requests(), fleet.memory()
    seconds = fleet.start()
    start = fleet.requests() - before
    rows = [["all jobs submitted, started and training", f"{seconds:.0f} s, {_each(start, arguments.jobs)}"]]
    for rate in arguments.rates:
        before, used = fleet.requests(), fleet.processor_seconds()
        found = fleet.latencies(arguments.changes, rate)
        length = arguments.changes / rate
        made, used = fleet.requests() - before, fleet.processor_seconds() - used
        middle, late, latest = np.percentile(found, [50, 95, 100])
        rows += [
            [
                f"driver's update to status, {rate:g} per second",
                f"{middle:.2f} s, p95 {late:.2f} s, most {latest:.2f} s",
            ],
            ["- the operator's requests", f"{made.total() / length:.1f} per second ({_words(made)})"],
            ["- the operator's CPU", f"{used / length:.0%} of a CPU"],
        ]
    time.sleep(20)
    before, used = fleet.requests(), fleet.processor_seconds()
    time.sleep(QUIET_SECONDS)
    made, used = fleet.requests() - before, fleet.processor_seconds() - used
    writes = sum(made[verb] for verb in ("create", "update", "patch", "delete"))
    rows += [
        ["an idle minute: writes", str(writes)],
        ["an idle minute: other requests", f"{made.total() - writes}, {used / QUIET_SECONDS:.1%} of a CPU"],
        ["memory: without jobs, with all jobs", f"{empty:.0f} MB, {fleet.memory():.0f} MB"],
    ]
    options = (
        f"--jobs {arguments.jobs} --changes {arguments.changes} --rates {' '.join(f'{r:g}' for r in arguments.rates)}"
    )
    text = [
        f"# The operator with {arguments.jobs:,} jobs\n",
        f"`python -m bench.operator {options}`: a real API server without nodes on the same machine. The benchmark "
        "plays KubeRay and the drivers, and uses most of both CPUs while jobs start.\n",
        table(["what", "measured"], rows) + "\n",
        machine("kopf", "kubernetes"),
    ]
    write_result("operator", "\n".join(text))


def _each(made: Counter[str], jobs: int) -> str:
    return f"{made.total() / jobs:.1f} requests of the operator per job ({_words(made)})"


def _words(made: Counter[str]) -> str:
    return ", ".join(f"{number} {verb}" for verb, number in made.most_common())


if __name__ == "__main__":
    main()
