"""TLS between the processes of Ray in real pods, under KubeRay and the operator."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.kube.status import JobPhase
from tests.support.authority import write_authority
from tests.support.kubectl import Refused
from tests.support.real_cluster import RealCluster, install_operator
from tests.support.real_jobs import delete, job, reaches, say
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900)]


@pytest.fixture
def with_tls(cluster: RealCluster, tmp_path: Path) -> Iterator[RealCluster]:
    ca = write_authority(tmp_path / "ca")
    cluster.kubectl("create", "secret", "tls", "ray-ca", f"--cert={ca / 'tls.crt'}", f"--key={ca / 'tls.key'}")
    install_operator(**{"jobs.tls.caSecret": "ray-ca"})
    yield cluster
    install_operator()
    cluster.kubectl("delete", "secret", "ray-ca")


def test_a_job_trains_with_certificates_and_its_head_refuses_a_process_without_one(with_tls: RealCluster) -> None:
    kubectl, name = with_tls.kubectl, "sealed"
    submitted = time.monotonic()
    kubectl.apply(job(with_tls, name, epochs=500))
    reaches(with_tls, name, JobPhase.TRAINING, step=5)
    say(f"5 steps {time.monotonic() - submitted:.0f} s after it was submitted")

    worker = kubectl("get", "pods", "-l", f"f2llm.dev/job={name},ray.io/node-type=worker", "-o", "name").splitlines()[0]

    def in_worker(command: str) -> str:
        return kubectl("exec", worker, "-c", "ray-worker", "--", "bash", "-c", command)

    say(kubectl("logs", worker, "-c", "certificate"))
    assert sorted(in_worker("ls /etc/f2llm-tls").split()) == ["ca.crt", "tls.crt", "tls.key"]
    with pytest.raises(Refused):
        in_worker("ls /etc/f2llm-tls-ca")
    in_worker("ray health-check --address $RAY_ADDRESS")
    with pytest.raises(Refused):
        in_worker("RAY_USE_TLS=0 timeout 30 ray health-check --address $RAY_ADDRESS")
    delete(with_tls, name)


def test_a_job_that_names_the_secret_of_the_authority_is_refused(with_tls: RealCluster) -> None:
    kubectl, spec = with_tls.kubectl, job(with_tls, "thief")
    spec["spec"]["cluster"]["secrets"].append("ray-ca")
    kubectl.apply(spec)

    wait_for(lambda: "the Secret ray-ca, which is for TLS of Ray" in kubectl("describe", "ej", "thief"), "the refusal")

    say(kubectl("get", "ej", "thief"))
    assert kubectl("get", "pods", "-o", "name") == ""
    delete(with_tls, "thief")
