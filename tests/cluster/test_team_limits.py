"""Limits of the platform chart's teams on a real API server: what a member may ask for, and ways around the limits."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.calling import caller
from tests.support.control_plane import missing_programs, programs_folder, run_control_plane
from tests.support.custom_resources import install_kuberay_types, install_our_type, wait_until_served
from tests.support.helm import PLATFORM_CHART, run_program
from tests.support.kubectl import Kubectl, Refused
from tests.support.waiting import wait_for

SYSTEM, LIMITED, OPEN = "f2llm-system", "team-a", "team-b"
ANNA = ("--as=anna", "--as-group=a")
"""A member of both teams."""
KUEUE = "kueue.x-k8s.io"
TYPES = programs_folder().parent / "platform-crds"
MEMBERS = [{"kind": "Group", "name": "a"}]
NOT_ALL = {
    "images": ["registry.example.org/ml/*"],
    "imagePullSecrets": ["registry"],
    "profiles": ["platform", "same-zone"],
    "secrets": ["f2llm-*"],
    "configMaps": [],
    "claims": ["models"],
    "nodeLabels": ["f2llm.dev/pool"],
    "resources": ["vpc.amazonaws.com/efa"],
}
VALUES = {
    "quota": {"kueue": {"enabled": True}},
    "priorityClasses": [{"name": "f2llm-standard", "value": 0}],
    "teams": [
        {"name": LIMITED, "members": MEMBERS, "allowed": NOT_ALL},
        {"name": OPEN, "members": MEMBERS, "allowed": {"tolerationKeys": ["*"], "priorityClasses": ["batch-*"]}},
    ],
}
WITHIN = {
    "image": "registry.example.org/ml/f2llm:1",
    "image_pull_secrets": ["registry"],
    "profiles": ["platform"],
    "service_account": "f2llm-runs",
    "priority_class": "f2llm-standard",
    "secrets": ["f2llm-store"],
    "volumes": [{"name": "models", "mount_path": "/models", "claim": "models"}],
    "worker": {"node_selector": {"f2llm.dev/pool": "gpu"}, "resources": {"vpc.amazonaws.com/efa": "1"}},
}
OWNER = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "mine", "uid": "1"}
TOLERATE = [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]


def volume(**source: str) -> dict[str, Any]:
    return {"volumes": [{"name": "extra", "mount_path": "/extra", **source}]}


BEYOND: list[tuple[dict[str, Any], str]] = [
    ({"image": "registry.example.org/ml-evil/x"}, "spec.cluster.image: found registry.example.org/ml-evil/x"),
    ({"image": "docker.io/registry.example.org/ml/x"}, "spec.cluster.image: found docker.io"),
    ({"image": "registryxexample.org/ml/x"}, "spec.cluster.image: found registryxexample.org"),
    ({"image_pull_secrets": ["registry", "other"]}, "spec.cluster.image_pull_secrets: found other"),
    ({"service_account": "default"}, "spec.cluster.service_account: found default"),
    ({"priority_class": "system-node-critical"}, "found system-node-critical; expected one of f2llm-*"),
    ({"profiles": ["efa"]}, "spec.cluster.profiles: found efa"),
    ({"secrets": ["admin"]}, "spec.cluster.secrets or a volume: found admin"),
    (volume(secret="admin"), "spec.cluster.secrets or a volume: found admin"),
    (volume(config_map="any"), "config_map of a volume: found any; expected none"),
    (volume(claim="other"), "claim of a volume: found other"),
    ({"head": {"tolerations": TOLERATE}}, "key of a toleration: found node-role"),
    ({"worker": {"tolerations": [{"operator": "Exists"}]}}, "key of a toleration: found an empty value"),
    ({"head": {"node_selector": {"kubernetes.io/hostname": "x"}}}, "key of a node_selector: found kubernetes.io"),
    ({"worker": {"resources": {"example.org/fpga": "1"}}}, "key of resources: found example.org/fpga"),
]


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """The administrator of an API server with two teams and their policies in force."""
    if missing := missing_programs(("etcd", "kube-apiserver", "kube-controller-manager", "helm", "kuberay-manifests")):
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds a Kubernetes (once, about 20 min)")
    if not TYPES.is_dir():
        pytest.skip("the resources of others are not there; tests/cluster/build.sh platform-crds fetches them")
    folder = tmp_path_factory.mktemp("limits")
    (folder / "values.yaml").write_text(yaml.safe_dump(VALUES))
    with run_control_plane(folder) as running:
        kubectl = Kubectl(running.kubeconfig, LIMITED)
        install_our_type(Kubectl(running.kubeconfig))
        install_kuberay_types(kubectl)
        for kind in ("resourceflavors", "clusterqueues", "localqueues"):
            kubectl("apply", "--server-side", "-f", str(TYPES / f"{KUEUE}_{kind}.yaml"))
            wait_until_served(kubectl, f"{kind}.{KUEUE}")
        place = (f"--kubeconfig={running.kubeconfig}", f"--namespace={SYSTEM}", "--create-namespace")
        run_program("helm", "install", "platform", str(PLATFORM_CHART), *place, f"--values={folder}/values.yaml")
        # The API server reads new policies every few seconds.
        wait_for(lambda: refusal(kubectl, ray_job(LIMITED)), "the policies are in force")
        yield kubectl


def job(namespace: str, cluster: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    spec = {
        "preset": "f2llm-0.6b",
        "data": {"uri": "s3://b/data"},
        "storage": {"uri": "s3://b/runs"},
        "cluster": cluster,
    }
    metadata = {"name": "mine", "namespace": namespace, **metadata}
    return {"apiVersion": "f2llm.dev/v1alpha1", "kind": "EmbeddingJob", "metadata": metadata, "spec": spec}


def ray_job(namespace: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": "mine", "namespace": namespace, "labels": labels}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": {"entrypoint": "true"}}


def refusal(kubectl: Kubectl, value: dict[str, Any], *who: str) -> str:
    """The API server's message; empty if it would store the object."""
    try:
        Kubectl(kubectl.kubeconfig, value["metadata"]["namespace"]).apply(value, "--dry-run=server", *who)
    except Refused as error:
        return str(error)
    return ""


