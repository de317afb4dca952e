"""The operator with a real API server. There are no nodes; the test simulates KubeRay and the driver."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.kube.api import KubeApi
from jobs.kube.status import ConditionType, JobPhase, JobStatus, status_of
from jobs.spec.presets import merged
from ray_app.run_directory.status import Phase
from tests.support.command import f2llm
from tests.support.control_plane import ControlPlane
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.kubernetes_objects import failure
from tests.support.operator import KubeRay, run_operator
from tests.support.real_jobs import say
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def operator(kuberay_types: ControlPlane) -> Iterator[subprocess.Popen[bytes]]:
    log = kuberay_types.folder / "operator.log"
    with run_operator(kuberay_types.kubeconfig, log, "--config", _settings(kuberay_types.folder)) as running:
        yield running


def _settings(folder: Path) -> str:
    path = folder / "operator.yaml"
    path.write_text("retry_seconds: 1\nallowed: {service_accounts: [f2llm-*]}\n")
    return str(path)


@pytest.fixture(scope="module")
def api(operator: object, connection: KubeApi) -> KubeApi:
    return connection


@pytest.fixture
def submit(api: KubeApi, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Submits a job with a name of the test, and deletes it at the end."""
    name = request.node.name.replace("_", "-").removeprefix("test-")[:34].strip("-")

    def make(spec: dict[str, Any] | None = None) -> str:
        api.create(job_spec(merged(ON_A_CLUSTER, spec or {}), metadata={"name": name}))
        request.addfinalizer(lambda: api.delete("EmbeddingJob", name))
        return name

    return make


def state(api: KubeApi, name: str) -> JobStatus:
    return status_of(api.get("EmbeddingJob", name) or {})


def reaches(api: KubeApi, name: str, phase: JobPhase, *, attempt: int | None = None) -> JobStatus:
    def look() -> JobStatus | None:
        found = state(api, name)
        return found if found.phase is phase and attempt in (None, found.attempt) else None

    return wait_for(look, f"{name} {phase} (is {state(api, name).phase})")


def trains(api: KubeApi, name: str, attempt: int = 1) -> KubeRay:
    kuberay = KubeRay(api, name, attempt)
    kuberay.starts()
    kuberay.says(Phase.TRAINING, step=5, total_steps=20, loss=1.25, workers=2, eta_seconds=90.0)
    reaches(api, name, JobPhase.TRAINING)
    return kuberay


def test_a_job_trains_and_succeeds(api: KubeApi, kubectl: Kubectl, submit: Callable[..., str]) -> None:
    name = submit()

    kuberay = trains(api, name)
    shown = kubectl("get", "ej", name)
    kuberay.says(Phase.SUCCEEDED, step=20, total_steps=20, last_checkpoint_step=20)
    kuberay.ends(succeeded=True)
    reaches(api, name, JobPhase.SUCCEEDED)

    assert shown.splitlines()[0].split() == ["NAME", "PHASE", "STEP", "PROGRESS", "LOSS", "WORKERS", "ETA", "AGE"]
    assert shown.splitlines()[1].split()[:7] == [name, "Training", "5", "25%", "1.25", "2", "1"]
    events = kubectl("get", "events", "-o", "jsonpath={.items[*].reason}")
    assert {"AttemptStarted", "Training", "Succeeded"} <= set(events.split())


def test_scaling_reaches_the_raycluster_and_names_its_victims(
    api: KubeApi, kubectl: Kubectl, submit: Callable[..., str]
) -> None:
    kuberay = trains(api, name := submit())

    kubectl("scale", f"ej/{name}", "--replicas=4")
    wait_for(lambda: kuberay.replicas() == 4, "4 replicas")
    kuberay.fill_up()
    kubectl("scale", f"ej/{name}", "--replicas=1")
    wait_for(lambda: kuberay.replicas() == 1, "1 replica")
    kuberay.fill_up()
    wait_for(lambda: state(api, name).replicas == 1, "one worker in the status")

    assert len(kuberay.workers()) == 1


