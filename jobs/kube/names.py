"""Names and labels of what a job has on Kubernetes, the same wherever they are made or looked for."""

JOB_LABEL = "f2llm.dev/job"
SERVICE_LABEL = "f2llm.dev/service"
ATTEMPT_LABEL = "f2llm.dev/attempt"
MANAGED_BY = {"app.kubernetes.io/managed-by": "f2llm-operator"}
KUEUE_PREFIX = "kueue.x-k8s.io/"
QUEUE_LABEL = f"{KUEUE_PREFIX}queue-name"
WORKER_GROUP = "workers"
EVALUATION_GROUP = "evaluation"
GROUP_LABEL = "ray.io/group"
NODE_TYPE_LABEL = "ray.io/node-type"


def progress_name(job: str) -> str:
    """The one ConfigMap that the driver may write; the Role and RoleBinding for it have the same name."""
    return f"{job}-progress"


def guard_name(job: str) -> str:
    """The job's ServiceAccount and NetworkPolicy: not the job's own name, or a job named `default` would take over the
    namespace's account, and take it along when it goes.
    """
    return f"f2llm-{job}"


def attempt_name(job: str, attempt: int) -> str:
    """The RayJob of an attempt, and the ConfigMap with its document."""
    return f"{job}-{attempt}"


def attempt_id(uid: str, attempt: int) -> str:
    """An attempt among all that ever had its name: a job may be deleted and made again under its name."""
    return f"{uid}/{attempt}"


def job_labels(job: str) -> dict[str, str]:
    return {**MANAGED_BY, JOB_LABEL: job}


def worker_selector(job: str) -> str:
    """Label selector of the pods that train a job."""
    return f"{JOB_LABEL}={job},{GROUP_LABEL}={WORKER_GROUP}"
