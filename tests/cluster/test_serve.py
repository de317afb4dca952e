"""The output of `f2llm render --serve` on a real API server with KubeRay's CRDs."""

from pathlib import Path

import pytest
import yaml

from jobs.manifests.operator_config import OperatorConfig
from jobs.manifests.serving import job_spec_for, render_service
from tests.support.control_plane import ControlPlane
from tests.support.kubectl import Kubectl, Refused
from tests.support.waiting import wait_for

GOLDEN = Path(__file__).parents[1] / "golden" / "render" / "serve.yaml"


@pytest.mark.usefixtures("kuberay_types")
def test_every_object_of_a_service_is_accepted_with_no_field_that_is_unknown(kubectl: Kubectl) -> None:
    for each in yaml.safe_load_all(GOLDEN.read_text(encoding="utf-8")):
        stored = kubectl.apply(each, "--dry-run=server", "--validate=strict")

        assert stored["spec"].keys() >= each["spec"].keys()


def test_pods_of_a_service_fit_a_namespace_that_enforces_the_restricted_standard(control_plane: ControlPlane) -> None:
    kubectl = Kubectl(control_plane.kubeconfig, namespace="serve-restricted")
    kubectl("create", "namespace", "serve-restricted")
    kubectl("label", "namespace", "serve-restricted", "pod-security.kubernetes.io/enforce=restricted")
    wait_for(lambda: "default" in kubectl("get", "serviceaccounts", "-o", "name"), "the default account")
    (service,) = [
        each
        for each in render_service("s3://b/m", job_spec_for("s", []), OperatorConfig(), name="s", replicas=1)
        if each["kind"] == "RayService"
    ]
    cluster = service["spec"]["rayClusterConfig"]

    for template in (cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": template["spec"]}
        assert kubectl.apply(pod, "--dry-run=server")["kind"] == "Pod"
        loose = {**pod, "spec": {**template["spec"], "securityContext": {}}}
        with pytest.raises(Refused, match="restricted"):
            kubectl.apply(loose, "--dry-run=server")
