"""Settings of the operator that a job spec does not contain, such as the default image and the pod profiles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from data_io.data_spec import Section
from jobs.errors import ConfigError
from jobs.manifests.allowed import Allowed
from jobs.spec.cluster import ClusterSpec, ObjectName, PodSettings, Toleration
from jobs.spec.validation import first_problem
from jobs.spec.yaml12 import read_yaml
from ray_app.structured_log import LogFormat


class Profile(Section):
    """A pod profile: an administrator defines it once, and job specs refer to its name."""

    env: dict[str, str] = Field(default_factory=dict, description="Environment variables of all pods.")
    head: PodSettings = Field(default_factory=PodSettings, description="Scheduling and resources of the head pod.")
    worker: PodSettings = Field(default_factory=PodSettings, description="Scheduling and resources of worker pods.")
    grace_seconds: int | None = Field(
        None,
        description="Seconds between the interruption notice and the end of a pod. null: that of the operator.",
    )
    same_zone: bool = Field(False, description="Whether all workers of a job run in the same zone.")


_GPU_TAINT = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
_POOL_TAINT = Toleration(key="f2llm.dev/pool", operator="Exists", effect="NoSchedule")
PROFILES: Mapping[str, Profile] = {
    # Errors of a collective end the process, so that Ray Train restarts the workers.
    "nccl": Profile(env={"NCCL_DEBUG": "WARN", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}),
    # Elastic Fabric Adapter of AWS: libfabric below NCCL, and the resource of its device plugin. Huge pages are off:
    # they gain little, Karpenter creates no node for a pod that requests them, and other pods cannot use them.
    "efa": Profile(
        env={
            "FI_PROVIDER": "efa",
            "FI_EFA_USE_DEVICE_RDMA": "1",
            "FI_EFA_USE_HUGE_PAGE": "0",
            "NCCL_SOCKET_IFNAME": "^lo,docker,veth",
        },
        worker=PodSettings(resources={"vpc.amazonaws.com/efa": "1"}),
    ),
    # Workers run on spot nodes with two minutes' notice, the head does not. Pods do not tolerate Karpenter's disruption
    # taint, since it does not evict pods that do, so they would get no notice.
    "spot-karpenter": Profile(
        head=PodSettings(node_selector={"karpenter.sh/capacity-type": "on-demand"}),
        worker=PodSettings(node_selector={"karpenter.sh/capacity-type": "spot"}),
    ),
    # The interruption notice is 30 s, which limits the time to drain.
    "spot-gke": Profile(
        worker=PodSettings(
            node_selector={"cloud.google.com/gke-spot": "true"},
            tolerations=(Toleration(key="cloud.google.com/gke-spot", value="true", effect="NoSchedule"),),
        ),
        grace_seconds=25,
    ),
    "gpu-taint": Profile(worker=PodSettings(tolerations=(_GPU_TAINT,))),
    # Nodes of helm/f2llm-platform, selected by its labels, and on GKE by its ComputeClasses.
    "platform": Profile(
        head=PodSettings(node_selector={"f2llm.dev/pool": "head"}, tolerations=(_POOL_TAINT,)),
        worker=PodSettings(
            node_selector={"f2llm.dev/pool": "gpu"},
            tolerations=(_GPU_TAINT, Toleration(key="kubernetes.azure.com/scalesetpriority", operator="Exists")),
        ),
    ),
    "platform-gke": Profile(
        head=PodSettings(node_selector={"cloud.google.com/compute-class": "f2llm-head"}),
        worker=PodSettings(node_selector={"cloud.google.com/compute-class": "f2llm-gpu"}, tolerations=(_GPU_TAINT,)),
        grace_seconds=25,
    ),
    # Traffic between zones is slow and billed. Nodes need the label topology.kubernetes.io/zone, which clouds set.
    "same-zone": Profile(same_zone=True),
}


class Scraper(Section):
    """Pods that may read metrics."""

    namespace_labels: Annotated[dict[str, str], Field(min_length=1)] = Field(description="Labels of their namespace.")
    pod_labels: dict[str, str] = Field(
        default_factory=dict, description="Labels of the pods. Empty: all pods of these namespaces."
    )


class Tls(Section):
    """TLS between the processes of Ray. Each pod gets a certificate of its own."""

    ca_secret: ObjectName = Field(
        description="Secret in the namespace of each job with the certificate and the key of a certificate authority, "
        "as tls.crt and tls.key. A job spec cannot use it."
    )

    def denied(self, cluster: ClusterSpec) -> str:
        """Where the job spec names the Secret of the authority; empty if it does not."""
        named = [*cluster.secrets, *cluster.image_pull_secrets, *(each.secret for each in cluster.volumes)]
        if self.ca_secret not in named:
            return ""
        return f"spec.cluster: found the Secret {self.ca_secret}, which is for TLS of Ray"


class OperatorConfig(Section):
    """The settings of the operator."""

    image: str = Field("f2llm-ray:0.1.0", description="Image of pods if the job spec sets no image.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When nodes pull the image."
    )
    ray_version: str = Field("2.60.0", description="Version of Ray in the image. KubeRay needs it.")
    run_as_user: Annotated[int, Field(ge=1)] = Field(1000, description="User id of all pods; not root.")
    grace_seconds: Annotated[int, Field(ge=20)] = Field(
        120, description="Seconds between the interruption notice and the end of a pod."
    )
    start_timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        600,
        description="Seconds to wait for all worker pods. After that, a job with workers.min starts with fewer if at "
        "least min are ready.",
    )
    driver_heartbeat_timeout_seconds: Annotated[int, Field(ge=120)] = Field(
        600,
        description="Seconds without a heartbeat of the driver until the heartbeat counts as missing. A minute later "
        "the attempt fails and is retried.",
    )
    retry_seconds: Annotated[int, Field(ge=1)] = Field(
        10, description="Seconds to wait after a failed attempt. The wait doubles with each failed attempt in a row."
    )
    retry_seconds_most: Annotated[int, Field(ge=1)] = Field(
        600, description="Longest wait after a failed attempt, in seconds."
    )
    log_format: LogFormat = Field(LogFormat.TEXT, description="Log format of a job's driver: key=value or JSON.")
    scrapers: tuple[Scraper, ...] = Field(
        (Scraper(namespace_labels={"f2llm.dev/scrapes": "true"}),),
        description="Pods outside a job that may connect to the metrics port of its pods. Empty: none.",
    )
    kuberay_namespace: str | None = Field(
        None, description="Namespace of KubeRay, which may connect to Ray's dashboard. null: any namespace."
    )
    allowed: Allowed = Field(
        default_factory=Allowed, description="What jobs may request. A job that requests more is refused."
    )
    tls: Tls | None = Field(None, description="TLS between the processes of Ray. null: their connections are in clear.")
    profiles: dict[str, Profile] = Field(
        default_factory=dict, description="Additional pod profiles; they override built-in profiles of the same name."
    )

    def profiles_of(self, cluster: ClusterSpec) -> list[Profile]:
        """The profiles of a job spec. Raises ConfigError for a name that is neither in the operator's settings nor
        built in.
        """
        known = {**PROFILES, **self.profiles}
        for name in cluster.profiles:
            if name not in known:
                raise ConfigError(
                    f"spec.cluster.profiles: found {name}, expected one of {', '.join(sorted(known))}",
                    remedy="use one of these, or add the profile to `jobs.profiles` of the operator's chart",
                )
        return [known[name] for name in cluster.profiles]


def load_operator_config(path: Path | None) -> OperatorConfig:
    """The operator's settings file, or the defaults. Raises ConfigError if the file is invalid."""
    return OperatorConfig() if path is None else parse_operator_config(path.read_text(encoding="utf-8"), str(path))


def parse_operator_config(text: str, name: str) -> OperatorConfig:
    """The operator's settings from the text of the file `name`. Raises ConfigError if it is invalid."""
    raw = read_yaml(text, name, holds="settings of the operator")
    try:
        return OperatorConfig.model_validate(raw.value)
    except ValidationError as error:
        raise ConfigError(
            f"{name}: {first_problem(error)}",
            remedy="see the comments in the values of the chart f2llm-operator: `helm show values CHART`",
        ) from None
