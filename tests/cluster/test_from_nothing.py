"""Two charts prepare an empty Kubernetes cluster for training, and models and jobs stay after an uninstall."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import sample
from tests.support.command import f2llm
from tests.support.kubectl import Kubectl
from tests.support.real_cluster import KUBECONFIG, SYSTEM, RealCluster, install_operator
from tests.support.real_jobs import say
from tests.support.real_platform import CLAIM, TEAM, install_platform, team_store, uninstall, volume
from tests.support.small_training import write_job_spec, write_small_dataset

pytestmark = pytest.mark.timeout(1200)
PASSING = {"events", "events.events.k8s.io", "endpoints", "endpointslices.discovery.k8s.io", "pods", "replicasets.apps"}


@pytest.fixture
def bare(cluster: RealCluster, tmp_path: Path) -> Iterator[set[str]]:
    """The cluster without the charts, with a volume; yields its objects. Afterwards the operator is installed again."""
    uninstall("f2llm")
    Kubectl(KUBECONFIG)("delete", "namespace", SYSTEM)
    with volume(tmp_path):
        yield objects()
    cluster.kubectl("delete", "namespace", TEAM)
    install_operator()


def objects() -> set[str]:
    """Kind and name of every object that a chart could leave in the cluster, except objects in the team's namespace."""
    kubectl = Kubectl(KUBECONFIG)
    kinds = set(kubectl("api-resources", "--verbs=delete", "-o", "name").split()) - PASSING
    columns = "custom-columns=N:.metadata.namespace,K:.kind,M:.metadata.name"
    listed = kubectl("get", ",".join(sorted(kinds)), "-A", "--ignore-not-found", "--no-headers", "-o", columns)
    found = (line.split() for line in listed.splitlines())
    return {f"{kind}/{name}".lower() for namespace, kind, name in found if namespace != TEAM}


def test_both_charts_train_the_demos_job_and_leave_data_and_nothing_else(
    bare: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Kubectl(KUBECONFIG, TEAM)
    job_spec = sample("demo-cpu")
    spec = job_spec["spec"]
    spec["workers"]["cpus"], spec["cluster"]["head"] = 0.5, {"cpus": 0.1}
    path = write_job_spec(tmp_path / "job.yaml", job_spec)
    install_operator()
    install_platform()
    write_small_dataset(team_store(monkeypatch, "demo-data"), scale=4)

    where = ("--namespace", TEAM, "--kubeconfig", KUBECONFIG)
    shown = f2llm("submit", path, "--watch", *where, timeout=600)
    say(shown.stdout, team("get", "ej"))
    screen = f2llm("describe", "demo-cpu", *where).stdout
    uninstall("platform", "f2llm")
    left = objects() - bare
    of_charts = team("get", "secrets,networkpolicies,resourcequotas,roles", "-l", "app.kubernetes.io/managed-by=Helm")
    install_platform()
    model = team_store(monkeypatch, "runs/demo-cpu/model").get("model.safetensors")

    assert shown.returncode == 0, f"{shown.stderr}\n{screen}"
    left -= {"serviceaccount/default", "configmap/kube-root-ca.crt"}  # every namespace has these
    assert left == {f"namespace/{TEAM}", f"namespace/{SYSTEM}", CLAIM}
    assert of_charts == ""
    assert "embeddingjobs.f2llm.dev" in team("get", "crd", "-o", "name")
    assert team("get", "ej", "-o", "name").split() == ["embeddingjob.f2llm.dev/demo-cpu"]
    assert model
