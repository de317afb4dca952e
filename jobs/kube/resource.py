"""An EmbeddingJob as the API server stores it, and the document in it."""

from collections.abc import Mapping
from typing import Any

from jobs.document.job import EmbeddingJob, parse_document
from jobs.document.yaml12 import RawDocument

_OF_THE_DOCUMENT = ("name", "namespace", "labels", "annotations")
_OF_KUBECTL = "kubectl.kubernetes.io/last-applied-configuration"


def document_of(resource: Mapping[str, Any]) -> EmbeddingJob:
    """The document of a stored job, its preset filled in. Raises ConfigError where the API server took a bad one."""
    metadata = {key: value for key, value in resource["metadata"].items() if key in _OF_THE_DOCUMENT}
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if key != _OF_KUBECTL}
    document = {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {**metadata, "annotations": annotations},
        "spec": resource["spec"],
    }
    return parse_document(RawDocument(f"EmbeddingJob {metadata['name']}", document))


def key_of(resource: Mapping[str, Any]) -> tuple[str, str]:
    """(namespace, name)"""
    return resource["metadata"]["namespace"], resource["metadata"]["name"]


def uid_of(resource: Mapping[str, Any]) -> str:
    """What no other object has, now or later."""
    return str(resource["metadata"]["uid"])
