"""Two replicas of the operator with a real API server: one is the leader, and the other takes over."""

import os
import signal
from pathlib import Path

import pytest

from jobs.kube.api import KubeApi
from jobs.kube.status import JobPhase, status_of
from ray_app.run_directory.status import Phase
from tests.support.control_plane import ControlPlane
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.operator import KubeRay, leads, run_operator
from tests.support.waiting import wait_for


def holder(api: KubeApi) -> str:
    lease = api.get("Lease", "f2llm-operator") or {"spec": {}}
    return str(lease["spec"].get("holderIdentity", ""))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_after_the_leader_fails_the_other_replica_continues_the_same_attempt(
    api: KubeApi, kuberay_types: ControlPlane, tmp_path: Path, how: signal.Signals
) -> None:
    name = f"two-{how.name.lower()}"
    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    with run_operator(kuberay_types.kubeconfig, first_log) as first:
        wait_for(lambda: leads(first_log), "the first leads")
        with run_operator(kuberay_types.kubeconfig, second_log) as second:
            api.create(job_spec(ON_A_CLUSTER, metadata={"name": name}))
            kuberay = KubeRay(api, name, 1)
            kuberay.starts()
            before = kuberay.ray_job()["metadata"]["uid"]
            assert not leads(second_log)
            first_holder = holder(api)

            first.send_signal(how)
            first.wait(timeout=60)
            api.patch("EmbeddingJob", name, {"spec": {"workers": {"replicas": 3}}})
            kuberay.says(Phase.TRAINING, step=9, total_steps=20)
            wait_for(lambda: kuberay.replicas() == 3, "the second scales", seconds=120)
            wait_for(lambda: status_of(api.get("EmbeddingJob", name) or {}).step == 9, "the second's status")

            assert second.poll() is None
            assert holder(api) not in ("", first_holder)
    status = status_of(api.get("EmbeddingJob", name) or {})
    uids = [each["metadata"]["uid"] for each in api.list("RayJob", selector=f"f2llm.dev/job={name}")["items"]]
    api.delete("Lease", "f2llm-operator")

    assert uids == [before]
    assert (status.attempt, status.phase) == (1, JobPhase.TRAINING)


def test_an_operator_that_cannot_renew_its_lease_ends_before_another_can_act(
    api: KubeApi, kuberay_types: ControlPlane, tmp_path: Path
) -> None:
    """A process that was stopped for longer than its Lease must not act when it resumes."""
    first_log, second_log = tmp_path / "first.log", tmp_path / "second.log"
    with run_operator(kuberay_types.kubeconfig, first_log) as first:
        wait_for(lambda: leads(first_log), "the first leads")
        with run_operator(kuberay_types.kubeconfig, second_log):
            os.kill(first.pid, signal.SIGSTOP)
            wait_for(lambda: leads(second_log), "the second leads", seconds=120)
            os.kill(first.pid, signal.SIGCONT)

            assert wait_for(lambda: first.poll(), "the first ends", seconds=60) == 1
    api.delete("Lease", "f2llm-operator")
