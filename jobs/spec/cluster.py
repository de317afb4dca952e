"""The part of the document that only Kubernetes reads: a run on one machine ignores it, and no result changes by it.

It is a short list on purpose: everything else about a pod is the operator's, which is how pods stay within the
`restricted` pod security standard whatever a document says.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_io.data_spec import Section

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
MOUNT_PATTERN = r"^(/[^/]+)+$"
OUR_VOLUMES = ("scratch", "shared-memory", "job-spec")
OUR_FOLDERS = r"^(/tmp|/dev/shm|/etc/f2llm(/.*)?)$"
"""What every pod has by itself (jobs/manifests/pods.py). Directories may be mounted into the first two."""
Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN)]


class Toleration(Section):
    """A taint that pods may run beside."""

    key: str | None = Field(None, description="Key of the taint; null means every key, with operator Exists.")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Exists takes any value.")
    value: str | None = Field(None, description="Value of the taint, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; null means every effect."
    )


class VolumeMount(Section):
    """A volume that every pod of the job sees: one of `claim`, `config_map` and `secret`."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)] = Field(
        description="Name of the volume within the job."
    )
    mount_path: Annotated[str, Field(pattern=MOUNT_PATTERN, max_length=256)] = Field(
        description="Directory in the pods where it appears."
    )
    claim: str | None = Field(None, description="Name of a PersistentVolumeClaim.")
    config_map: str | None = Field(None, description="Name of a ConfigMap.")
    secret: str | None = Field(None, description="Name of a Secret.")
    read_only: bool = Field(True, description="Whether pods may only read it.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("claim", "config_map", "secret") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"volume {self.name} has {' and '.join(given) or 'no source'}; "
                "give one of claim, config_map and secret, as in claim: my-models"
            )
        return self

    @model_validator(mode="after")
    def _beside_ours(self) -> Self:
        if self.name in OUR_VOLUMES or re.search(OUR_FOLDERS, self.mount_path):
            raise ValueError(
                f"volume {self.name} at {self.mount_path} takes the place of one that every pod has; "
                "write another name than scratch, shared-memory and document, and a directory such as /models"
            )
        return self


class PodSettings(Section):
    """Where pods of one kind run, and what they may use."""

    memory: Quantity | None = Field(None, description="Memory of a pod, as in 64Gi; null asks for none.")
    resources: dict[str, str] = Field(
        default_factory=dict, description="Further resources of a pod, as in vpc.amazonaws.com/efa: '4'."
    )
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that a node must have.")
    tolerations: tuple[Toleration, ...] = Field((), description="Taints that the pods may run beside.")


class HeadSettings(PodSettings):
    """The pod with Ray's control plane and the driver; it trains nothing and should outlive the workers."""

    cpus: Annotated[float, Field(gt=0)] = Field(1, description="CPU cores of the head.")
    memory: Quantity | None = Field("4Gi", description="Memory of the head; null asks for none.")


class WorkerSettings(PodSettings):
    """The pods that train, one Ray Train worker each; their cores and GPUs are those of `workers`."""

    shared_memory: Quantity = Field("2Gi", description="Size of /dev/shm, which counts as memory of the pod.")


class ClusterSpec(Section):
    """How the job runs on Kubernetes; without meaning on one machine, and none of it changes the result."""

    image: str | None = Field(None, description="Image of all pods; null means the operator's.")
    image_pull_secrets: tuple[str, ...] = Field((), description="Secrets with which the image is pulled.")
    profiles: tuple[str, ...] = Field((), description="Named settings that the operator knows, applied in this order.")
    service_account: str | None = Field(
        None, description="ServiceAccount of the pods; null means one that the operator makes for the job."
    )
    priority_class: str | None = Field(None, description="PriorityClass of the pods.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment of all pods. Never put a secret here.")
    secrets: tuple[str, ...] = Field(
        (), description="Secrets whose every key becomes an environment variable, such as AWS_ACCESS_KEY_ID."
    )
    volumes: Annotated[tuple[VolumeMount, ...], Field(max_length=32)] = Field(
        (), description="Volumes that all pods see."
    )
    head: HeadSettings = Field(default_factory=HeadSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    max_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        5, description="Attempts after one that failed without a new checkpoint; an error in the document has none."
    )
    stop_timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        600, description="How long a job that is suspended may take for its checkpoint before its pods go."
    )

    @model_validator(mode="after")
    def _volumes_differ(self) -> Self:
        for field in ("name", "mount_path"):
            values = [getattr(each, field) for each in self.volumes]
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"two volumes have the {field} {twice[0]}; give each its own")
        return self


"""What Kubernetes takes as a name of at most 63 characters."""
