"""Check a Kubernetes cluster, and whether it can run a job spec."""

from jobs.doctor.check import Check
from jobs.doctor.cluster import judge_cluster
from jobs.doctor.cluster_inventory import read_cluster
from jobs.doctor.job_spec import check_job_spec_on
from jobs.errors import KubernetesError
from jobs.extras import needs
from jobs.kube.crd import schema
from jobs.spec.job import load_job_spec


def examine_cluster(
    kubeconfig: str | None, context: str | None, namespace: str | None, path: str | None
) -> list[Check]:
    """The checks of a cluster, and of the job spec at `path` on it. A cluster that does not answer is a finding too.

    Raises ConfigError if no cluster is configured, or if the job spec is invalid.
    """
    with needs("cluster"):
        from jobs.kube.api import connect
    job = None if path is None else load_job_spec(path)
    api = connect(kubeconfig, context, namespace or (None if job is None else job.metadata.namespace))
    try:
        inventory = read_cluster(api, job)
    except KubernetesError as error:
        return [Check("API server", "missing", error.message, error.remedy)]
    checks = judge_cluster(inventory, schema()["properties"]["spec"])
    return checks if job is None else [*checks, *check_job_spec_on(job, inventory)]
