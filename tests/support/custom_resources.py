"""CustomResourceDefinitions on a test cluster, ours and KubeRay's. They are served when these functions return."""

from jobs.kube.crd import custom_resource_definition
from tests.support.control_plane import programs_folder
from tests.support.kubectl import Kubectl
from tests.support.waiting import wait_for

KUBERAY_TYPES = programs_folder().parent / "kuberay" / "crd" / "bases"
"""The directory that tests/cluster/build.sh kuberay-manifests writes."""


def install_our_type(kubectl: Kubectl) -> None:
    """Install EmbeddingJob. Afterwards jobs and ServiceAccounts can be created."""
    kubectl.apply(custom_resource_definition())
    wait_until_served(kubectl, "embeddingjobs.f2llm.dev")
    wait_for(lambda: "default" in kubectl("get", "serviceaccounts", "-o", "name"), "the default account")


def install_kuberay_types(kubectl: Kubectl) -> None:
    """Install RayJob, RayService and RayCluster, which are too large for the annotation of a client-side apply."""
    kinds = ("rayjobs", "rayservices", "rayclusters")
    kubectl("apply", "--server-side", *(f"--filename={KUBERAY_TYPES}/ray.io_{kind}.yaml" for kind in kinds))
    for kind in kinds:
        wait_until_served(kubectl, f"{kind}.ray.io")


def wait_until_served(kubectl: Kubectl, name: str) -> None:
    """Wait until the API server serves the custom resource."""

    def served() -> bool:
        conditions = kubectl.get("crd", name).get("status", {}).get("conditions") or []
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    wait_for(served, f"{name} is served")
