"""Whether the driver of an attempt still reports. Pure.

KubeRay waits without a limit for a head that does not answer, for instance on a node without network. A driver in a
pod reports at least once per minute (jobs/kube/driver_reporter.py), so missing reports mean that contact is lost.
"""

from datetime import datetime, timedelta

from jobs.controller.status import time_of, time_text
from jobs.kube.observed import Observed
from jobs.kube.status import JobStatus
from jobs.manifests.operator_config import OperatorConfig

HEARTBEAT_GRACE = timedelta(minutes=1)
"""Time between a missing heartbeat and the end of the attempt. After an outage of the API server, the driver reports
again within this time, since it tries every ten seconds.
"""


def check_heartbeat(
    status: JobStatus, observed: Observed, config: OperatorConfig, *, now: datetime
) -> tuple[JobStatus, float | None]:
    """`status` with `heartbeat_missed_since`, and the seconds until the next consequence of a missing heartbeat.

    0: the driver counts as lost. None: it has not reported yet, or its pods are suspended by Kueue.
    """
    if observed.driver_report is None or observed.waits_for_quota:
        return status.model_copy(update={"heartbeat_missed_since": None}), None
    left = observed.driver_report.reported_at + timedelta(seconds=config.driver_heartbeat_timeout_seconds) - now
    if left > timedelta(0):
        return status.model_copy(update={"heartbeat_missed_since": None}), left.total_seconds()
    status = status.model_copy(update={"heartbeat_missed_since": status.heartbeat_missed_since or time_text(now)})
    left = time_of(status.heartbeat_missed_since or "") + HEARTBEAT_GRACE - now
    return status, max(0.0, left.total_seconds())
