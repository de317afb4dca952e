"""TLS between the processes of Ray: an init container makes the certificate of its pod."""

from typing import Any

from jobs.manifests.operator_config import Tls

_DIRECTORY = "/etc/f2llm-tls"
_CA_DIRECTORY = "/etc/f2llm-tls-ca"
ENVIRONMENT = {
    "RAY_USE_TLS": "1",
    "RAY_TLS_SERVER_CERT": f"{_DIRECTORY}/tls.crt",
    "RAY_TLS_SERVER_KEY": f"{_DIRECTORY}/tls.key",
    "RAY_TLS_CA_CERT": f"{_DIRECTORY}/ca.crt",
}
"""Environment variables of a container whose processes use the certificate of the pod."""


def add_certificate(pod: dict[str, Any], tls: Tls, *, image: str, head: bool) -> None:
    """Add an init container that makes the pod's certificate, and the certificate to the pod's container.

    `image` is the image of the operator's settings, since code of a job must not see the key of the authority. KubeRay
    appends an init container to workers that connects to the head with the certificate.
    """
    (container,) = pod["containers"]
    # KubeRay sets FQ_RAY_IP to the host name of the head's Service.
    names = ["$(POD_IP)", "$(FQ_RAY_IP)"] if head else ["$(POD_IP)"]
    pod["initContainers"] = [
        {
            "name": "certificate",
            "image": image,
            "imagePullPolicy": container["imagePullPolicy"],
            "command": ["python", "-m", "ray_app.ray_runtime.certificates", _CA_DIRECTORY, _DIRECTORY, *names],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "128Mi"}},
            "terminationMessagePolicy": container["terminationMessagePolicy"],
            "securityContext": dict(container["securityContext"]),
            "volumeMounts": [
                {"name": "ray-tls-ca", "mountPath": _CA_DIRECTORY, "readOnly": True},
                {"name": "ray-tls", "mountPath": _DIRECTORY},
            ],
        }
    ]
    container["volumeMounts"].append({"name": "ray-tls", "mountPath": _DIRECTORY, "readOnly": True})
    pod["volumes"] += [
        {"name": "ray-tls", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "ray-tls-ca", "secret": {"secretName": tls.ca_secret}},
    ]
