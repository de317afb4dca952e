"""An EmbeddingJob as the API server stores it, and the document in it."""

from collections.abc import Mapping
from typing import Any

from jobs.spec.job import EmbeddingJob, parse_job_spec
from jobs.spec.yaml12 import RawSpec

_OF_THE_JOB_SPEC = ("name", "namespace", "labels", "annotations")
_OF_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def job_spec_of(resource: Mapping[str, Any]) -> EmbeddingJob:
    """The document of a stored job, its preset filled in. Raises ConfigError where the API server took a bad one."""
    metadata = {key: value for key, value in resource["metadata"].items() if key in _OF_THE_JOB_SPEC}
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if key != _OF_KUBECTL}
    job_spec = {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {**metadata, "annotations": annotations},
        "spec": resource["spec"],
    }
    return parse_job_spec(RawSpec(f"EmbeddingJob {metadata['name']}", job_spec))


def key_of(resource: Mapping[str, Any]) -> tuple[str, str]:
    """(namespace, name)"""
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def uid_of(resource: Mapping[str, Any]) -> str:
    """What no other object has, now or later."""
    return str(resource["metadata"]["uid"])
