"""Names and labels of the Kubernetes objects of a job."""

JOB_LABEL = "f2llm.dev/job"
SERVICE_LABEL = "f2llm.dev/service"
ATTEMPT_LABEL = "f2llm.dev/attempt"
MANAGED_BY = {"app.kubernetes.io/managed-by": "f2llm-operator"}
KUEUE_PREFIX = "kueue.x-k8s.io/"
QUEUE_LABEL = f"{KUEUE_PREFIX}queue-name"
ELASTIC_GATE = f"{KUEUE_PREFIX}elastic-job"
"""The scheduling gate that Kueue adds to the pods of a RayCluster that may grow."""
WORKER_GROUP = "workers"
EVALUATION_GROUP = "evaluation"
GROUP_LABEL = "ray.io/group"
NODE_TYPE_LABEL = "ray.io/node-type"


def progress_name(job: str) -> str:
    """The only ConfigMap that the driver may write. Its Role and RoleBinding have the same name."""
    return f"{job}-progress"


def guard_name(job: str) -> str:
    """The job's ServiceAccount and NetworkPolicy. With the job's own name, a job `default` would adopt the namespace's
    default ServiceAccount, and deleting the job would delete the account. No object of a chart has this prefix.
    """
    return f"f2llm-job-{job}"


def attempt_name(job: str, attempt: int) -> str:
    """The RayJob of an attempt, and the ConfigMap with its job spec."""
    return f"{job}-{attempt}"


def attempt_id(uid: str, attempt: int) -> str:
    """Unique id of an attempt. Its name is not unique: a job can be deleted and created again with the same name."""
    return f"{uid}/{attempt}"


def job_labels(job: str) -> dict[str, str]:
    return {**MANAGED_BY, JOB_LABEL: job}


def worker_selector(job: str) -> str:
    """Label selector of the worker pods of a job."""
    return f"{JOB_LABEL}={job},{GROUP_LABEL}={WORKER_GROUP}"
