"""The chart with the real Helm, and its objects on a real API server."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.kube.api import KubeApi, connect
from jobs.kube.status import JobPhase, status_of
from jobs.manifests.operator_config import parse_operator_config
from ray_app.run_directory.status import Phase
from tests.support.control_plane import ControlPlane, missing_programs, run_control_plane
from tests.support.custom_resources import install_kuberay_types, wait_until_served
from tests.support.helm import OPERATOR_CHART, Program, program
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubectl import Kubectl
from tests.support.operator import KubeRay, run_operator
from tests.support.waiting import wait_for

ROOT = Path(__file__).parents[2]
VALUES = {
    "defaults": {},
    "one namespace": {"namespaces": ["default"], "userRoles": {"create": False}},
    "scraped": {"metrics": {"port": 9000}, "replicas": 1, "imagePullSecrets": [{"name": "registry"}]},
    "placed": {
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "serviceAccount": {"create": False, "name": "default"},
    },
    "profiles": {
        "jobs": {"profiles": {"pool": {"env": {"A": "b"}, "worker": {"node_selector": {"pool": "gpu"}}}}},
    },
}


@pytest.fixture(scope="module")
def helm() -> Program:
    return program("helm")


@pytest.fixture(params=VALUES)
def values(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(VALUES[request.param]))
    return f"--values={path}"


def test_lint_finds_nothing(helm: Program, values: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", values, str(OPERATOR_CHART))


def test_the_charts_own_tests_pass() -> None:
    assert "1 passed" in program("helm-unittest")("--strict", "--color=false", str(OPERATOR_CHART))


def test_the_api_server_accepts_all_objects_of_the_chart(helm: Program, values: str, kubectl: Kubectl) -> None:
    made = helm("template", "f2llm", str(OPERATOR_CHART), "--namespace=default", values)

    told = kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-", stdin=made
    )

    kinds = [each["kind"] for each in yaml.safe_load_all(made) if each]
    assert len(told.splitlines()) == len(kinds)
    assert {"Deployment", "ConfigMap", "Service", "CustomResourceDefinition"} <= set(kinds)


SETTINGS = "its settings"


def comparable(manifest: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Objects by kind and name, without Helm's labels and without the name of the settings, which differs between the
    two ways.
    """
    found = {}
    for each in yaml.safe_load_all(manifest):
        kind, metadata = each["kind"], each["metadata"]
        pod = each["spec"].get("template", {}) if kind == "Deployment" else {}
        _remove_helms_labels(each)
        if kind == "ConfigMap":
            metadata["name"] = SETTINGS
            metadata.pop("labels", None)
            (text,) = each["data"].values()
            each["data"] = parse_operator_config(text, SETTINGS)
        if pod:
            # A change of the settings restarts the pods: through this annotation, or through the name that kustomize
            # generates.
            pod["metadata"].pop("annotations", None)
            pod["spec"] = {key: value for key, value in pod["spec"].items() if value != ""}
            pod["spec"]["volumes"][0]["configMap"]["name"] = SETTINGS
            settings, *others = pod["spec"]["containers"][0]["args"]
            pod["spec"]["containers"][0]["args"] = [settings.rpartition("/")[0], *others]
        found[kind, metadata["name"]] = each
    return found


def _remove_helms_labels(value: Any) -> None:
    """From `value` and everything in it, so also from selectors."""
    for name in ("instance", "version", "managed-by"):
        if isinstance(value, dict):
            value.pop(f"app.kubernetes.io/{name}", None)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _remove_helms_labels(each)


def test_the_kustomize_base_is_the_chart_with_its_defaults(helm: Program) -> None:
    place = "--namespace=f2llm-system"
    built = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "k8s" / "base")], capture_output=True, text=True, timeout=60, check=True
    )

    chart = comparable(helm("template", "f2llm", str(OPERATOR_CHART), place))
    base = comparable(built.stdout)

    del chart["Lease", "f2llm-operator"]  # in the base it comes with the namespace
    del base["Namespace", "f2llm-system"]
    for made in (chart, base):  # jobs.kube.crd writes both; kustomize writes 1.0e-08 differently
        del made["CustomResourceDefinition", "embeddingjobs.f2llm.dev"]
    assert base == chart


def test_an_unknown_value_is_refused_by_name(helm: Program) -> None:
    with pytest.raises(AssertionError, match="replica"):
        helm("template", str(OPERATOR_CHART), "--set=replica=3")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with KubeRay's CRDs, without ours."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not built")
    with run_control_plane(tmp_path_factory.mktemp("bare")) as running:
        install_kuberay_types(Kubectl(running.kubeconfig))
        yield running


@pytest.fixture
def bare_api(bare: ControlPlane) -> Iterator[KubeApi]:
    with closing(connect(kubeconfig=str(bare.kubeconfig))) as connected:
        yield connected


def previous_chart(folder: Path) -> Path:
    """The chart of the previous commit."""
    archive = subprocess.run(
        ["git", "archive", "HEAD~1", "helm/f2llm-operator"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip("this checkout has no earlier commit")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "helm" / "f2llm-operator"


def test_a_running_job_survives_an_upgrade_and_an_uninstall_of_the_chart(
    helm: Program, bare: ControlPlane, bare_api: KubeApi, tmp_path: Path
) -> None:
    kubectl = Kubectl(bare.kubeconfig)
    place = (f"--kubeconfig={bare.kubeconfig}", "--namespace=default")
    helm("install", "f2llm", str(previous_chart(tmp_path)), *place)
    wait_until_served(kubectl, "embeddingjobs.f2llm.dev")

    def job() -> dict[str, Any]:
        return bare_api.get("EmbeddingJob", "job") or {}

    with run_operator(bare.kubeconfig, tmp_path / "before.log"):
        bare_api.create(job_spec(ON_A_CLUSTER))
        kuberay = KubeRay(bare_api, "job", 1)
        kuberay.starts()
        kuberay.says(Phase.TRAINING, step=5, total_steps=20)
        wait_for(lambda: status_of(job()).phase is JobPhase.TRAINING, "training")
    bare_api.delete("Lease", "f2llm-operator")
    before = (job()["metadata"]["generation"], job()["spec"], kuberay.ray_job(), kuberay.cluster())

    helm("upgrade", "f2llm", str(OPERATOR_CHART), *place)
    with run_operator(bare.kubeconfig, tmp_path / "after.log"):
        kuberay.says(Phase.TRAINING, step=9, total_steps=20)
        wait_for(lambda: status_of(job()).step == 9, "the new operator's status")
        after = (job()["metadata"]["generation"], job()["spec"], kuberay.ray_job(), kuberay.cluster())
    helm("uninstall", "f2llm", *place)

    assert after == before
    assert status_of(job()).attempt == 1
    assert kubectl("get", "deployments,clusterroles", "-l", "app.kubernetes.io/name=f2llm-operator", "-o", "name") == ""
    assert kuberay.ray_job() == before[2]
