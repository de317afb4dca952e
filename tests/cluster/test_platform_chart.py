"""The platform chart on a real API server with the CRDs of Karpenter, Kueue and the Prometheus operator."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.manifests.operator_config import PROFILES
from tests.support.control_plane import ControlPlane, missing_programs, programs_folder, run_control_plane
from tests.support.custom_resources import install_our_type, wait_until_served
from tests.support.helm import PLATFORM_CHART, Program, program
from tests.support.kubectl import Kubectl, Refused
from tools.generate.dashboards.__main__ import DASHBOARDS

VALUES = ("aws", "gke", "aks", "on-prem", "trial")
SYSTEM = "f2llm-system"
TYPES = programs_folder().parent / "platform-crds"
GKE_MODELS = programs_folder().parent / "gke-models"
# One resource of the chart per file.
KNOWN = {
    "karpenter.sh_nodepools": "nodepools.karpenter.sh",
    "karpenter.k8s.aws_ec2nodeclasses": "ec2nodeclasses.karpenter.k8s.aws",
    "kueue.x-k8s.io_resourceflavors": "resourceflavors.kueue.x-k8s.io",
    "kueue.x-k8s.io_clusterqueues": "clusterqueues.kueue.x-k8s.io",
    "kueue.x-k8s.io_localqueues": "localqueues.kueue.x-k8s.io",
    "monitoring.coreos.com_servicemonitors": "servicemonitors.monitoring.coreos.com",
    "monitoring.coreos.com_podmonitors": "podmonitors.monitoring.coreos.com",
    "monitoring.coreos.com_prometheusrules": "prometheusrules.monitoring.coreos.com",
}
# No Go module contains these: AKSNodeClass was compared with its schema by hand, ComputeClass has its own test.
UNKNOWN = {"AKSNodeClass", "ComputeClass"}


@pytest.fixture(scope="module")
def helm() -> Program:
    return program("helm")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with foreign CRDs, and the namespaces of the objects of all profiles."""
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds a Kubernetes (once, about 20 min)")
    if not TYPES.is_dir():
        pytest.skip("the resources of others are not there; tests/cluster/build.sh platform-crds fetches them")
    with run_control_plane(tmp_path_factory.mktemp("platform")) as running:
        kubectl = Kubectl(running.kubeconfig)
        install_our_type(kubectl)
        for file, name in KNOWN.items():
            kubectl("apply", "--server-side", "-f", str(TYPES / f"{file}.yaml"))
            wait_until_served(kubectl, name)
        kubectl("create", "namespace", SYSTEM)
        yield running


@pytest.fixture
def kubectl(platform: ControlPlane) -> Kubectl:
    return Kubectl(platform.kubeconfig, SYSTEM)


def rendered(helm: Program, profile: str) -> list[dict[str, Any]]:
    values = PLATFORM_CHART / f"values-{profile}.yaml"
    made = helm("template", "platform", str(PLATFORM_CHART), f"--namespace={SYSTEM}", f"--values={values}")
    return [each for each in yaml.safe_load_all(made) if each]


@pytest.mark.parametrize("profile", VALUES)
def test_lint_finds_nothing_in_a_profile(helm: Program, profile: str) -> None:
    values = PLATFORM_CHART / f"values-{profile}.yaml"

    assert "0 chart(s) failed" in helm("lint", "--strict", f"--values={values}", str(PLATFORM_CHART))


def test_the_charts_own_tests_pass() -> None:
    assert "1 passed" in program("helm-unittest")("--strict", "--color=false", str(PLATFORM_CHART))


def test_the_page_shows_what_helm_prints_and_makes(helm: Program, project_root: Path) -> None:
    page = (project_root / "docs" / "cluster" / "platform.md").read_text()
    trial = f"--values={PLATFORM_CHART / 'values-trial.yaml'}"
    printed = helm("install", "f2llm-platform", str(PLATFORM_CHART), f"--namespace={SYSTEM}", trial, "--dry-run=client")
    made = sorted(f"{each['kind']} {each['metadata']['name']}" for each in rendered(helm, "aws"))

    assert printed[printed.index("NOTES:") :].strip() in page
    assert "\n".join(made) in page


