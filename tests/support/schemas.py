"""JSON schemas for kubeconform, from the published schemas of Kubernetes and of custom resources."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.control_plane import programs_folder

LOCATION = "{{.Group}}_{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
"""The path at which kubeconform looks for a schema, below the directory of `write_schemas`."""
_SWAGGER = programs_folder().parent / "kubernetes-schemas" / "swagger.json"
_PREFIX = "#/definitions/"
# Written as a string, and read from numbers as well.
_NUMBERS = {"io.k8s.apimachinery.pkg.api.resource.Quantity", "io.k8s.apimachinery.pkg.util.intstr.IntOrString"}


class _Loader(yaml.CSafeLoader):
    """Reads a plain `=` as a string, as the authors of such files intend."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.CSafeLoader.construct_scalar)


def write_schemas(folder: Path, definitions: Iterable[Path]) -> None:
    """One file per resource of Kubernetes and per custom resource of the CustomResourceDefinitions in `definitions`."""
    for group, kind, version, schema in (*_native(), *_custom(definitions)):
        (folder / f"{group or version}_{kind.lower()}_{version}.json").write_text(json.dumps(schema))


def _native() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    known = json.loads(_SWAGGER.read_text())["definitions"]
    for name in _NUMBERS:
        known[name] = {"type": ["string", "number"]}
    for name, definition in known.items():
        kinds = definition.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1 and "metadata" in definition.get("properties", {}):
            needed = {each: _strict(known[each]) for each in _reached(known, name)}
            (is_,) = kinds
            schema = {"$ref": _PREFIX + name, "definitions": needed}
            yield is_["group"], is_["kind"], is_["version"], schema


def _reached(known: Mapping[str, Any], name: str) -> set[str]:
    """A definition and all definitions that it refers to, directly or indirectly."""
    found, new = set(), {name}
    while new:
        found |= new
        text = json.dumps([known[each] for each in new])
        new = {each.partition('"')[0] for each in text.split(_PREFIX)[1:]} - found
    return found


def _custom(definitions: Iterable[Path]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for path in definitions:
        for crd in yaml.load_all(path.read_text(), _Loader):
            for version in crd["spec"]["versions"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                yield crd["spec"]["group"], crd["spec"]["names"]["kind"], version["name"], schema


def _strict(schema: Any) -> Any:
    """The same schema, without additional fields."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    open_ = "additionalProperties" in made or made.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_:
        made["additionalProperties"] = False
    return made
