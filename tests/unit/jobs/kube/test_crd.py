"""The CustomResourceDefinition: structural, small, and consistent with the job spec."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import given

from jobs.kube.crd import FILES, custom_resource_definition, schema, text
from jobs.kube.crd_rules import rules
from jobs.spec.job import SPEC_FIELDS, parse_job_spec
from jobs.spec.presets import PRESETS
from jobs.spec.yaml12 import RawSpec
from tests.support.job_specs import job_spec, specs

SCHEMA = schema()


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, below in node.get("properties", {}).items():
        yield from nodes(below, f"{path}.{name}".lstrip("."))
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}.[]")


def defaulted(node: dict[str, Any], value: Any) -> Any:
    """The value after the API server has applied its defaults, from the top down, inside existing sections."""
    if isinstance(value, list):
        return [defaulted(node["items"], each) for each in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, below in node.get("properties", {}).items():
        if name not in filled and "default" in below:
            filled[name] = below["default"]
        if name in filled:
            filled[name] = defaulted(below, filled[name])
    return filled


def test_the_files_match_the_models() -> None:
    for path in FILES:
        assert path.read_text() == text(), "run `make generate`"


def test_it_fits_into_one_request_with_room_to_spare() -> None:
    assert len(json.dumps(custom_resource_definition(), separators=(",", ":"))) < 60_000  # as it is stored


def test_every_node_has_a_type_and_nothing_that_a_structural_schema_forbids() -> None:
    for path, node in nodes(SCHEMA):
        assert "type" in node, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "const"} & set(node), path
        assert not isinstance(node.get("exclusiveMinimum", True), int) or node.get("exclusiveMinimum", True) is True
        assert not ("properties" in node and "additionalProperties" in node), path


def test_every_string_list_and_mapping_has_a_bound() -> None:
    """Without a bound the API server assumes an unlimited cost of a rule."""
    for path, node in nodes(SCHEMA["properties"]["spec"]):
        if node["type"] == "string":
            assert "enum" in node or "maxLength" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path


def test_the_schema_has_every_field_of_the_job_spec() -> None:
    found = {path.replace(".[]", "") for path, _ in nodes(SCHEMA["properties"]["spec"], "spec")}

    assert {name for name in SPEC_FIELDS if name.startswith("spec.")} <= found


def test_no_default_overrides_a_preset() -> None:
    with_defaults = {path for path, node in nodes(SCHEMA["properties"]["spec"]) if node.get("default")}

    for values in PRESETS.values():
        assert not with_defaults & set(paths(values))


def paths(values: Any, above: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield from paths(value, f"{above}{key}.") if isinstance(value, dict) else iter([f"{above}{key}"])


@given(specs())
def test_defaults_of_the_api_server_do_not_change_the_meaning_of_a_job_spec(spec: dict[str, Any]) -> None:
    written = job_spec({"storage": {"uri": "s3://bucket/runs"}, **spec})
    stored = {**written, "spec": defaulted(SCHEMA["properties"]["spec"], written["spec"])}

    assert parse_job_spec(RawSpec("stored", stored)) == parse_job_spec(RawSpec("written", written))


def test_every_rule_says_what_to_write() -> None:
    for rule in rules():
        assert re.search(r"write|remove|use", rule.message), rule.message


def test_scale_status_and_columns_name_fields_that_exist() -> None:
    version = custom_resource_definition()["spec"]["versions"][0]
    known = {f".{path}" for path, _ in nodes(SCHEMA)} | {".metadata.creationTimestamp"}

    assert {column["jsonPath"] for column in version["additionalPrinterColumns"]} <= known
    assert set(version["subresources"]["scale"].values()) <= known