@pytest.mark.parametrize("profile", VALUES)
def test_the_api_server_accepts_all_objects_of_a_profile(helm: Program, profile: str, kubectl: Kubectl) -> None:
    objects = rendered(helm, profile)
    for each in objects:
        if each["kind"] == "Namespace":  # a dry run does not create the namespaces of its objects
            kubectl.apply(each)
    judged = [each for each in objects if each["kind"] not in UNKNOWN]

    how = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--namespace=")
    told = kubectl("apply", *how, "-f", "-", stdin=yaml.safe_dump_all(judged))

    assert len(told.splitlines()) == len(judged) > 8


def test_the_api_server_refuses_what_is_misspelt(helm: Program, kubectl: Kubectl) -> None:
    (pool,) = [each for each in rendered(helm, "aws") if each["metadata"]["name"] == "f2llm-gpu-spot"]
    pool["spec"]["disruption"]["consolidateafter"] = "1m"

    with pytest.raises(Refused, match="consolidateafter"):
        kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pool))


_GCLOUD = """\
#!/usr/bin/env python3
import json, os, sys
options = dict(each.lstrip("-").split("=", 1) for each in sys.argv[1:] if "=" in each)
with open(options.pop("condition-from-file")) as file:
    options |= json.load(file)
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(options), file=calls)
"""


def test_googles_bindings_run_as_printed_and_let_a_team_list_below_its_name_and_what_is_shared(
    helm: Program, tmp_path: Path
) -> None:
    (config,) = [each for each in rendered(helm, "gke") if each["metadata"]["name"] == "f2llm-storage"]
    gcloud, calls = tmp_path / "gcloud", tmp_path / "calls"
    gcloud.write_text(_GCLOUD)
    gcloud.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}

    command = ["bash", "-euo", "pipefail", "-c", config["data"]["bindings.txt"]]
    subprocess.run(command, env=environment, cwd=tmp_path, timeout=60, check=True)

    def reaches(prefix: str) -> str:
        objects = f'resource.name.startsWith("projects/_/buckets/BUCKET/objects/{prefix}/")'
        lists = f'api.getAttribute("storage.googleapis.com/objectListPrefix", "").startsWith("{prefix}/")'
        return f"{objects} || {lists}"

    who = "serviceAccount:f2llm-team-search@PROJECT.iam.gserviceaccount.com"
    own = {"title": "team-search", "role": "roles/storage.objectUser", "expression": reaches("team-search")}
    shared = {"title": "team-search-shared", "role": "roles/storage.objectViewer", "expression": reaches("data")}
    told = [json.loads(line) for line in calls.read_text().splitlines()]
    assert told == [{"member": who, **own}, {"member": who, **shared}]


@pytest.mark.parametrize(("profile", "role"), [("aws", "head"), ("aws", "gpu"), ("aks", "head"), ("aks", "gpu")])
def test_pods_with_the_operators_profile_fit_the_nodes_and_no_others_do(helm: Program, profile: str, role: str) -> None:
    pods = PROFILES["platform"].head if role == "head" else PROFILES["platform"].worker
    tolerated = {each.key for each in pods.tolerations}
    pools = [each["spec"]["template"] for each in rendered(helm, profile) if each["kind"] == "NodePool"]
    fitting = [each for each in pools if each["metadata"]["labels"]["f2llm.dev/pool"] == role]

    assert len(fitting) == (1 if role == "head" else 2)
    for each in fitting:
        assert pods.node_selector == each["metadata"]["labels"]
        assert {taint["key"] for taint in each["spec"]["taints"]} <= tolerated
        assert each["spec"]["taints"]


