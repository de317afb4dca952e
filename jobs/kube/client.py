"""Jobs on a cluster, from Python: the same commands as on the command line.

from jobs.kube.api import connect
from jobs.kube.client import JobsClient
from jobs.kube.status import status_of
from jobs.spec.job import load_job_spec

jobs = JobsClient(connect())
jobs.submit(load_job_spec("job.yaml"))
for job in jobs.watch("my-run"):
    print(status_of(job).progress)
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jobs.errors import ConfigError, NotFoundInKubernetes, StaleObject
from jobs.kube.names import JOB_LABEL
from jobs.kube.observed import Pod, pod_of
from jobs.kube.status import status_of
from jobs.spec.job import EmbeddingJob
from jobs.spec.validation import close_names

if TYPE_CHECKING:
    from jobs.kube.api import KubeApi

KIND = "EmbeddingJob"
Resource = dict[str, Any]


class JobsClient:
    """The jobs of one namespace."""

    def __init__(self, api: "KubeApi") -> None:
        self._api = api

    @property
    def namespace(self) -> str:
        return self._api.namespace

    def submit(self, job: EmbeddingJob, *, dry_run: bool = False) -> Resource:
        """Create a job, or change the existing job of that name. The cluster receives all values of its preset.

        Raises RefusedByKubernetes with the message of the API server if it denies the request.
        """
        try:
            return self._api.apply(self._manifest(job), dry_run=dry_run)
        except NotFoundInKubernetes as error:
            raise ConfigError(
                f"the cluster does not serve {KIND}s: {error.message}",
                remedy="install the operator; `f2llm doctor --cluster` prints how",
            ) from error

    def list_jobs(self, *, everywhere: bool = False) -> list[Resource]:
        """The jobs of the namespace, or of all namespaces."""
        found: list[Resource] = self._api.list(KIND, everywhere=everywhere)["items"]
        return found

    def get(self, name: str) -> Resource:
        """One job. Raises NotFoundInKubernetes, which suggests similar names."""
        found = self._api.get(KIND, name)
        if found is None:
            known = [job["metadata"]["name"] for job in self.list_jobs()]
            there = "`f2llm list` lists the jobs of this namespace" if known else "this namespace has no jobs"
            close = close_names(name, known, otherwise=f"{there}; `f2llm list -A` lists those of all namespaces")
            raise NotFoundInKubernetes(f"no job {name} in namespace {self.namespace}", remedy=close)
        return found

    def watch(self, name: str) -> Iterator[Resource]:
        """The current job, then the job after each change, until it is deleted or has ended."""
        while True:
            job = self.get(name)
            yield job
            if status_of(job).phase.is_end:
                return
            try:
                for event in self._api.watch(KIND, version=job["metadata"]["resourceVersion"]):
                    if event["object"].get("metadata", {}).get("name") != name:
                        continue
                    if event["type"] == "DELETED":
                        return
                    yield event["object"]
                    if status_of(event["object"]).phase.is_end:
                        return
            except StaleObject:
                continue  # the resourceVersion is too old for a watch

    def scale(self, name: str, workers: int) -> Resource:
        """Change the number of workers of a job."""
        return self._change(name, {"workers": {"replicas": workers}})

    def suspend(self, name: str) -> Resource:
        """Stop a job after a checkpoint and delete its pods."""
        return self._change(name, {"suspend": True})

    def resume(self, name: str) -> Resource:
        """Resume a suspended job."""
        return self._change(name, {"suspend": False})

    def delete(self, name: str) -> None:
        """Delete a job and its pods. The run directory stays, so that the same job spec can resume it."""
        self.get(name)
        self._api.delete(KIND, name)

    def pods(self, name: str) -> list[Pod]:
        """The pods of the job, beginning with the head."""
        items = self._api.list("Pod", selector=f"{JOB_LABEL}={name}")["items"]
        return sorted(map(pod_of, items), key=lambda pod: (not pod.is_head, pod.name))

    def pod_log(
        self, name: str, *, worker: int | None = None, follow: bool = False, lines: int | None
    ) -> Iterator[str] | None:
        """The log of the driver's pod, or of the worker pod with this number; None if the pod does not exist."""
        self.get(name)
        pods = [pod for pod in self.pods(name) if pod.is_head == (worker is None) and not pod.evaluates]
        number = worker or 0
        return self._api.logs(pods[number].name, follow=follow, lines=lines) if number < len(pods) else None

    def events(self, name: str) -> list[Resource]:
        """The Events of a job, oldest first."""
        about = self._api.list("Event", field_selector=f"regarding.kind={KIND},regarding.name={name}")["items"]
        return sorted(about, key=lambda each: each.get("eventTime") or each["metadata"]["creationTimestamp"])

    def _change(self, name: str, spec: dict[str, Any]) -> Resource:
        self.get(name)
        return self._api.patch(KIND, name, {"spec": spec})

    def _manifest(self, job: EmbeddingJob) -> Resource:
        value = job.to_dict()
        metadata = {"namespace": self.namespace, **value["metadata"]}
        # All values are written out, so nulls and the name of the preset carry no information.
        manifest: Resource = _without_nulls({**value, "metadata": metadata, "spec": {**value["spec"], "preset": None}})
        return manifest


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
