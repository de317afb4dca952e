"""Two teams on one cluster whose network enforces policies: one team tries to reach the resources of the other."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.kube.status import JobPhase, JobStatus, status_of
from tests.support.control_plane import missing_programs, programs_folder
from tests.support.kubectl import Kubectl, Refused
from tests.support.real_cluster import IMAGE, KUBECONFIG, SYSTEM, RealCluster
from tests.support.real_jobs import MINUTES, job, say
from tests.support.real_platform import install_platform, team_store, volume
from tests.support.small_training import write_small_dataset
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1500)]
A, B = "team-a", "team-b"
NODE, BRIDGE_FILTER = "lab-0", Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
ANNA = ("--as=anna", "--as-group=a")  # who is in team A
GCS, DASHBOARD, METRICS = 6379, 8265, 8080
SCRAPES = "f2llm.dev/scrapes=true"
REFUSED = "000"
"""curl's status code without an answer."""


@contextmanager
def policies_enforced(folder: Path) -> Iterator[None]:
    """kube-router's firewall on the single node, as in a network plugin."""
    before = BRIDGE_FILTER.read_text()
    BRIDGE_FILTER.write_text("1")  # traffic between pods of one node passes the firewall as well
    program = programs_folder() / "kube-router"
    only = ("--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--run-loadbalancer=false")
    command = [program, f"--kubeconfig={KUBECONFIG}", f"--hostname-override={NODE}", *only]
    output = folder / "kube-router.log"
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
        assert process.poll() is None, f"kube-router has ended:\n{output.read_text()[-2000:]}"
    finally:
        process.terminate()
        process.wait(timeout=20)
        subprocess.run([program, "--cleanup-config"], check=False, capture_output=True, timeout=60)
        BRIDGE_FILTER.write_text(before)