def test_on_gke_the_operators_profile_names_the_classes_of_nodes(helm: Program) -> None:
    classes = {each["metadata"]["name"] for each in rendered(helm, "gke") if each["kind"] == "ComputeClass"}

    pods = PROFILES["platform-gke"]

    assert {*pods.head.node_selector.values(), *pods.worker.node_selector.values()} == classes


_CHECK = """\
import { ComputeClass } from "@kubernetes-models/gke/cloud.google.com/v1";
import { readFileSync } from "node:fs";
for (const each of JSON.parse(readFileSync(0))) new ComputeClass(each).validate();
"""


@pytest.mark.parametrize(("change", "complaint"), [({}, ""), ({"whenUnsatisfiable": "Wait"}, "whenUnsatisfiable")])
def test_gke_takes_its_classes_of_nodes(helm: Program, change: dict[str, str], complaint: str) -> None:
    if not GKE_MODELS.is_dir() or shutil.which("node") is None:
        pytest.skip("the schema of ComputeClass is not there; tests/cluster/build.sh gke-models fetches it with npm")
    classes = [each for each in rendered(helm, "gke") if each["kind"] == "ComputeClass"]
    for each in classes:
        each["spec"] |= change

    done = subprocess.run(
        ["node", "--input-type=module", "-e", _CHECK],
        input=json.dumps(classes), capture_output=True, text=True, cwd=GKE_MODELS, timeout=60, check=False,
    )  # fmt: skip

    assert len(classes) == 2
    assert (done.returncode == 0) == (not change), done.stderr
    assert complaint in done.stderr


