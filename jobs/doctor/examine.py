"""Examine a Kubernetes cluster: read what it has, then check it and a document against it."""

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
    """What a cluster has for training, and for the document at `path`. One that does not answer is a finding too.

    Raises ConfigError if no cluster is named anywhere, or if the document is not valid.
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
