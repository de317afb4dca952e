"""Findings of the doctor about clusters, from plain values."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from jobs.doctor.capacity import amount, pods_that_fit
from jobs.doctor.check import Check
from jobs.doctor.cluster import check_kuberay, check_operator, judge_cluster
from jobs.doctor.cluster_inventory import HIDDEN, JOB_RIGHTS, POD_RIGHTS, ClusterInventory
from jobs.doctor.job_spec import check_job_spec_on
from jobs.kube.crd import schema
from jobs.spec.job import EmbeddingJob, parse_job_spec
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import ON_A_CLUSTER, job_spec

OURS = schema()["properties"]["spec"]
NEW_RAY = {"properties": {"spec": {"properties": {"authOptions": {"properties": {"secretName": {"type": "string"}}}}}}}
OLD_RAY: dict[str, Any] = {"properties": {"spec": {"properties": {"authOptions": {"properties": {}}}}}}
SETTINGS = {"metadata": {"name": "f2llm-operator"}, "data": {"operator.yaml": "image: registry.example/f2llm:1"}}


def deployment(name: str, image: str, *, ready: int = 1, args: tuple[str, ...] = ()) -> dict[str, Any]:
    pod = {"containers": [{"name": "operator", "image": image, "args": list(args)}]}
    metadata = {"name": name, "namespace": f"{name}-system"}
    return {"metadata": metadata, "spec": {"template": {"spec": pod}}, "status": {"readyReplicas": ready}}


def node(*, labels: Any = (), taints: tuple[Any, ...] = (), cpu: str = "16", gpus: str = "0") -> dict[str, Any]:
    allocatable = {"cpu": cpu, "memory": "64Gi", "nvidia.com/gpu": gpus}
    status = {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": {"labels": dict(labels)}, "spec": {"taints": list(taints)}, "status": status}


GOOD = ClusterInventory(
    server="https://cluster:6443",
    version="v1.36.3",
    namespace="team",
    groups=frozenset({"f2llm.dev", "ray.io"}),
    types={"EmbeddingJob": {"properties": {"spec": OURS}}, "RayJob": {}, "RayCluster": NEW_RAY},
    kuberay=(deployment("kuberay", "kuberay/operator:v1.6.2"),),
    operators=(deployment("f2llm", "f2llm-operator:0.1.0"),),
    settings=SETTINGS,
    allowed=dict.fromkeys((*JOB_RIGHTS, *POD_RIGHTS), True),
    namespace_object={"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
    nodes=(node(gpus="8"),),
)
"""A cluster without problems."""


def job(spec: Mapping[str, Any] | None = None, **top: Any) -> EmbeddingJob:
    return parse_job_spec(RawSpec("job.yaml", job_spec({**ON_A_CLUSTER, **(spec or {})}, **top)))


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def of_job_spec(
    inventory: ClusterInventory = GOOD, spec: Mapping[str, Any] | None = None, **top: Any
) -> dict[str, Check]:
    return by_name(check_job_spec_on(job(spec, **top), inventory))


def test_a_good_cluster_has_no_findings() -> None:
    assert {check.status for check in judge_cluster(GOOD, OURS)} == {"ok", "absent"}


def test_an_empty_cluster_lacks_every_requirement_and_each_has_a_remedy() -> None:
    checks = judge_cluster(ClusterInventory("https://cluster", "v1", "team"), OURS)

    missing = [check for check in checks if check.status == "missing"]
    assert {check.name for check in missing} == {"KubeRay", "EmbeddingJobs", "operator", "namespace", "your jobs"}
    assert all(check.remedy for check in missing)


def test_hints_to_install_have_the_chart_repository_and_both_images() -> None:
    found = by_name(judge_cluster(ClusterInventory("https://cluster", "v1", "team"), OURS))

    repository = "helm repo add kuberay https://ray-project.github.io/kuberay-helm/ && helm upgrade --install "
    assert str(found["KubeRay"].remedy).startswith(repository)
    for name in ("EmbeddingJobs", "operator"):
        assert "--set image=... --set jobs.image=..." in str(found[name].remedy)
        assert "make images" in str(found[name].remedy)


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("kuberay/operator:v1.6.0", "ok"),
        ("kuberay/operator:1.10.1", "ok"),
        ("mirror:5000/operator:nightly", "ok"),
        ("kuberay/operator:v1.5.1", "missing"),
        ("kuberay/operator:v0.6.0", "missing"),
    ],
)
def test_kuberay_is_new_enough_from_1_6_on(image: str, status: str) -> None:
    inventory = replace(GOOD, kuberay=(deployment("kuberay", image),))

    checks = by_name(list(check_kuberay(inventory)))

    assert checks["KubeRay operator"].status == status


def test_old_crds_of_kuberay_are_recognized_by_a_missing_field() -> None:
    inventory = replace(GOOD, types={**GOOD.types, "RayCluster": OLD_RAY})

    checks = by_name(list(check_kuberay(inventory)))

    assert checks["KubeRay CRDs"].status == "missing"
    assert "kubectl apply" in (checks["KubeRay CRDs"].remedy or "")


def test_an_operator_that_is_not_ready_or_watches_other_namespaces_is_missing() -> None:
    down = replace(GOOD, operators=(deployment("f2llm", "f2llm-operator:1", ready=0),))
    elsewhere = replace(GOOD, operators=(deployment("f2llm", "f2llm-operator:1", args=("--namespace=other",)),))
    here = replace(GOOD, operators=(deployment("f2llm", "f2llm-operator:1", args=("--namespace=team",)),))

    assert check_operator(down).status == "missing"
    assert "watches other, but not team" in check_operator(elsewhere).found
    assert check_operator(here).status == "ok"


def test_objects_that_a_user_may_not_read_are_unknown_and_not_missing() -> None:
    hidden = replace(
        GOOD,
        kuberay=HIDDEN,
        operators=HIDDEN,
        settings=HIDDEN,
        namespace_object=HIDDEN,
        nodes=HIDDEN,
        autoscaler=HIDDEN,
    )

    checks = [*judge_cluster(hidden, OURS), *check_job_spec_on(job({"cluster": {"profiles": ["ours"]}}), hidden)]

    assert "missing" not in {check.status for check in checks}
    unknown = {check.name for check in checks if check.status == "unknown"}
    assert unknown == {"KubeRay operator", "operator", "namespace", "GPU nodes", "profiles"}


def test_a_single_denied_verb_is_named() -> None:
    allowed = {right: right.verb != "delete" for right in GOOD.allowed}

    check = by_name(judge_cluster(replace(GOOD, allowed=allowed), OURS))["your jobs"]

    assert check.status == "missing"
    assert check.found == "in team you may not delete embeddingjobs"


def test_only_a_profile_that_the_operator_does_not_know_is_missing() -> None:
    text = "image: registry.example/f2llm:1\nprofiles: {pool: {worker: {node_selector: {pool: gpu}}}}"
    inventory = replace(GOOD, settings={**SETTINGS, "data": {"operator.yaml": text}})

    assert of_job_spec(inventory, {"cluster": {"profiles": ["pool"]}})["profiles"].status == "ok"
    assert of_job_spec(inventory, {"cluster": {"profiles": ["poool"]}})["profiles"].status == "missing"


def test_an_image_without_a_registry_must_be_on_the_nodes_already() -> None:
    assert of_job_spec(GOOD)["image"].status == "ok"
    assert of_job_spec(GOOD, {"cluster": {"image": "f2llm-ray:0.1.0"}})["image"].status == "warn"
    assert of_job_spec(GOOD, {"cluster": {"image": "localhost/f2llm-ray:0.1.0"}})["image"].status == "ok"


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ({("Secret", "keys"): {"type": "Opaque", "keys": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]}}, "ok"),
        ({("Secret", "keys"): {"type": "Opaque", "keys": ["AWS_ACCESS_KEY_ID"]}}, "missing"),
        ({("Secret", "keys"): None}, "missing"),
        ({("Secret", "keys"): HIDDEN}, "unknown"),
    ],
)
def test_the_stores_keys_must_both_be_in_the_secrets(named: Any, status: str) -> None:
    checks = of_job_spec(replace(GOOD, named=named), {"cluster": {"secrets": ["keys"]}})

    assert checks["storage"].status == status


def test_a_run_directory_outside_of_an_object_store_needs_a_volume() -> None:
    storage = {"storage": {"uri": "/disk/runs"}}
    disk = {"name": "disk", "claim": "disk", "mount_path": "/disk"}

    without, mounted = of_job_spec(spec=storage), of_job_spec(spec={**storage, "cluster": {"volumes": [disk]}})

    assert without["storage"].status == "missing"
    assert "no volume of spec.cluster.volumes" in without["storage"].found
    assert "PersistentVolumeClaim" in (without["storage"].remedy or "")
    assert mounted["storage"].status == "ok"


def test_a_service_account_with_a_cloud_identity_needs_no_secret() -> None:
    plain = {"metadata": {"name": "team-a"}}
    with_role = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}}}
    spec = {"cluster": {"service_account": "team-a"}}

    checks = [
        of_job_spec(replace(GOOD, named={("ServiceAccount", "team-a"): each}), spec)
        for each in (plain, with_role, None)
    ]

    assert [check["storage"].status for check in checks] == ["warn", "ok", "warn"]
    assert [check["ServiceAccount"].status for check in checks] == ["ok", "ok", "missing"]


def test_workers_that_do_not_fit_are_missing_unless_nodes_are_added_on_demand() -> None:
    wants = {"workers": {"replicas": 12, "min": 4, "gpus": 1}}
    karpenter = replace(GOOD, nodes=(), groups=GOOD.groups | {"karpenter.sh"})

    statuses = [
        of_job_spec(inventory, wants)["workers"].status
        for inventory in (GOOD, replace(GOOD, nodes=(node(gpus="3"),)), replace(GOOD, nodes=()), karpenter)
    ]

    assert statuses == ["warn", "missing", "missing", "warn"]


def test_a_pod_fits_if_labels_taints_and_every_request_allow_it() -> None:
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    nodes = [node(), node(labels={"pool": "gpu"}, taints=(taint,)), node(labels={"pool": "gpu"}, cpu="1")]
    pod: dict[str, Any] = {"containers": [{"resources": {"requests": {"cpu": "1500m", "memory": "8Gi"}}}]}
    in_pool = {**pod, "nodeSelector": {"pool": "gpu"}}
    tolerant = {**in_pool, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}

    assert [pods_that_fit(each, nodes) for each in (pod, in_pool, tolerant)] == [8, 0, 8]


def test_a_node_that_is_not_ready_or_unschedulable_has_no_room() -> None:
    broken, closed = node(), node()
    broken["status"]["conditions"][0]["status"] = "Unknown"
    closed["spec"]["unschedulable"] = True

    assert pods_that_fit({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}, [broken, closed]) == 0


@pytest.mark.parametrize(
    ("quantity", "number"), [("500m", 0.5), ("2", 2), ("1.5", 1.5), ("64Gi", 64 * 2**30), ("2k", 2000), ("1e3", 1000)]
)
def test_quantities_are_read_as_kubernetes_writes_them(quantity: str, number: float) -> None:
    assert amount(quantity) == number


def test_an_invalid_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="4GiB"):
        amount("4GiB")