def test_a_job_within_the_limits_is_stored(admin: Kubectl) -> None:
    assert refusal(admin, job(LIMITED, WITHIN), *ANNA) == ""
    assert refusal(admin, job(LIMITED, {}), *ANNA) == ""


@pytest.mark.parametrize(("beyond", "message"), BEYOND, ids=[message for _, message in BEYOND])
def test_a_job_beyond_a_limit_is_refused_with_the_value_and_the_limit(
    admin: Kubectl, beyond: dict[str, Any], message: str
) -> None:
    found = refusal(admin, job(LIMITED, {**WITHIN, **beyond}), *ANNA)

    assert message in found
    assert f"The limit of team {LIMITED} is allowed." in found


def test_the_page_shows_the_message(admin: Kubectl, project_root: Path) -> None:
    page = (project_root / "docs" / "cluster" / "teams-and-quotas.md").read_text()

    assert refusal(admin, job(LIMITED, {"service_account": "default"}), *ANNA) in page


def test_the_command_line_says_what_the_policy_says(
    admin: Kubectl, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job(LIMITED, {"priority_class": "system-node-critical"})))
    monkeypatch.setenv("KUBECONFIG", str(admin.kubeconfig))

    code, _, err = caller(capsys)("submit", str(path))

    assert code == 11
    assert "found system-node-critical; expected one of f2llm-*" in " ".join(err.split())


@pytest.mark.parametrize("name", ["high", "system-node-critical"])
def test_a_job_has_no_other_priority_in_its_queue(admin: Kubectl, name: str) -> None:
    found = refusal(admin, job(LIMITED, {}, labels={f"{KUEUE}/priority-class": name}), *ANNA)

    assert f"the label {KUEUE}/priority-class: found {name}" in found


def test_a_change_is_checked_like_a_new_job_and_an_older_job_can_be_deleted(admin: Kubectl) -> None:
    admin.apply(job(LIMITED, {}), *ANNA)
    changed = deepcopy(job(LIMITED, {"service_account": "default"}))

    assert "found default" in refusal(admin, changed, *ANNA)
    admin("delete", "ej", "mine", *ANNA)


