"""Whether the driver of an attempt is still heard. Pure.

KubeRay waits for ever for a head that does not answer: one on a node that was cut off, or frozen. A driver in a pod
speaks once a minute at least, whatever it is doing (jobs/publish.py), so that silence means something.
"""

from datetime import datetime, timedelta

from jobs.facts import Facts
from jobs.job_status import JobStatus
from jobs.observe import time_of, time_text
from jobs.seen import Seen

LAST_CHANCE = timedelta(minutes=1)
"""Between noticing a silence and acting on it. Where it was the API server that was away, the driver, which tries every
ten seconds, is heard again within this time.
"""


def listen(status: JobStatus, seen: Seen, facts: Facts, *, now: datetime) -> tuple[JobStatus, float | None]:
    """`status` with `silent_since`, and the seconds until the silence means more: 0 means that the driver is given up,
    None that it has not said its first word yet, or has no pod to say it from.
    """
    if seen.published is None or seen.waits_for_quota:
        return status.model_copy(update={"silent_since": None}), None
    left = seen.published.said + timedelta(seconds=facts.contact_timeout_seconds) - now
    if left > timedelta(0):
        return status.model_copy(update={"silent_since": None}), left.total_seconds()
    status = status.model_copy(update={"silent_since": status.silent_since or time_text(now)})
    left = time_of(status.silent_since or "") + LAST_CHANCE - now
    return status, max(0.0, left.total_seconds())
