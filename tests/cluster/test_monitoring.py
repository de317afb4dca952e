"""A real Prometheus, run by its operator, scrapes a job with the platform chart's monitors, dashboards and alerts."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import pytest

from jobs.kube.status import JobPhase, status_of
from tests.support.control_plane import missing_programs
from tests.support.kubectl import Kubectl
from tests.support.real_cluster import KUBECONFIG, SCRIPTS, SYSTEM, RealCluster
from tests.support.real_jobs import MINUTES, job, say
from tests.support.real_platform import TEAM, install_platform, team_store, volume
from tests.support.small_training import write_small_dataset
from tests.support.waiting import wait_for
from tools.generate.dashboards.__main__ import DASHBOARDS

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]
PROGRAMS = ("prometheus", "prometheus-operator", "prometheus-config-reloader", "platform-crds")
VALUES: dict[str, str | int] = {
    "monitors.enabled": "true",
    "monitors.intervalSeconds": 5,
    "alerts.enabled": "true",
    "alerts.noProgressMinutes": 2,
    "alerts.storeFailureMinutes": 1,
    "alerts.operatorDownMinutes": 1,
    "dashboards.enabled": "true",
    "teams[0].name": TEAM,
    "teams[0].monthlyBudget": 100,
}
# Panels without data for a job that trains on CPU without any failure, and why.
EMPTY = {
    "f2llm-job/MFU": "no GPUs",
    "f2llm-job/GPUs": "no GPUs",
    "f2llm-job/GPU memory": "no GPUs",
    "f2llm-job/Score of checkpoints": "they are not measured",
    "f2llm-fleet/Recomputed steps": "there were none",
    "f2llm-fleet/Failed reconciles": "there were none",
}


class Prometheus:
    """The HTTP interface of Prometheus."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **parameters: str) -> Any:
        address = f"http://{self._address}:9090/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def series(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=query)["result"]
        return found

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def waits_for(self, alert: str, *, firing: bool) -> float:
        """Seconds until the alert fires, or stops firing."""
        begun = time.monotonic()
        what = f"{alert} {'fires' if firing else 'clears'}"
        wait_for(lambda: (alert in self.firing()) is firing, what, seconds=8 * MINUTES)
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def prometheus(cluster: RealCluster) -> Prometheus:
    if missing := missing_programs(PROGRAMS):
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds them")
    subprocess.run([SCRIPTS / "prometheus.sh"], check=True, capture_output=True, timeout=500)
    (pod,) = json.loads(Kubectl(KUBECONFIG, "monitoring")("get", "pods", "-l", "prometheus=lab", "-o", "json"))["items"]
    return Prometheus(pod["status"]["podIP"])


@pytest.fixture(scope="module")
def team(cluster: RealCluster, prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """The namespace of a team on the trial store, in which a job with two workers trains for a long time."""
    with volume(tmp_path_factory.mktemp("store")), pytest.MonkeyPatch.context() as environment:
        install_platform(**VALUES)
        write_small_dataset(team_store(environment, "data"), scale=4)
        kubectl = Kubectl(KUBECONFIG, TEAM)
        job_spec = job(cluster, "watched", epochs=3000)
        spec = job_spec["spec"]
        spec["data"]["uri"], spec["storage"] = f"s3://{TEAM}/data", {"uri": f"s3://{TEAM}/runs"}
        spec["cluster"]["secrets"] = ["f2llm-store"]
        spec["checkpoint"] = {"every": "10 steps"}
        spec["workers"]["hang_timeout_seconds"] = 1800
        kubectl.apply(job_spec)
        trains(kubectl, steps=20)
        yield kubectl
        kubectl("delete", "ej", "watched")
    cluster.kubectl("delete", "namespace", TEAM)


def trains(kubectl: Kubectl, *, steps: int = 1) -> None:
    """Wait until the job has completed this many more steps."""

    def step() -> int:
        found = status_of(kubectl.get("ej", "watched"))
        assert found.phase is not JobPhase.FAILED, found.message
        return found.step if found.phase is JobPhase.TRAINING else 0

    before = step()
    wait_for(lambda: step() >= before + steps, f"{steps} more steps", seconds=10 * MINUTES)


def test_every_panel_shows_data_of_a_running_job(team: Kubectl, prometheus: Prometheus) -> None:
    chosen = {"$namespace": TEAM, "$job": "watched", "$peak": "121"}

    left = {
        (f"{board.uid}/{panel.title}", reduce(lambda text, pair: text.replace(*pair), chosen.items(), query.expr))
        for board in DASHBOARDS.values()
        for panel in board.panels
        for query in panel.queries
    }

    def all_others_have_data() -> bool:
        left.difference_update([each for each in left if prometheus.series(each[1])])
        return {title for title, _ in left} <= {*EMPTY}

    try:  # rates over minutes, and rules that run once per minute, have no value before a few scrapes
        wait_for(all_others_have_data, "all other panels have data", seconds=4 * MINUTES)
    finally:
        say("without data:", *sorted(title for title, _ in left))


CAUSES: dict[str, tuple[Callable[[Kubectl], object], Callable[[Kubectl], object]]] = {
    "F2LLMNoProgress": (lambda team: signal_workers(team, "STOP"), lambda team: signal_workers(team, "CONT")),
    "F2LLMOperatorDown": (lambda _: scale("f2llm-operator", 0), lambda _: scale("f2llm-operator", 1)),
    "F2LLMStoreErrors": (lambda _: scale("f2llm-store", 0), lambda _: scale("f2llm-store", 1)),
}


@pytest.mark.parametrize("alert", CAUSES)
def test_an_alert_fires_by_its_cause_and_clears_after_the_fix(
    team: Kubectl, prometheus: Prometheus, alert: str
) -> None:
    cause, fix = CAUSES[alert]
    trains(team, steps=5)
    wait_for(lambda: alert not in prometheus.firing(), f"{alert} is quiet", seconds=3 * MINUTES)

    cause(team)
    try:
        fired = prometheus.waits_for(alert, firing=True)
        say(f"{alert} fires {fired:.0f} s after its cause", team("get", "ej", "-o", "wide"))
    finally:
        fix(team)
    cleared = prometheus.waits_for(alert, firing=False)

    say(f"{alert} clears {cleared:.0f} s after the fix")
    trains(team, steps=5)


def signal_workers(team: Kubectl, name: str) -> None:
    """Signal every training process. Stopped processes make no progress and report nothing."""
    pods = team("get", "pods", "-l", "f2llm.dev/job=watched,ray.io/node-type=worker", "-o", "name").split()
    for pod in pods:
        team("exec", pod, "--", "pkill", f"-{name}", "-f", "^ray::")


def scale(deployment: str, replicas: int) -> None:
    Kubectl(KUBECONFIG, SYSTEM)("scale", f"deployment/{deployment}", f"--replicas={replicas}")
