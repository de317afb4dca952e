"""The operator is killed at each of its writes; the next operator brings the job to the same end."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from jobs.kube.api import KubeApi
from jobs.kube.status import JobPhase, JobStatus, status_of
from jobs.manifests.operator_config import OperatorConfig
from ray_app.run_directory.status import Phase
from tests.support.job_specs import ON_A_CLUSTER, job_spec
from tests.support.kubernetes_objects import failure
from tests.support.mortal import Died, MortalApi, look_once
from tests.support.operator import KubeRay
from tests.support.waiting import wait_for

FACTS = OperatorConfig(retry_seconds=1)


class Life:
    """A job that trains, is scaled, fails, is retried, is suspended, resumes and succeeds, while its operator dies
    once. `rayjobs` are all RayJobs that existed, in order.
    """

    def __init__(self, api: KubeApi, name: str, dies_at: int) -> None:
        self.api, self.name = api, name
        self.mortal = MortalApi(api.client, api.namespace, dies_at=dies_at)
        self.now = datetime.now(UTC)
        self.rayjobs: list[str] = []
        self.died = False

    def run(self) -> JobStatus:
        self.api.create(job_spec(ON_A_CLUSTER, metadata={"name": self.name}))
        first = self.attempt(1)
        self.change({"workers": {"replicas": 1}}, until=lambda: first.replicas() == 1)
        first.fill_up()
        first.says(Phase.FAILED, step=7, total_steps=20, last_checkpoint_step=5, failure=failure(retryable=True))
        self.over(first)
        second = self.attempt(2)
        self.change({"suspend": True}, until=lambda: second.stop_request().endswith("/2"))
        second.says(Phase.STOPPED, step=9, total_steps=20, last_checkpoint_step=9)
        self.over(second)
        self.until(lambda: self.status.phase is JobPhase.SUSPENDED)
        self.change({"suspend": False}, until=lambda: self.status.attempt == 3)
        third = self.attempt(3)
        third.says(Phase.SUCCEEDED, step=20, total_steps=20, last_checkpoint_step=20)
        third.ends(succeeded=True)
        self.until(lambda: self.status.phase.is_end)
        return self.status

    @property
    def status(self) -> JobStatus:
        return status_of(self.api.get("EmbeddingJob", self.name) or {})

    def attempt(self, number: int) -> KubeRay:
        self.until(lambda: self.api.get("RayJob", f"{self.name}-{number}") is not None)
        kuberay = KubeRay(self.api, self.name, number)
        kuberay.starts()
        kuberay.says(Phase.TRAINING, step=5, total_steps=20, workers=2)
        self.until(lambda: self.status.phase is JobPhase.TRAINING)
        return kuberay

    def over(self, kuberay: KubeRay) -> None:
        """The driver has ended; then the RayJob and its pods are deleted."""
        name = kuberay.ray_job()["metadata"]["name"]
        kuberay.status(jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed")
        self.until(lambda: self.api.get("RayJob", name) is None)
        kuberay.pods_go()

    def change(self, spec: dict[str, object], *, until: Callable[[], bool]) -> None:
        self.api.patch("EmbeddingJob", self.name, {"spec": spec})
        self.until(until)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Reconcile until a condition holds. If the operator dies, another one takes over."""

        def look() -> bool:
            self.now += timedelta(seconds=2)
            try:
                look_once(self.mortal, self.name, FACTS, now=self.now)
            except Died:
                self.died = True
            known = {each["metadata"]["uid"] for each in self.api.list("RayJob")["items"] if self.is_ours(each)}
            self.rayjobs += sorted(known - set(self.rayjobs))
            return is_so()

        wait_for(look, f"{self.name}: {self.mortal.writes[-1:]}", seconds=60)

    def is_ours(self, ray_job: dict[str, dict[str, str]]) -> bool:
        return ray_job["metadata"]["name"].startswith(f"{self.name}-")


def outcome(status: JobStatus) -> dict[str, object]:
    """A status without its times and without the identity of its job."""
    values = status.to_dict()
    own = ("startedTime", "conditions", "selector", "runUri", "rayJobUid", "rayCluster")
    failure = {key: value for key, value in values["lastFailure"].items() if key != "time"}
    return {**{key: value for key, value in values.items() if key not in own}, "lastFailure": failure}


def judgments(status: JobStatus) -> list[tuple[str, str, str, str]]:
    return [(each.type.value, each.status, each.reason, each.message) for each in status.conditions]


@pytest.mark.timeout(900)
def test_after_a_crash_at_any_write_the_next_operator_brings_the_job_to_the_same_end(api: KubeApi) -> None:
    undisturbed = Life(api, "undisturbed", dies_at=0)
    end = undisturbed.run()
    assert (end.phase, end.attempt, end.step) == (JobPhase.SUCCEEDED, 3, 20)
    assert len(undisturbed.rayjobs) == 3

    for write in range(1, len(undisturbed.mortal.writes) + 1):
        life = Life(api, f"dies-{write}", dies_at=write)
        ended = life.run()

        where = life.mortal.writes[write - 1]
        assert life.died, where
        assert len(life.rayjobs) == 3, where
        assert outcome(ended) == outcome(end), where
        assert judgments(ended) == judgments(end), where
        api.delete("EmbeddingJob", life.name)
