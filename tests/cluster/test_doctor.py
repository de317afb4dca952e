"""`f2llm doctor --cluster` with a real API server, on clusters in which different components are missing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.kube.crd import custom_resource_definition
from tests.support.calling import Run, caller
from tests.support.control_plane import ControlPlane, missing_programs, run_control_plane
from tests.support.custom_resources import KUBERAY_TYPES, install_kuberay_types, install_our_type, wait_until_served
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.operator import token_of_account
from tests.support.waiting import wait_for

Findings = dict[str, dict[str, Any]]
Doctor = Callable[..., tuple[int, Findings]]
NEEDY = job_spec(
    {
        **ON_A_CLUSTER,
        "workers": {"replicas": 2, "cpus": 4, "gpus": 1},
        "cluster": {"secrets": ["store-keys"], "image": "registry.example/f2llm:1", "worker": {"memory": "8Gi"}},
    },
    metadata={"name": "needy"},
)
OPERATOR = ("app.kubernetes.io/name", "f2llm-operator")
KUBERAY = ("app.kubernetes.io/component", "kuberay-operator")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A separate cluster: the tests of this module add components to it, one after the other."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds a Kubernetes (once, about 20 min)")
    with run_control_plane(tmp_path_factory.mktemp("doctor")) as running:
        yield running


@pytest.fixture(scope="module")
def kubectl(plane: ControlPlane) -> Kubectl:
    return Kubectl(plane.kubeconfig)


@pytest.fixture
def f2llm(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def doctor(f2llm: Run, plane: ControlPlane) -> Doctor:
    """The exit code, and the findings by name."""

    def run(*arguments: str, kubeconfig: Path | None = None) -> tuple[int, Findings]:
        code, out, _ = f2llm(
            "doctor", "--cluster", "--json", f"--kubeconfig={kubeconfig or plane.kubeconfig}", *arguments
        )
        return code, {check["name"]: check for check in json.loads(out)["checks"]}

    return run


@pytest.fixture
def job(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(NEEDY))
    return str(path)


def lacking(findings: Findings) -> set[str]:
    return {name for name, check in findings.items() if check["status"] == "missing"}


def deploy(kubectl: Kubectl, name: str, namespace: str, image: str, label: tuple[str, str]) -> None:
    """A Deployment whose single pod is marked as ready, since no node runs it."""
    labels = dict([label])
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": image}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod}
    place = Kubectl(kubectl.kubeconfig, namespace)
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    wait_for(lambda: "default" in place("get", "serviceaccounts", "-o", "name"), "the default account")
    place.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": spec}
    )

    def newest() -> str:
        pods = json.loads(place("get", "pods", "-o", "json"))["items"]
        return next((each["metadata"]["name"] for each in pods if each["spec"]["containers"][0]["image"] == image), "")

    ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    place("patch", "pod", wait_for(newest, f"a pod of {name}"), "--subresource=status", "-p", json.dumps(ready))
    wait_for(
        lambda: (
            (found := place.get("deployment", name))["status"].get("readyReplicas") == 1
            and found["status"].get("updatedReplicas") == 1
        ),
        f"{name} is ready",
    )


def add_node(kubectl: Kubectl, name: str, allocatable: dict[str, str]) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    status = {"allocatable": allocatable, "capacity": allocatable, "conditions": [{"type": "Ready", "status": "True"}]}
    kubectl("patch", "node", name, "--subresource=status", "-p", json.dumps({"status": status}))
    wait_for(lambda: not kubectl.get("node", name)["spec"].get("taints"), "the new node takes pods")


def test_a_server_that_does_not_answer_is_a_finding(doctor: Doctor, plane: ControlPlane, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.write_text(plane.kubeconfig.read_text().replace(plane.address, "https://127.0.0.1:9"))

    code, findings = doctor(kubeconfig=gone)

    assert code == 11
    assert lacking(findings) == {"API server"}


def test_an_unauthenticated_user_is_a_finding(doctor: Doctor, plane: ControlPlane) -> None:
    code, findings = doctor(kubeconfig=plane.kubeconfig_of("nobody's", "stranger"))

    assert code == 11
    assert "Unauthorized" in findings["API server"]["found"]


def test_a_bare_cluster_lacks_kuberay_our_crd_and_the_operator(doctor: Doctor) -> None:
    code, findings = doctor()

    assert code == 10
    assert lacking(findings) == {"KubeRay", "EmbeddingJobs", "operator"}
    assert all("helm" in findings[name]["remedy"] for name in lacking(findings))
    assert {findings[name]["status"] for name in ("Kueue", "Prometheus", "Karpenter")} == {"absent"}


def test_only_kuberay_is_missing_if_it_is_not_installed(doctor: Doctor, kubectl: Kubectl) -> None:
    install_our_type(kubectl)
    deploy(
        kubectl, "f2llm-operator", "f2llm-system", "f2llm-operator:0.1.0", ("app.kubernetes.io/name", "f2llm-operator")
    )

    code, findings = doctor()

    assert code == 10
    assert lacking(findings) == {"KubeRay"}
    assert findings["EmbeddingJobs"]["found"] == "f2llm.dev/v1alpha1, the CRD of this version"
    assert "f2llm-system/f2llm-operator, 1 ready" in findings["operator"]["found"]


def test_an_old_kuberay_is_recognized_by_its_crds_and_by_its_image(doctor: Doctor, kubectl: Kubectl) -> None:
    if not KUBERAY_TYPES.is_dir():
        pytest.skip("KubeRay's resources are not there; tests/cluster/build.sh kuberay-manifests fetches them")
    install_old_kuberay_types(kubectl)
    deploy(kubectl, "kuberay-operator", "kuberay-system", "kuberay/operator:v1.5.1", KUBERAY)

    code, findings = doctor()

    assert code == 10
    assert lacking(findings) == {"KubeRay CRDs", "KubeRay operator"}
    assert "spec.authOptions.secretName" in findings["KubeRay CRDs"]["found"]
    assert "v1.5.1" in findings["KubeRay operator"]["found"]


def test_on_a_good_cluster_only_objects_of_the_job_spec_are_missing(doctor: Doctor, kubectl: Kubectl, job: str) -> None:
    install_kuberay_types(kubectl)
    deploy(kubectl, "kuberay-operator", "kuberay-system", "kuberay/operator:v1.6.2", KUBERAY)
    kubectl("label", "namespace", "default", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    wait_for(lambda: doctor()[0] == 0, "new types are published")

    _, cluster = doctor()
    without, before = doctor(job)
    kubectl("create", "secret", "generic", "store-keys", "--from-literal=AWS_ACCESS_KEY_ID=a")
    half, between = doctor(job)
    kubectl("delete", "secret", "store-keys")
    keys = ("--from-literal=AWS_ACCESS_KEY_ID=a", "--from-literal=AWS_SECRET_ACCESS_KEY=very-secret")
    kubectl("create", "secret", "generic", "store-keys", *keys)
    add_node(kubectl, "gpu-1", {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "2", "pods": "110"})
    good, after = doctor(job)

    assert {check["status"] for check in cluster.values()} == {"ok", "warn", "absent"}
    assert cluster["GPU nodes"]["status"] == "warn"
    assert (without, half, good) == (10, 10, 0)
    assert lacking(before) == {"Secret", "storage", "head", "workers"}
    assert lacking(between) == {"storage", "head", "workers"}
    assert "no AWS_SECRET_ACCESS_KEY in store-keys" in between["storage"]["found"]
    assert {check["status"] for check in after.values()} == {"ok", "absent"}
    assert after["job spec"]["found"] == "needy: the API server accepts it"
    assert "very-secret" not in json.dumps(after)


def test_a_crd_of_another_version_is_a_warning_that_names_the_field(doctor: Doctor, kubectl: Kubectl) -> None:
    other = custom_resource_definition()
    properties = other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["cluster"]["properties"]["max_retries"]

    kubectl.apply(other)
    found = wait_for(lambda: (check := doctor()[1]["EmbeddingJobs"])["status"] == "warn" and check, "the other type")
    kubectl.apply(custom_resource_definition())

    assert "spec.cluster.max_retries" in found["found"]


def test_missing_permissions_and_unreadable_objects_are_reported(
    doctor: Doctor, plane: ControlPlane, kubectl: Kubectl, job: str
) -> None:
    kubeconfig = plane.kubeconfig_of(token_of_account(kubectl, "visitor", []), "visitor.kubeconfig")

    code, findings = doctor(job, kubeconfig=kubeconfig)

    assert code == 10
    assert lacking(findings) == {"your jobs"}
    assert "create embeddingjobs" in findings["your jobs"]["found"]
    assert findings["pods and logs"]["status"] == "warn"
    unseen = {name for name, check in findings.items() if check["status"] == "unknown"}
    assert unseen == {"operator", "KubeRay operator", "namespace", "GPU nodes", "Secret", "storage", "head", "workers"}
    assert findings["KubeRay CRDs"]["status"] == "ok"


def test_for_people_it_prints_one_line_per_finding_with_a_hint(f2llm: Run, plane: ControlPlane) -> None:
    code, out, _ = f2llm("doctor", "--cluster", f"--kubeconfig={plane.kubeconfig}", "-n", "nowhere")

    assert code == 10
    assert "missing namespace         nowhere does not exist" in out
    assert "hint: kubectl create namespace nowhere" in out


def install_old_kuberay_types(kubectl: Kubectl) -> None:
    """KubeRay's CRDs without the field that 1.6 introduced."""
    for kind in ("rayjobs", "rayclusters"):
        definition = yaml.safe_load((KUBERAY_TYPES / f"ray.io_{kind}.yaml").read_text())
        for version in definition["spec"]["versions"]:
            spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            cluster = spec["rayClusterSpec"]["properties"] if kind == "rayjobs" else spec
            if "authOptions" in cluster:
                del cluster["authOptions"]["properties"]["secretName"]
        kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(definition))
        wait_until_served(kubectl, f"{kind}.ray.io")