def test_a_suspended_job_stops_and_a_resumed_one_starts_again(api: KubeApi, submit: Callable[..., str]) -> None:
    kuberay = trains(api, name := submit())

    api.patch("EmbeddingJob", name, {"spec": {"suspend": True}})
    wait_for(lambda: kuberay.stop_request().endswith("/1"), "the stop request")
    kuberay.says(Phase.STOPPED, step=7, total_steps=20, last_checkpoint_step=7)
    kuberay.ends(succeeded=False)
    reaches(api, name, JobPhase.SUSPENDED)
    assert api.get("RayJob", f"{name}-1") is None
    api.patch("EmbeddingJob", name, {"spec": {"suspend": False}})
    trains(api, name, attempt=2)

    assert state(api, name).last_checkpoint_step is None or state(api, name).attempt == 2


def test_a_retryable_failure_is_retried_when_the_pods_are_gone(api: KubeApi, submit: Callable[..., str]) -> None:
    kuberay = trains(api, name := submit())

    kuberay.says(Phase.FAILED, failure=failure(retryable=True))
    kuberay.status(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
    waiting = wait_for(lambda: "pods" in state(api, name).message or None, "it waits for the pods")
    kuberay.pods_go()
    second = trains(api, name, attempt=2)

    assert waiting
    assert state(api, name).last_failure.error_class == "data"  # type: ignore[union-attr]
    assert second.ray_job()["spec"]["backoffLimit"] == 0


def test_a_users_error_is_final(api: KubeApi, kubectl: Kubectl, submit: Callable[..., str]) -> None:
    kuberay = trains(api, name := submit())

    kuberay.says(Phase.FAILED, failure=failure(retryable=False))
    kuberay.ends(succeeded=False)
    reaches(api, name, JobPhase.FAILED)

    assert "bad; fix it" in kubectl("describe", "ej", name)


def test_a_job_with_an_unknown_profile_lists_the_known_ones(
    api: KubeApi, kubectl: Kubectl, submit: Callable[..., str]
) -> None:
    name = submit({"cluster": {"profiles": ["nowhere"]}})

    reaches(api, name, JobPhase.FAILED)

    assert "expected one of efa" in kubectl("describe", "ej", name)


def test_a_job_that_requests_more_than_the_settings_allow_is_refused_until_it_requests_less(
    api: KubeApi, kubectl: Kubectl, kuberay_types: ControlPlane, submit: Callable[..., str]
) -> None:
    name = submit({"cluster": {"service_account": "deployer"}})

    refused = reaches(api, name, JobPhase.FAILED)
    shown = f2llm("describe", name, "--kubeconfig", kuberay_types.kubeconfig).stdout
    described = kubectl("describe", "ej", name)
    say(kubectl("get", "ej", name), shown, described)

    condition = refused.conditions[0]
    assert (condition.type, condition.status, condition.reason) == (ConditionType.ACCEPTED, "False", "NotAllowed")
    message = "spec.cluster.service_account: found deployer, expected one of f2llm-*"
    assert message in shown
    assert message in described
    api.patch("EmbeddingJob", name, {"spec": {"cluster": {"service_account": "f2llm-runs"}}})
    reaches(api, name, JobPhase.STARTING)


def test_a_job_that_trains_is_suspended_though_its_profile_is_gone(api: KubeApi, submit: Callable[..., str]) -> None:
    kuberay = trains(api, name := submit())

    api.patch("EmbeddingJob", name, {"spec": {"cluster": {"profiles": ["nowhere"]}, "suspend": True}})
    wait_for(lambda: kuberay.stop_request().endswith("/1"), "the stop request")
    kuberay.says(Phase.STOPPED, step=7, total_steps=20, last_checkpoint_step=7)
    kuberay.ends(succeeded=False)
    suspended = reaches(api, name, JobPhase.SUSPENDED)

    assert "expected one of efa" in suspended.conditions[0].message


def test_uids_are_those_of_the_existing_objects(api: KubeApi, submit: Callable[..., str]) -> None:
    trains(api, name := submit())

    for kind in ("RayJob", "RayCluster", "ConfigMap", "Pod"):
        selector = f"f2llm.dev/job={name}"  # objects of earlier jobs can disappear between two lists
        found = api.uids(kind, namespace="default", selector=selector)

        assert found
        assert found == {each["metadata"]["uid"] for each in api.list(kind, selector=selector)["items"]}
        assert found <= api.uids(kind, namespace=None)
    (job,) = [each for each in api.list("EmbeddingJob")["items"] if each["metadata"]["name"] == name]
    assert job["metadata"]["uid"] in api.uids("EmbeddingJob", namespace=None)


@pytest.mark.parametrize("kind", ["NetworkPolicy", "ServiceAccount", "Role"])
def test_a_job_whose_objects_would_replace_those_of_a_chart_is_refused_and_changes_nothing(
    kind: str, api: KubeApi, submit: Callable[..., str], request: pytest.FixtureRequest
) -> None:
    name = f"theirs-{kind.lower()}"
    content = {
        "NetworkPolicy": ("networking.k8s.io/v1", f"f2llm-job-{name}", {"spec": {"podSelector": {}}}),
        "ServiceAccount": ("v1", f"f2llm-job-{name}", {}),
        "Role": ("rbac.authorization.k8s.io/v1", f"{name}-progress", {"rules": []}),
    }
    version, taken, rest = content[kind]
    theirs = api.create(
        {"apiVersion": version, "kind": kind, "metadata": {"name": taken, "namespace": "default"}, **rest}
    )
    api.create(job_spec(ON_A_CLUSTER, metadata={"name": name}))
    request.addfinalizer(lambda: api.delete("EmbeddingJob", name))

    status = reaches(api, name, JobPhase.FAILED)

    assert f"the job needs the {kind} {taken}, but an object of that name exists" in status.message
    found = api.get(kind, taken)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    api.delete(kind, taken)
    api.patch("EmbeddingJob", name, {"metadata": {"annotations": {"touched": "yes"}}})
    reaches(api, name, JobPhase.STARTING)


def test_all_objects_of_a_deleted_job_are_deleted(api: KubeApi, submit: Callable[..., str]) -> None:
    kuberay = trains(api, name := submit())

    api.delete("EmbeddingJob", name)

    def left() -> list[str]:
        kinds = ("RayJob", "RayCluster", "Pod", "ConfigMap", "Role", "RoleBinding", "ServiceAccount")
        more = ("PodDisruptionBudget", "NetworkPolicy")
        found = [api.list(kind, selector=f"f2llm.dev/job={name}")["items"] for kind in (*kinds, *more)]
        return [each["metadata"]["name"] for items in found for each in items]

    wait_for(lambda: not left(), f"nothing is left of {name}")
    assert kuberay.cluster() == {}


def test_an_outage_of_the_api_server_only_delays_a_job(
    api: KubeApi, kuberay_types: ControlPlane, operator: subprocess.Popen[bytes], submit: Callable[..., str]
) -> None:
    kuberay = trains(api, name := submit())
    before = kuberay.ray_job()["metadata"]["uid"]

    with kuberay_types.server_away():
        time.sleep(5)
    kuberay.says(Phase.TRAINING, step=9, total_steps=20)
    api.patch("EmbeddingJob", name, {"spec": {"workers": {"replicas": 3}}})
    wait_for(lambda: state(api, name).step == 9, "the status continues")
    wait_for(lambda: kuberay.replicas() == 3, "it is scaled")

    assert operator.poll() is None
    assert kuberay.ray_job()["metadata"]["uid"] == before
    assert state(api, name).attempt == 1


def test_the_next_operator_continues_after_one_is_killed(
    api: KubeApi, kuberay_types: ControlPlane, operator: subprocess.Popen[bytes], submit: Callable[..., str]
) -> None:
    kuberay = trains(api, name := submit())
    before = kuberay.ray_job()["metadata"]["uid"]

    operator.send_signal(signal.SIGKILL)
    operator.wait()
    kuberay.says(Phase.TRAINING, step=9, total_steps=20)
    with run_operator(kuberay_types.kubeconfig, kuberay_types.folder / "second.log"):
        wait_for(lambda: state(api, name).step == 9, "the next operator's status")

    assert kuberay.ray_job()["metadata"]["uid"] == before
    assert state(api, name).attempt == 1