@pytest.fixture(scope="module")
def teams(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """Both teams, a training job of B, and a pod of A with A's own key; returns the namespace of B."""
    if missing := missing_programs(("kube-router",)):
        pytest.skip(f"{', '.join(missing)} not built; tests/cluster/build.sh builds it")
    if missing := [name for name in ("iptables", "ipset") if not shutil.which(name)]:
        pytest.skip(f"kube-router needs {', '.join(missing)} (apt-get)")
    folder = tmp_path_factory.mktemp("teams")
    values = {"teams[0].name": A, "teams[1].name": B}
    members = {f"teams[{i}].members[0].{key}": value for i, name in enumerate("ab")
               for key, value in (("kind", "Group"), ("name", name))}  # fmt: skip
    with policies_enforced(folder), volume(folder), pytest.MonkeyPatch.context() as environment:
        install_platform(**values, **members)
        write_small_dataset(team_store(environment, "data", team=B), scale=4)
        job_spec = job(cluster, "secret-plan", workers=1, epochs=3000)
        spec = job_spec["spec"]
        spec["data"]["uri"], spec["storage"] = f"s3://{B}/data", {"uri": f"s3://{B}/runs"}
        spec["cluster"]["secrets"] = ["f2llm-store"]
        theirs = Kubectl(KUBECONFIG, B)
        theirs.apply(job_spec)
        Kubectl(KUBECONFIG, A).apply(visitor())
        wait_for(lambda: state(theirs).step >= 5, "team B's job trains with its policies", seconds=10 * MINUTES)
        Kubectl(KUBECONFIG, A)("wait", "--for=condition=Ready", "pod/visitor", "--timeout=60s")
        yield theirs
        theirs("delete", "ej", "secret-plan")
        Kubectl(KUBECONFIG, A)("delete", "pod", "visitor", "--grace-period=1")
    for team in (A, B):
        cluster.kubectl("delete", "namespace", team)


def state(theirs: Kubectl) -> JobStatus:
    found = status_of(theirs.get("ej", "secret-plan"))
    assert found.phase is not JobPhase.FAILED, found.message
    return found


def visitor() -> dict[str, object]:
    """A pod that a member of team A can create: restricted, with the team's own Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "visitor"},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "visitor",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "3600"],
                    "envFrom": [{"secretRef": {"name": "f2llm-store"}}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def answer(pod: str, address: str, *options: str, team: str = A) -> str:
    """The status of a URL's answer to a pod; 000 without an answer within 5 seconds."""
    ask = (
        "curl",
        "--silent",
        "--max-time",
        "5",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        *options,
        address,
    )
    return Kubectl(KUBECONFIG, team)("exec", pod, "--", "sh", "-c", '"$@"; true', "sh", *ask)[-3:]


def reaches_port(pod: str, address: str, port: int, *, team: str = A) -> bool:
    """Whether a pod gets a connection within 5 seconds."""
    script = f"import socket; socket.create_connection(('{address}', {port}), timeout=5)"
    try:
        Kubectl(KUBECONFIG, team)("exec", pod, "--", "python", "-c", script)
    except Refused as error:
        if "timed out" not in str(error) and "refused" not in str(error):
            raise
        return False
    return True


def head(theirs: Kubectl) -> tuple[str, str]:
    """Name and address of the pod with Ray's dashboard."""
    (found,) = theirs("get", "pods", "-l", "ray.io/node-type=head", "-o",
                      "jsonpath={.items[*].metadata.name} {.items[*].status.podIP}").splitlines()  # fmt: skip
    name, _, address = found.partition(" ")
    return name, address


def test_rays_dashboard_answers_only_its_own_team_and_only_with_the_token(teams: Kubectl) -> None:
    name, address = head(teams)
    page = f"http://{address}:{DASHBOARD}/api/v0/nodes"
    token = teams("exec", name, "--", "sh", "-c", "echo $RAY_AUTH_TOKEN").strip()
    with_it = ("--header", f"Authorization: Bearer {token}")

    own, without, stranger, stranger_with_it = (
        answer(name, page, *with_it, team=B),
        answer(name, page, team=B),
        answer("visitor", page),
        answer("visitor", page, *with_it),
    )

    say(f"own team {own}, without token {without}, another team {stranger}, with a stolen token {stranger_with_it}")
    assert own == "200"
    assert without in ("401", "403")
    assert (stranger, stranger_with_it) == (REFUSED, REFUSED)


@pytest.mark.parametrize("port", [GCS, DASHBOARD])
def test_only_the_own_team_can_reach_the_ports_that_give_work_to_a_job(teams: Kubectl, port: int) -> None:
    name, address = head(teams)

    assert reaches_port(name, address, port, team=B)
    assert not reaches_port("visitor", address, port)


def test_only_scrapers_read_the_metrics_of_a_job(teams: Kubectl) -> None:
    """A namespace becomes one of scrapers by a label, which members of a team cannot set."""
    name, address = head(teams)
    page = f"http://{address}:{METRICS}/metrics"
    admin = Kubectl(KUBECONFIG)

    own, stranger = answer(name, page, team=B), answer("visitor", page)
    admin("label", "namespace", A, SCRAPES)
    try:
        wait_for(lambda: answer("visitor", page) == "200", "a scraper reads the metrics")
    finally:
        admin("label", "namespace", A, SCRAPES.partition("=")[0] + "-")

    say(f"own team {own}, another team {stranger}, with the label 200")
    assert (own, stranger) == ("200", REFUSED)


def test_only_scrapers_reach_the_operator(teams: Kubectl) -> None:
    selector = ("-l", "app.kubernetes.io/name=f2llm-operator")
    address = Kubectl(KUBECONFIG, SYSTEM)("get", "pods", *selector, "-o", "jsonpath={.items[0].status.podIP}")

    assert answer("visitor", f"http://{address}:{METRICS}/metrics") == REFUSED
    # It still reaches the API server: the status of the job moves on.
    before = state(teams).step
    wait_for(lambda: state(teams).step > before, "the operator writes the status", seconds=3 * MINUTES)


def test_the_store_is_open_to_both_and_each_bucket_to_one(teams: Kubectl) -> None:
    visitor_says = Kubectl(KUBECONFIG, A)
    script = "from data_io.storage.store import open_store; print(len(open_store('s3://{}').list()))"
    own = visitor_says("exec", "visitor", "--", "python", "-c", script.format(A))

    with pytest.raises(Refused, match=r"StoreAccessError.*team-b"):
        visitor_says("exec", "visitor", "--", "python", "-c", script.format(B))

    assert own.strip() == "0"


@pytest.mark.parametrize(
    "attempt",
    [
        ("get", "ej"),
        ("get", "secrets"),
        ("get", "pods"),
        ("logs", "-l", "ray.io/node-type=head"),
        ("scale", "ej/secret-plan", "--replicas=0"),
        ("delete", "ej", "secret-plan"),
    ],
    ids=" ".join,
)
def test_a_member_of_one_team_is_refused_in_the_others_namespace(teams: Kubectl, attempt: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="forbidden"):
        teams(*attempt, *ANNA)


def test_a_member_can_read_the_objects_of_the_own_team(teams: Kubectl) -> None:
    assert "visitor" in Kubectl(KUBECONFIG, A)("get", "pods", *ANNA)
