"""The CustomResourceDefinition, from the models of the job spec.

`python -m jobs.kube.crd` writes it for kustomize and Helm.

Kubernetes requires a structural schema: no references, no unions, no closed objects (it prunes unknown fields, and
kubectl refuses them). Fields that a preset sets have no default here: the API server would fill it in before the
operator merges the preset.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.kube.crd_rules import rules
from jobs.kube.status import MOST_CHARACTERS, JobStatus
from jobs.spec.job import API_VERSION, EmbeddingJobSpec
from jobs.spec.presets import PRESETS
from jobs.spec.yaml12 import write_yaml

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "k8s" / "base" / "crd.yaml", ROOT / "helm" / "f2llm-operator" / "files" / "crd.yaml")
GROUP, VERSION = API_VERSION.split("/")
PLURAL = "embeddingjobs"
NAME = f"{PLURAL}.{GROUP}"

# The API server estimates the cost of a rule from the largest value of a field.
_MOST = {"string": ("maxLength", 2048), "array": ("maxItems", 1024), "map": ("maxProperties", 64)}
_KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern")
_INT64_AND_ABOVE = 2**63 - 1
_COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("Phase", "string", ".status.phase", 0),
    ("Step", "integer", ".status.step", 0),
    ("Progress", "string", ".status.progress", 0),
    ("Loss", "number", ".status.loss", 0),
    ("Workers", "integer", ".status.readyReplicas", 0),
    ("ETA", "string", ".status.eta", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Attempt", "integer", ".status.attempt", 1),
    ("Checkpoint", "integer", ".status.lastCheckpointStep", 1),
    ("Message", "string", ".status.message", 1),
)


def custom_resource_definition() -> dict[str, Any]:
    """The CustomResourceDefinition as plain values."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Jobs survive an uninstall of the chart.
        "metadata": {"name": NAME, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "EmbeddingJob",
                "listKind": "EmbeddingJobList",
                "plural": PLURAL,
                "singular": "embeddingjob",
                "shortNames": ["ej"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.workers.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in _COLUMNS
                    ],
                }
            ],
        },
    }


def schema() -> dict[str, Any]:
    """The structural schema with defaults and rules."""
    spec = _structural(EmbeddingJobSpec.model_json_schema(by_alias=True))
    # A run directory inside a pod would be lost with the pod, so a job spec without storage is refused.
    del spec["properties"]["storage"]["properties"]["uri"]["default"]
    for path in sorted(set(_paths_of_presets())):
        _without_default(spec, path)
    _default_sections(spec)
    spec.pop("default", None)
    root: dict[str, Any] = {
        "type": "object",
        "description": "A training job that turns a decoder LLM into a text-embedding model.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {**spec, "required": ["data"]},
            "status": _without_defaults(_structural(JobStatus.model_json_schema(by_alias=True))),
        },
    }
    for rule in rules():
        _at(root, rule.path).setdefault("x-kubernetes-validations", []).append(rule.to_dict())
    _as_maps(root["properties"]["status"]["properties"]["conditions"], "type")
    _as_maps(_at(root, ("spec", "cluster", "volumes")), "name")
    return root


def write() -> None:
    """Write the files with the definition."""
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(), encoding="utf-8")


def text() -> str:
    """The content of the files."""
    return f"# Written by `make generate`; do not edit.\n{write_yaml(custom_resource_definition())}"


def _structural(node: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A pydantic schema without references and unions. It supports only the constructs that the job spec uses."""
    definitions = definitions or node.get("$defs", {})
    if "anyOf" in node and "properties" not in node:
        (inner,) = [each for each in node["anyOf"] if each.get("type") != "null"]
        node = {**node, **inner, "nullable": True}
    if "$ref" in node:
        node = {**definitions[node["$ref"].removeprefix("#/$defs/")], **node}
    made = {key: node[key] for key in _KEPT if key in node}
    if "const" in node:
        made["enum"] = [node["const"]]
    if node.get("description"):
        made["description"] = " ".join(node["description"].split())
    if node.get("nullable"):
        made["nullable"] = True
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    if node.get("default") not in (None, {}, []):
        made["default"] = node["default"]
    for end in ("minimum", "maximum"):
        if (bound := node.get(f"exclusive{end.capitalize()}")) is not None:
            made |= {end: bound, f"exclusive{end.capitalize()}": True}
    if made.get("maximum", 0) >= _INT64_AND_ABOVE:  # the bound of any integer in Kubernetes
        made.pop("maximum"), made.pop("exclusiveMaximum", None)
    if "properties" in node:
        made["properties"] = {name: _structural(each, definitions) for name, each in node["properties"].items()}
        if node.get("required"):
            made["required"] = node["required"]
    elif isinstance(node.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    if "items" in node:
        made["items"] = _structural(node["items"], definitions)
    bounded = "map" if "additionalProperties" in made else made.get("type", "")
    if bounded in _MOST and "enum" not in made:
        made.setdefault(*_MOST[bounded])
    return made


def _paths_of_presets() -> Iterator[tuple[str, ...]]:
    """Every field that some preset sets, below `spec`."""

    def leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in values.items():
            yield from leaves(value, (*above, key)) if isinstance(value, Mapping) else iter([(*above, key)])

    for values in PRESETS.values():
        yield from leaves(values)


def _without_default(node: dict[str, Any], path: tuple[str, ...]) -> None:
    for key in path:
        node = node["properties"][key]
    node.pop("default", None)


def _without_defaults(node: dict[str, Any]) -> dict[str, Any]:
    """The schema without defaults and bounds: the operator writes the status completely, and no rule reads it. Only its
    texts are bounded, because they come from drivers and pods.
    """
    dropped = {"default", "required", *(bound for bound, _ in _MOST.values())}
    kept = {key: value for key, value in node.items() if key not in dropped}
    if kept.get("type") == "string" and "enum" not in kept:
        kept["maxLength"] = MOST_CHARACTERS
    if "properties" in kept:
        kept["properties"] = {name: _without_defaults(each) for name, each in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = {**_without_defaults(kept["items"]), "required": node["items"].get("required", [])}
    return kept


def _default_sections(node: dict[str, Any]) -> bool:
    """Give sections with defaults the default `{}`, since defaults apply only inside an existing section.

    Returns whether this section has defaults.
    """
    inside = [_default_sections(each) for each in node.get("properties", {}).values()]
    holds = any(inside) or "default" in node
    if any(inside) and not node.get("nullable") and not node.get("required"):
        node["default"] = {}
    return holds and not node.get("nullable") and not node.get("required")


def _at(root: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        root = root["items"] if key == "[]" else root["properties"][key]
    return root


def _as_maps(node: dict[str, Any], key: str) -> None:
    """Mark a list as a map by this key, so that each writer owns the items that it wrote."""
    node |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


if __name__ == "__main__":
    write()
    sys.stdout.write("".join(f"{path}\n" for path in FILES))
