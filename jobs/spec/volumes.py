"""Whether pods can reach the URIs of a job spec: a directory exists in them only if a volume is mounted there.

The CustomResourceDefinition has the same rule with the same message (jobs.kube.crd_rules). This module checks it before
anything is sent to a cluster.
"""

import posixpath
import re

from jobs.errors import ConfigError
from jobs.spec.cluster import VolumeMount
from jobs.spec.job import EmbeddingJob

REMOTE_PATTERN = "^[a-z0-9]+://[^/]"
OUTWARD_REMEDY = "write the path without these parts"
URI_FIELDS = ("data.uri", "storage.uri")
OUTWARD_PATTERN = r"(^|/)\.\.?(/|$)"
"""A path with a part `.` or `..`. It can begin with the directory of a volume and lead out of it."""
MOUNT_REMEDY = "write s3://bucket/prefix, or mount a PersistentVolumeClaim there"


def refuse_unmounted_directories(job: EmbeddingJob) -> None:
    """Raises ConfigError if a URI of the job spec is a directory that no pod would have, or has a part `.` or `..`."""
    for field, uri in zip(URI_FIELDS, (job.spec.data.uri, job.spec.storage.uri), strict=True):
        if re.search(OUTWARD_PATTERN, uri):
            raise ConfigError(outward(field), remedy=OUTWARD_REMEDY)
        if not is_remote(uri) and volume_of(job, uri) is None:
            raise ConfigError(not_mounted(field), remedy=MOUNT_REMEDY)


def is_remote(uri: str) -> bool:
    """Whether the URI has a scheme, such as s3://, and so needs no volume."""
    return re.search(REMOTE_PATTERN, uri) is not None


def volume_of(job: EmbeddingJob, path: str) -> VolumeMount | None:
    """The volume whose directory contains `path`, the innermost of several; None if no volume contains it."""
    inside = posixpath.normpath(path)
    found = [each for each in job.spec.cluster.volumes if f"{inside}/".startswith(f"{each.mount_path}/")]
    return max(found, key=lambda each: len(each.mount_path), default=None)


def outward(field: str) -> str:
    """The message about a path with `.` or `..`; the remedy is OUTWARD_REMEDY."""
    return f"spec.{field} has a part `.` or `..`"


def not_mounted(field: str) -> str:
    """The message about a directory that no volume provides; the remedy is MOUNT_REMEDY."""
    return f"spec.{field} is a directory that no volume of spec.cluster.volumes provides"
