"""Whether the driver of an attempt still reports. Pure.

KubeRay waits forever for a head that does not answer, for instance on a node that was cut off. A driver in a pod
reports at least once a minute (jobs/kube/driver_reporter.py), so that a missing report means that it is lost.
"""

from datetime import datetime, timedelta

from jobs.controller.status import time_of, time_text
from jobs.kube.observed import Observed
from jobs.kube.status import JobStatus
from jobs.manifests.operator_config import OperatorConfig

HEARTBEAT_GRACE = timedelta(minutes=1)
"""Between a missed heartbeat and the end of the attempt. After an outage of the API server, the driver reports again
within this time: it tries every ten seconds.
"""


def check_heartbeat(
    status: JobStatus, observed: Observed, config: OperatorConfig, *, now: datetime
) -> tuple[JobStatus, float | None]:
    """`status` with `heartbeat_missed_since`, and the seconds until the next consequence of a missing heartbeat.

    0 means that the driver is given up, None that it has not reported yet, or has no pod to report from.
    """
    if observed.driver_report is None or observed.waits_for_quota:
        return status.model_copy(update={"heartbeat_missed_since": None}), None
    left = observed.driver_report.reported_at + timedelta(seconds=config.driver_heartbeat_timeout_seconds) - now
    if left > timedelta(0):
        return status.model_copy(update={"heartbeat_missed_since": None}), left.total_seconds()
    status = status.model_copy(update={"heartbeat_missed_since": status.heartbeat_missed_since or time_text(now)})
    left = time_of(status.heartbeat_missed_since or "") + HEARTBEAT_GRACE - now
    return status, max(0.0, left.total_seconds())
