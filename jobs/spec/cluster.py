"""The part of the job spec that only Kubernetes reads. A run on one machine ignores it, and it changes no result.

The list is short on purpose. The operator decides everything else about a pod, so that pods fit the `restricted` pod
security standard for any job spec.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_io.data_spec import Section

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""A Kubernetes name; its length has a limit of its own, often 63 characters."""
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
"""The name of an existing object. The API server's URL of the object contains it, so it has no slash."""
MOUNT_PATTERN = r"^(/([^/.:]|\.[^/.:]|\.\.[^/:])[^/:]*)+$"
"""An absolute path without parts `.` and `..`, which could lead to a directory that every pod already has."""
OUR_VOLUMES = ("scratch", "shared-memory", "job-spec", "ray-tls", "ray-tls-ca")
OUR_DIRECTORIES = r"^(/tmp|/dev/shm|/etc/f2llm(-tls)?(/.*)?)$"
"""Mounts that every pod already has (pods.py and tls.py of jobs/manifests). Volumes can be mounted below the first
two.
"""
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN)]
ObjectName = Annotated[str, Field(pattern=OBJECT_NAME_PATTERN, max_length=253)]


class Toleration(Section):
    """A node taint that pods tolerate."""

    key: str | None = Field(None, description="Key of the taint. null: every key, together with operator Exists.")
    operator: Literal["Equal", "Exists"] = Field(
        "Equal", description="Equal compares the value; Exists accepts any value."
    )
    value: str | None = Field(None, description="Value of the taint, for operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. null: every effect."
    )


class VolumeMount(Section):
    """A volume that is mounted into every pod of the job. Set exactly one of `claim`, `config_map` and `secret`."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)] = Field(
        description="Name of the volume within the job."
    )
    mount_path: Annotated[str, Field(pattern=MOUNT_PATTERN, max_length=256)] = Field(
        description="Absolute path in the pods at which the volume is mounted."
    )
    claim: ObjectName | None = Field(None, description="Name of a PersistentVolumeClaim in the namespace of the job.")
    config_map: ObjectName | None = Field(None, description="Name of a ConfigMap in the namespace of the job.")
    secret: ObjectName | None = Field(None, description="Name of a Secret in the namespace of the job.")
    read_only: bool = Field(
        True, description="Mount the volume read-only. Set false for a volume that receives run directories."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("claim", "config_map", "secret") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"volume {self.name} has {' and '.join(given) or 'no source'}; "
                "set exactly one of claim, config_map and secret, for example claim: my-models"
            )
        return self

    @model_validator(mode="after")
    def _differs_from_ours(self) -> Self:
        if self.name in OUR_VOLUMES or re.search(OUR_DIRECTORIES, self.mount_path):
            raise ValueError(
                f"volume {self.name} at {self.mount_path} conflicts with a volume that every pod has; "
                f"use a name other than {', '.join(OUR_VOLUMES)}, and a directory such as /models"
            )
        return self


class PodSettings(Section):
    """Scheduling and resources of the head pod or of the worker pods."""

    memory: Quantity | None = Field(
        None, description="Memory request and limit of a pod, for example 64Gi. null: no request and no limit."
    )
    resources: dict[str, str] = Field(
        default_factory=dict, description="Additional resources of a pod, for example vpc.amazonaws.com/efa: '4'."
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels that a node must have to run the pods."
    )
    tolerations: tuple[Toleration, ...] = Field((), description="Node taints that the pods tolerate.")


class HeadSettings(PodSettings):
    """The pod with Ray's control plane and the driver. It does not train, and should outlive the workers."""

    cpus: Annotated[float, Field(gt=0)] = Field(1, description="CPUs that the head pod requests.")
    memory: Quantity | None = Field(
        "4Gi", description="Memory request and limit of the head pod. null: no request and no limit."
    )


class WorkerSettings(PodSettings):
    """The pods that train, with one Ray Train worker each. `workers` sets their CPUs and GPUs."""

    shared_memory: Quantity = Field(
        "2Gi", description="Size of /dev/shm in a worker pod. It counts towards the memory of the pod."
    )


class ClusterSpec(Section):
    """How the job runs on Kubernetes. One machine ignores it, and no field here changes the result."""

    image: str | None = Field(
        None, description="Container image of all pods. null: the image of the operator's settings."
    )
    image_pull_secrets: tuple[ObjectName, ...] = Field(
        (), description="Names of Secrets with credentials for the image registry."
    )
    profiles: tuple[str, ...] = Field(
        (), description="Names of pod profiles that the operator knows, applied in this order."
    )
    service_account: ObjectName | None = Field(
        None,
        description="ServiceAccount of the pods. null: one that the operator creates for the job. Set it to use IRSA "
        "or Workload Identity.",
    )
    priority_class: ObjectName | None = Field(
        None, description="PriorityClass of the pods. null: the default of the cluster."
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of all pods. Never put a secret here."
    )
    secrets: tuple[ObjectName, ...] = Field(
        (),
        description="Names of Secrets. Each key of a Secret becomes an environment variable of all pods, for example "
        "AWS_ACCESS_KEY_ID.",
    )
    volumes: Annotated[tuple[VolumeMount, ...], Field(max_length=32)] = Field(
        (), description="Volumes that are mounted into all pods."
    )
    head: HeadSettings = Field(default_factory=HeadSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    max_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        5,
        description="Most retries in a row without a new checkpoint. Errors that a retry cannot fix, such as an "
        "invalid job spec, are not retried.",
    )
    stop_timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        600,
        description="Seconds that a suspended job has to write its checkpoint. After that its pods are deleted. Raise "
        "it if a checkpoint takes longer.",
    )

    @model_validator(mode="after")
    def _volumes_differ(self) -> Self:
        for field in ("name", "mount_path"):
            values = [getattr(each, field) for each in self.volumes]
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"two volumes have the same {field} {twice[0]}; use a different one for each")
        return self