def test_every_alert_fires_by_its_cause_and_clears(helm: Program, tmp_path: Path) -> None:
    teams = [{"name": "team-a", "monthlyBudget": 10}, {"name": "team-b", "monthlyBudget": 100}]
    values = {"alerts": {"enabled": True, "runbooks": "runbooks", "gpuHourPrice": 2}, "teams": teams}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    made = helm(
        "template", str(PLATFORM_CHART), f"--values={tmp_path}/values.yaml", "--show-only=templates/alerts.yaml"
    )
    rules = yaml.safe_load(made)["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(PLATFORM_CHART / "tests" / "promtool.yaml", tmp_path)

    told = program("promtool")("test", "rules", str(tmp_path / "promtool.yaml"))

    assert "SUCCESS" in told
    tested = {test["alertname"] for case in yaml.safe_load((tmp_path / "promtool.yaml").read_text())["tests"]
              for test in case["alert_rule_test"]}  # fmt: skip
    assert tested == {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}


def test_every_query_of_a_dashboard_is_one() -> None:
    promtool = program("promtool")
    queries = {query.expr for board in DASHBOARDS.values() for panel in board.panels for query in panel.queries}

    for query in sorted(queries):
        expr = query.replace("$peak", "121").replace("$namespace", "team").replace("$job", "job")
        assert promtool("--experimental", "promql", "format", expr)


@pytest.fixture
def installed(helm: Program, platform: ControlPlane, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Installs the trial profile with other teams, or upgrades to it. Uninstalls it after the test."""
    place = (f"--kubeconfig={platform.kubeconfig}", f"--namespace={SYSTEM}")
    profile = f"--values={PLATFORM_CHART / 'values-trial.yaml'}"

    def install(verb: str, *teams: dict[str, Any]) -> None:
        (tmp_path / "teams.yaml").write_text(yaml.safe_dump({"teams": list(teams)}))
        helm(verb, "trial", str(PLATFORM_CHART), *place, profile, f"--values={tmp_path}/teams.yaml")

    yield install
    helm("uninstall", "trial", *place, "--ignore-not-found")


def secret(kubectl: Kubectl, name: str, namespace: str) -> dict[str, str]:
    found: dict[str, str] = Kubectl(kubectl.kubeconfig, namespace).get("secret", name)["data"]
    return found


def test_an_upgrade_keeps_every_key_and_makes_one_for_a_new_team(
    installed: Callable[..., None], kubectl: Kubectl
) -> None:
    installed("install", {"name": "team-a"})
    before = secret(kubectl, "f2llm-store", "team-a"), secret(kubectl, "f2llm-store-root", SYSTEM)

    installed("upgrade", {"name": "team-a"}, {"name": "team-b"})

    assert (secret(kubectl, "f2llm-store", "team-a"), secret(kubectl, "f2llm-store-root", SYSTEM)) == before
    other = secret(kubectl, "f2llm-store", "team-b")["AWS_SECRET_ACCESS_KEY"]
    assert other not in (before[0]["AWS_SECRET_ACCESS_KEY"], "")


def test_uninstalling_leaves_data_and_nothing_else(
    helm: Program, platform: ControlPlane, installed: Callable[..., None], kubectl: Kubectl
) -> None:
    installed(
        "install", {"name": "team-c", "members": [{"kind": "Group", "name": "c"}], "resourceQuota": {"pods": "9"}}
    )
    everything = "namespaces,pvc,secrets,configmaps,deployments,jobs,services,networkpolicies,roles,rolebindings"
    selector = ("-l", "app.kubernetes.io/instance=trial", "-A", "-o", "name")
    before = kubectl("get", f"{everything},resourcequotas,serviceaccounts", *selector).split()

    helm("uninstall", "trial", f"--kubeconfig={platform.kubeconfig}", f"--namespace={SYSTEM}")

    left = kubectl("get", f"{everything},resourcequotas,serviceaccounts", *selector).split()
    assert len(before) > 12
    assert {name for name in left if not name.startswith("namespace/")} == {"persistentvolumeclaim/f2llm-store"}
    assert "namespace/team-c" in left


@pytest.mark.parametrize(
    ("verb", "what", "namespace", "may"),
    [
        ("create", "embeddingjobs.f2llm.dev", "team-a", True),
        ("get", "pods/log", "team-a", True),
        ("create", "pods/portforward", "team-a", True),
        ("get", "secrets", "team-a", True),
        ("create", "pods", "team-a", False),
        ("create", "rolebindings.rbac.authorization.k8s.io", "team-a", False),
        ("delete", "networkpolicies.networking.k8s.io", "team-a", False),
        ("get", "embeddingjobs.f2llm.dev", "team-b", False),
        ("get", "pods/log", "team-b", False),
        ("get", "secrets", "team-b", False),
        ("create", "pods/portforward", "team-b", False),
        ("get", "secrets", SYSTEM, False),
        ("list", "nodes", "", False),
    ],
)
def test_a_member_may_work_in_the_teams_namespace_and_nowhere_else(
    two_teams: Kubectl, verb: str, what: str, namespace: str, may: bool
) -> None:
    resource, _, part = what.partition("/")
    question = ("auth", "can-i", verb, resource, f"--subresource={part}", "--as=anna", "--as-group=a")

    try:
        answer = two_teams(*question, f"--namespace={namespace or 'default'}").strip()
    except Refused:  # kubectl's answer without permission
        answer = "no"

    assert answer == ("yes" if may else "no")


@pytest.fixture(scope="module")
def two_teams(helm: Program, platform: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Anna is a member of team A, and has no permissions for team B."""
    place = (f"--kubeconfig={platform.kubeconfig}", f"--namespace={SYSTEM}")
    values = tmp_path_factory.mktemp("teams") / "values.yaml"
    teams = [{"name": f"team-{name}", "members": [{"kind": "Group", "name": name}]} for name in ("a", "b")]
    values.write_text(yaml.safe_dump({"teams": teams}))
    helm("upgrade", "--install", "trial", str(PLATFORM_CHART), *place, f"--values={values}")
    yield Kubectl(platform.kubeconfig, SYSTEM)
    helm("uninstall", "trial", *place)
