"""An EmbeddingJob as the API server stores it, and its job spec."""

from collections.abc import Mapping
from typing import Any

from jobs.spec.job import EmbeddingJob, parse_job_spec
from jobs.spec.yaml12 import RawSpec

_OF_THE_JOB_SPEC = ("name", "namespace", "labels", "annotations")
_OF_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def job_spec_of(resource: Mapping[str, Any]) -> EmbeddingJob:
    """The job spec of a stored job, with its preset merged in. Raises ConfigError if the stored spec is invalid."""
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


def is_owned(value: Mapping[str, Any], uid: str) -> bool:
    """Whether the object with this uid owns `value`."""
    return any(owner["uid"] == uid for owner in value["metadata"].get("ownerReferences") or ())


def uid_of(resource: Mapping[str, Any]) -> str:
    """The uid, which no other object ever has."""
    return str(resource["metadata"]["uid"])