def test_a_team_can_have_other_limits(admin: Kubectl) -> None:
    assert refusal(admin, job(OPEN, {"head": {"tolerations": TOLERATE}, "priority_class": "batch-1"})) == ""
    assert "found f2llm-standard" in refusal(admin, job(OPEN, {"priority_class": "f2llm-standard"}))


def test_the_api_server_finds_no_type_error_in_a_policy(admin: Kubectl) -> None:
    def checked() -> bool:
        return "observedGeneration" in admin.get("validatingadmissionpolicy", f"f2llm-jobs-{LIMITED}").get("status", {})

    wait_for(checked, "the policy is type-checked")
    assert "expressionWarnings" not in admin("get", "validatingadmissionpolicies", "-o", "json")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "serviceaccounts/token"),
        ("create", "serviceaccounts"),
        ("create", "rayjobs.ray.io"),
        ("create", "rayservices.ray.io"),
        ("patch", "rayclusters.ray.io"),
        ("create", "configmaps"),
        ("create", "workloads.kueue.x-k8s.io"),
        ("patch", "localqueues.kueue.x-k8s.io"),
        ("patch", "clusterqueues.kueue.x-k8s.io"),
        ("patch", "namespaces"),
        ("delete", "resourcequotas"),
        ("delete", "networkpolicies.networking.k8s.io"),
        ("patch", "embeddingjobs.f2llm.dev/status"),
        ("patch", "validatingadmissionpolicies.admissionregistration.k8s.io"),
        ("delete", "validatingadmissionpolicybindings.admissionregistration.k8s.io"),
    ],
)
def test_a_member_has_no_right_that_goes_around_the_limits(admin: Kubectl, verb: str, resource: str) -> None:
    kind, _, part = resource.partition("/")

    with pytest.raises(Refused):  # kubectl's answer without permission
        admin("auth", "can-i", verb, kind, f"--subresource={part}", *ANNA)


def test_a_member_gets_no_token_of_a_service_account_by_a_secret(admin: Kubectl) -> None:
    metadata = {"name": "token", "namespace": LIMITED}
    value = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/service-account-token"}
    value["metadata"]["annotations"] = {"kubernetes.io/service-account.name": "f2llm-runs"}  # type: ignore[index]
    plain = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": "value"}}

    assert "found kubernetes.io/service-account-token" in refusal(admin, value, *ANNA)
    assert refusal(admin, plain, *ANNA) == ""


@pytest.mark.parametrize("queue", ["other", "team-b"])
def test_a_job_waits_in_the_queue_of_its_team_only(admin: Kubectl, queue: str) -> None:
    found = refusal(admin, job(LIMITED, {}, labels={f"{KUEUE}/queue-name": queue}), *ANNA)

    assert f"label {KUEUE}/queue-name: found {queue}; expected default" in found
    assert refusal(admin, job(LIMITED, {}, labels={f"{KUEUE}/queue-name": "default"}), *ANNA) == ""


def test_without_kueues_webhook_nothing_of_ray_starts_outside_the_queue(admin: Kubectl) -> None:
    """This API server has Kueue's types, but Kueue does not run."""
    without, with_label = ray_job(LIMITED), ray_job(LIMITED, **{f"{KUEUE}/queue-name": "default"})
    metadata = {"name": "free", "namespace": LIMITED}
    pods = {"template": {"spec": {"containers": [{"name": "ray-head", "image": "any"}]}}, "rayStartParams": {}}
    config = {"headGroupSpec": pods}
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": config}
    service = {**cluster, "kind": "RayService", "spec": {"rayClusterConfig": config}}
    part = deepcopy(cluster)
    part["metadata"] = {**metadata, "ownerReferences": [OWNER]}

    assert "of RayJob mine: found none, expected default" in refusal(admin, without)
    assert "of RayCluster free: found none" in refusal(admin, cluster)
    assert "of RayService free: found none" in refusal(admin, service)
    assert refusal(admin, part) == ""
    assert refusal(admin, with_label) == ""
    assert refusal(admin, ray_job("default")) == ""
