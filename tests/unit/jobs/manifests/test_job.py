"""The Kubernetes objects of a job."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from jobs.errors import ConfigError
from jobs.manifests.job import attempt_job_spec, render
from jobs.manifests.operator_config import PROFILES, OperatorConfig, Profile, Tls
from jobs.spec.job import EmbeddingJob, load_job_spec, parse_job_spec
from jobs.spec.yaml12 import RawSpec, read_yaml, write_yaml
from ray_app.structured_log import LogFormat
from tests.support.job_specs import ON_A_CLUSTER, job_spec, specs
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[4]
GOLDEN = ROOT / "tests" / "golden" / "render"
SAMPLES = sorted((ROOT / "k8s" / "samples").glob("*.yaml"))
UID = "11111111-2222-3333-4444-555555555555"


def job(spec: dict[str, Any] | None = None, **top: Any) -> EmbeddingJob:
    return parse_job_spec(RawSpec("job.yaml", job_spec(spec, **top)))


def objects(spec: dict[str, Any] | None = None, *, attempt: int = 1, **top: Any) -> dict[str, dict[str, Any]]:
    """Objects by kind; of the two ConfigMaps, the one with the job spec."""
    return {each["kind"]: each for each in render(job(spec, **top), OperatorConfig(), attempt=attempt, uid=UID)}


def templates(rendered: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    cluster = rendered["RayJob"]["spec"]["rayClusterSpec"]
    yield cluster["headGroupSpec"]["template"]
    yield cluster["workerGroupSpecs"][0]["template"]


def worker(rendered: dict[str, dict[str, Any]]) -> dict[str, Any]:
    _, template = templates(rendered)
    found: dict[str, Any] = template["spec"]
    return found


def rendered_sample(path: Path) -> str:
    return "---\n".join(write_yaml(each) for each in render(load_job_spec(str(path)), OperatorConfig(), uid=UID))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_render_as_they_did(path: Path, request: pytest.FixtureRequest) -> None:
    made = rendered_sample(path)

    golden = GOLDEN / path.name
    assert made == golden.read_text(), "if this is meant: python -m tests.unit.jobs.manifests.test_job"


def test_checkpoints_are_evaluated_in_a_pod_without_training() -> None:
    (workers,) = objects()["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    workers_too, group = objects({"evaluation": {"checkpoints": True}})["RayJob"]["spec"]["rayClusterSpec"][
        "workerGroupSpecs"
    ]

    assert workers_too == workers
    assert group["groupName"] == "evaluation"
    assert {group[count] for count in ("minReplicas", "replicas", "maxReplicas")} == {1}
    # As the shell passes it to `ray start`.
    resources, cpus = (shlex.split(group["rayStartParams"][name])[0] for name in ("resources", "num-cpus"))
    assert (json.loads(resources), cpus) == ({"f2llm_evaluation": 1}, "0")
    assert group["template"] == workers["template"]


@given(specs())
def test_every_object_belongs_to_the_job_and_says_whose_it_is(spec: dict[str, Any]) -> None:
    for each in render(job(spec), OperatorConfig(), uid=UID):
        assert [owner["uid"] for owner in each["metadata"]["ownerReferences"]] == [UID]
        assert each["metadata"]["labels"]["f2llm.dev/job"] == "job"
        assert json.loads(json.dumps(each)) == each


@given(specs())
def test_all_pods_fit_the_restricted_standard_for_any_job_spec(spec: dict[str, Any]) -> None:
    for template in templates(objects(spec)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}


@given(specs())
def test_the_driver_accepts_any_number_of_workers_that_kubernetes_provides(spec: dict[str, Any]) -> None:
    given_job = job(spec)
    rendered = objects(spec)
    text = rendered["ConfigMap"]["data"]["job.yaml"]

    ran = parse_job_spec(read_yaml(text, "job.yaml"))

    group = rendered["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert ran == attempt_job_spec(given_job)
    assert ran.spec.train == given_job.spec.train
    assert ran.spec.workers.lowest <= (given_job.spec.workers.min or 1)
    assert ran.spec.workers.highest >= given_job.spec.workers.highest
    assert (group["replicas"], group["maxReplicas"]) == (given_job.spec.workers.replicas, ran.spec.workers.highest)


@pytest.mark.parametrize("cpus", [0.25, 1, 7.5, 8])
def test_a_pod_has_room_for_one_worker_and_no_more(cpus: float) -> None:
    rendered = objects({"workers": {"cpus": cpus}})
    ran = attempt_job_spec(job({"workers": {"cpus": cpus}}))

    group = rendered["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert float(group["rayStartParams"]["num-cpus"]) == ran.spec.workers.cpus
    assert worker(rendered)["containers"][0]["resources"]["requests"]["cpu"] in (f"{cpus:g}", f"{cpus * 1000:g}m")


def test_kuberay_does_not_retry_a_rayjob_and_deletes_its_pods() -> None:
    spec = objects(attempt=3)["RayJob"]["spec"]

    assert (spec["backoffLimit"], spec["submissionMode"], spec["shutdownAfterJobFinishes"]) == (0, "HTTPMode", True)


def test_a_pod_has_longer_than_its_drain_takes() -> None:
    for profiles in ([], ["spot-gke"], ["spot-karpenter"]):
        for template in templates(objects({"cluster": {"profiles": profiles}})):
            env = {each["name"]: each["value"] for each in template["spec"]["containers"][0]["env"]}
            drain = int(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert 0 < drain < template["spec"]["terminationGracePeriodSeconds"]


def test_the_log_of_the_head_pod_contains_the_drivers_output(tmp_path: Path) -> None:
    """Ray writes a driver's output to a file. Process 1, whose output is the log of most containers, is the pause
    process of the pod, since the process namespace is shared.
    """
    spec = objects()["RayJob"]["spec"]
    (container,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (tmp_path / "f2llm").write_text("#!/bin/sh\necho step 1/10 >&2\n")
    (tmp_path / "f2llm").chmod(0o755)
    log = tmp_path / "driver.log"
    start = f"sh -c {shlex.quote(spec['entrypoint'])} > {log} 2>&1"
    # The command of a container: KubeRay appends its own, which outlives the driver.
    command = f" {' '.join(container['command'])}  && ulimit -n; {start}; until [ -s {log} ]; do sleep 0.01; done"

    ran = subprocess.run(
        ["/bin/bash", "-c", "--", command],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "step 1/10" in ran.stdout.splitlines()
    assert log.read_text() == "step 1/10\n"


def test_the_log_of_a_terminated_driver_contains_its_last_line(tmp_path: Path) -> None:
    """Ray signals the whole process group of the entrypoint, which contains more than the driver."""
    log = tmp_path / "pod.log"
    driver = "trap 'echo writing a checkpoint; exit 0' TERM; echo step 1/10; while :; do sleep 0.05; done"
    (tmp_path / "f2llm").write_text(f"#!/bin/sh\n{driver}\n")
    (tmp_path / "f2llm").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "F2LLM_POD_LOG": str(log)}

    entrypoint = ["sh", "-c", objects()["RayJob"]["spec"]["entrypoint"]]
    with subprocess.Popen(entrypoint, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as running:
        wait_for(lambda: log.exists() and "step 1/10" in log.read_text(), "the driver's first line", seconds=30)
        os.killpg(running.pid, signal.SIGTERM)
        wait_for(lambda: "writing a checkpoint" in log.read_text(), "the driver's last line", seconds=30)


@pytest.mark.parametrize("log_format", LogFormat)
def test_a_driver_logs_in_the_operators_format_and_as_json_nothing_else(log_format: LogFormat) -> None:
    rendered = {each["kind"]: each for each in render(job(), OperatorConfig(log_format=log_format))}
    head, worker_pod = ({each["name"]: each["value"] for each in template["spec"]["containers"][0]["env"]}
                        for template in templates(rendered))  # fmt: skip

    assert head["F2LLM_LOG_FORMAT"] == log_format
    assert "F2LLM_LOG_FORMAT" not in worker_pod
    assert ("f2llm run --quiet " in rendered["RayJob"]["spec"]["entrypoint"]) == (log_format is LogFormat.JSON)


def test_only_the_head_may_speak_to_kubernetes_and_only_about_one_config_map() -> None:
    rendered = objects()
    head, worker_pod = templates(rendered)

    assert head["spec"]["automountServiceAccountToken"] is True
    assert worker_pod["spec"]["automountServiceAccountToken"] is False
    assert rendered["Role"]["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["job-progress"], "verbs": ["get", "patch"]}
    ]


def test_the_job_specs_settings_reach_the_pods() -> None:
    cluster = {
        "image": "registry/f2llm:1",
        "env": {"HF_HUB_OFFLINE": "1"},
        "secrets": ["s3-keys"],
        "volumes": [{"name": "models", "mount_path": "/models", "claim": "models"}],
        "worker": {"memory": "64Gi", "shared_memory": "8Gi", "node_selector": {"pool": "gpu"}},
    }

    pod = worker(objects({"cluster": cluster, "workers": {"gpus": 1, "cpus": 7.5}}))

    container = pod["containers"][0]
    assert container["image"] == "registry/f2llm:1"
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
    assert container["resources"] == {
        "requests": {"cpu": "7500m", "nvidia.com/gpu": "1", "memory": "64Gi"},
        "limits": {"nvidia.com/gpu": "1", "memory": "64Gi"},
    }
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in pod["volumes"]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in container["volumeMounts"]
    assert pod["nodeSelector"] == {"pool": "gpu"}


def test_a_binding_names_no_account_of_a_namespace_that_was_not_given() -> None:
    def account(metadata: dict[str, str]) -> dict[str, str]:
        value = parse_job_spec(RawSpec("job.yaml", job_spec(ON_A_CLUSTER, metadata={"name": "job", **metadata})))
        (subject,) = next(each for each in render(value, OperatorConfig()) if each["kind"] == "RoleBinding")["subjects"]
        return dict(subject)

    assert account({}) == {"kind": "ServiceAccount", "name": "f2llm-job-job"}
    assert account({"namespace": "team"})["namespace"] == "team"


def test_no_volume_of_a_job_spec_conflicts_with_the_volumes_of_every_pod() -> None:
    rendered = render(job(), OperatorConfig(tls=Tls(ca_secret="ray-ca")))
    for template in templates({each["kind"]: each for each in rendered}):
        pod = template["spec"]
        names = [(each["name"], "/models") for each in pod["volumes"]]
        paths = [("models", each["mountPath"]) for each in pod["containers"][0]["volumeMounts"]]
        for name, path in names + paths:
            with pytest.raises(ConfigError, match="that every pod has"):
                objects({"cluster": {"volumes": [{"name": name, "mount_path": path, "claim": "c"}]}})


def test_a_job_spec_overrides_its_profiles_and_a_later_profile_an_earlier_one() -> None:
    cluster = {
        "profiles": ["spot-karpenter", "spot-gke"],
        "worker": {"node_selector": {"karpenter.sh/capacity-type": "on-demand"}},
    }

    pod = worker(objects({"cluster": cluster}))

    assert pod["nodeSelector"]["karpenter.sh/capacity-type"] == "on-demand"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["terminationGracePeriodSeconds"] == 25


def test_a_profile_or_a_job_spec_can_enable_grafana_in_rays_dashboard() -> None:
    def grafana(cluster: dict[str, Any]) -> str:
        config = OperatorConfig(profiles={"grafana": Profile(env={"RAY_GRAFANA_HOST": "http://grafana"})})
        rendered = {each["kind"]: each for each in render(job({"cluster": cluster}), config, uid=UID)}
        head, _ = templates(rendered)
        env = {each["name"]: each["value"] for each in head["spec"]["containers"][0]["env"]}
        return str(env["RAY_GRAFANA_HOST"])

    assert grafana({}) == "DISABLED"
    assert grafana({"profiles": ["grafana"]}) == "http://grafana"
    assert grafana({"profiles": ["grafana"], "env": {"RAY_GRAFANA_HOST": "http://own"}}) == "http://own"


def test_a_profile_keeps_workers_in_one_zone_but_not_the_head() -> None:
    head, template = templates(objects({"cluster": {"profiles": ["platform", "same-zone"]}}))

    (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"] == {"matchLabels": {"f2llm.dev/job": "job", "ray.io/node-type": "worker"}}
    assert "affinity" not in head["spec"]
    assert template["spec"]["nodeSelector"] == {"f2llm.dev/pool": "gpu"}


def test_no_autoscaler_moves_a_pod() -> None:
    for template in templates(objects()):
        assert template["metadata"]["annotations"] == {
            "karpenter.sh/do-not-disrupt": "true",
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        }


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_renders(name: str) -> None:
    assert objects({"cluster": {"profiles": [name]}})["RayJob"]


def test_no_profile_requests_resources_that_karpenter_cannot_provide() -> None:
    asked = {each for profile in PROFILES.values() for pod in (profile.head, profile.worker) for each in pod.resources}

    assert asked == {"vpc.amazonaws.com/efa"}
    assert PROFILES["efa"].env["FI_EFA_USE_HUGE_PAGE"] == "0"


def test_an_unknown_profile_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match="expected one of efa"):
        objects({"cluster": {"profiles": ["nowhere"]}})


def test_only_labels_and_annotations_of_kueue_reach_the_rayjob() -> None:
    metadata = {"labels": {"kueue.x-k8s.io/queue-name": "team", "other": "x"}}

    labels = objects(metadata=metadata)["RayJob"]["metadata"]["labels"]

    assert labels["kueue.x-k8s.io/queue-name"] == "team"
    assert "other" not in labels


def test_a_job_does_not_adopt_default_objects_of_a_namespace() -> None:
    rendered = objects(metadata={"name": "default"})

    head, _ = templates(rendered)
    names = {kind: each["metadata"]["name"] for kind, each in rendered.items()}
    assert "default" not in names.values()
    assert head["spec"]["serviceAccountName"] == names["ServiceAccount"]
    assert rendered["RoleBinding"]["subjects"][0]["name"] == names["ServiceAccount"]


def test_a_service_account_in_the_job_spec_is_used_and_none_is_created() -> None:
    rendered = objects({"cluster": {"service_account": "trainer"}})

    assert "ServiceAccount" not in rendered
    assert rendered["RoleBinding"]["subjects"][0]["name"] == "trainer"
    assert worker(rendered)["serviceAccountName"] == "trainer"


if __name__ == "__main__":
    for sample in SAMPLES:
        (GOLDEN / sample.name).write_text(rendered_sample(sample), encoding="utf-8")
