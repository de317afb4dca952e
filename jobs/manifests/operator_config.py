"""What the operator knows of its cluster and a document does not say: the image, and the named profiles of pods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from data_io.data_spec import Section
from jobs.errors import ConfigError
from jobs.spec.cluster import ClusterSpec, PodSettings, Toleration
from jobs.spec.validation import first_problem
from jobs.spec.yaml12 import read_yaml
from ray_app.structured_log import LogFormat


class Profile(Section):
    """Settings under a name: an administrator writes them once, a document says the name."""

    env: dict[str, str] = Field(default_factory=dict, description="Environment of all pods.")
    head: PodSettings = Field(default_factory=PodSettings, description="Where the head runs, and what it may use.")
    worker: PodSettings = Field(default_factory=PodSettings, description="Where workers run, and what they may use.")
    grace_seconds: int | None = Field(None, description="Time between notice and end of a pod; null: the operator's.")
    same_zone: bool = Field(False, description="Whether all workers of a job run in one zone.")


_GPU_TAINT = Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
_POOL_TAINT = Toleration(key="f2llm.dev/pool", operator="Exists", effect="NoSchedule")
PROFILES: Mapping[str, Profile] = {
    # Failures of a collective end the process, so that Ray Train starts the workers again.
    "nccl": Profile(env={"NCCL_DEBUG": "WARN", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1"}),
    # Elastic Fabric Adapter of AWS: libfabric below NCCL, and the device plugin's resource. Huge pages, which libfabric
    # would take, gain little: Karpenter makes no node for a pod that asks for them, and one that does not may use none.
    "efa": Profile(
        env={
            "FI_PROVIDER": "efa",
            "FI_EFA_USE_DEVICE_RDMA": "1",
            "FI_EFA_USE_HUGE_PAGE": "0",
            "NCCL_SOCKET_IFNAME": "^lo,docker,veth",
        },
        worker=PodSettings(resources={"vpc.amazonaws.com/efa": "1"}),
    ),
    # Workers may go at two minutes' notice, the head may not. The taint of a node that goes is not tolerated: Karpenter
    # does not evict pods that do, and they would hear nothing.
    "spot-karpenter": Profile(
        head=PodSettings(node_selector={"karpenter.sh/capacity-type": "on-demand"}),
        worker=PodSettings(node_selector={"karpenter.sh/capacity-type": "spot"}),
    ),
    # A notice of half a minute: the drain has to fit in.
    "spot-gke": Profile(
        worker=PodSettings(
            node_selector={"cloud.google.com/gke-spot": "true"},
            tolerations=(Toleration(key="cloud.google.com/gke-spot", value="true", effect="NoSchedule"),),
        ),
        grace_seconds=25,
    ),
    "gpu-taint": Profile(worker=PodSettings(tolerations=(_GPU_TAINT,))),
    # The nodes of helm/f2llm-platform: by its labels, and on GKE by its ComputeClasses.
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
    # Traffic between zones is slow and paid for. Nodes need the label topology.kubernetes.io/zone, as clouds set it.
    "same-zone": Profile(same_zone=True),
}


class OperatorConfig(Section):
    """The operator's configuration."""

    image: str = Field("f2llm-ray:0.1.0", description="Image of pods whose document names none.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When to pull.")
    ray_version: str = Field("2.60.0", description="Ray in the image, which KubeRay wants to know.")
    run_as_user: Annotated[int, Field(ge=1)] = Field(1000, description="User of all pods, never root.")
    grace_seconds: Annotated[int, Field(ge=20)] = Field(120, description="Time between notice and end of a pod.")
    start_timeout_seconds: Annotated[int, Field(ge=1)] = Field(
        600, description="How long all worker pods may take before a job starts with fewer, where its min allows it."
    )
    driver_heartbeat_timeout_seconds: Annotated[int, Field(ge=120)] = Field(
        600,
        description="Time without a heartbeat of the driver before its attempt counts as failed and another starts.",
    )
    retry_seconds: Annotated[int, Field(ge=1)] = Field(10, description="Wait after the first failed attempt; doubles.")
    retry_seconds_most: Annotated[int, Field(ge=1)] = Field(600, description="Longest wait after a failed attempt.")
    log_format: LogFormat = Field(LogFormat.TEXT, description="Lines of a job's driver: key=value, or JSON.")
    profiles: dict[str, Profile] = Field(default_factory=dict, description="Profiles beside the built-in ones.")

    def profiles_of(self, cluster: ClusterSpec) -> list[Profile]:
        """Those that a document names. Raises ConfigError for a name that neither the operator's configuration nor the
        built-in ones have.
        """
        known = {**PROFILES, **self.profiles}
        for name in cluster.profiles:
            if name not in known:
                raise ConfigError(
                    f"spec.cluster.profiles: found {name}, and the operator knows {', '.join(sorted(known))}",
                    remedy="write one of those, or add it to `profiles` of the operator's chart",
                )
        return [known[name] for name in cluster.profiles]


def load_operator_config(path: Path | None) -> OperatorConfig:
    """The operator's configuration file, or what is built in. Raises ConfigError for a file that is none."""
    return OperatorConfig() if path is None else parse_operator_config(path.read_text(encoding="utf-8"), str(path))


def parse_operator_config(text: str, name: str) -> OperatorConfig:
    """The operator's configuration from the text of its file, called `name` in the ConfigError where it is none."""
    raw = read_yaml(text, name, holds="settings of the operator")
    try:
        return OperatorConfig.model_validate(raw.value)
    except ValidationError as error:
        raise ConfigError(
            f"{name}: {first_problem(error)}", remedy="see `f2llm-operator` in docs/cluster/jobs.md"
        ) from None
