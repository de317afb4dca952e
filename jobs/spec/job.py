"""The document: one `EmbeddingJob`, a YAML file here, a custom resource on Kubernetes.

A document goes through four steps: read (`jobs.spec.yaml12`), changed by `--set`, filled up from its preset,
validated.
The result is complete: what `validate --show` prints and the run directory keeps says every value.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from data_io.data_spec import Section
from data_io.storage.address import check_endpoint, parse_uri, without_credentials
from jobs.errors import ConfigError, UsageError
from jobs.spec.cluster import NAME_PATTERN, ClusterSpec
from jobs.spec.fields import JOB_NAME_PATTERN, SpecField, fields_of
from jobs.spec.presets import PresetName, merged, preset_values
from jobs.spec.validation import close_names, raise_problems, translate
from jobs.spec.yaml12 import HOLDS, RawSpec, read_json, read_value, read_yaml, write_yaml
from ray_app.job_spec import JobSpec

API_VERSION = "f2llm.dev/v1alpha1"
MAX_NAME_LENGTH = 40


class Metadata(Section):
    """Who the job is."""

    # The name becomes part of other names and of Services, which may hold 63 characters and begin with a letter.
    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, max_length=MAX_NAME_LENGTH)] = Field(
        description="Name of the job and of its run directory: lower-case letters, digits and '-'."
    )
    namespace: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)] | None = Field(
        None, description="Kubernetes namespace; without meaning on one machine."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Kubernetes labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Kubernetes annotations.")


class EmbeddingJobSpec(JobSpec):
    """What to train, on what, how and where."""

    # A preset brings the model, so an editor must not ask for both.
    model_config = ConfigDict(
        json_schema_extra={"required": ["data"], "anyOf": [{"required": ["preset"]}, {"required": ["model"]}]}
    )

    preset: PresetName | None = Field(
        None,
        description="Published recipe that fills in whatever this document leaves out; what the document says wins.",
    )
    suspend: bool = Field(
        False, description="On Kubernetes: stop behind a checkpoint and free all pods, until this is false again."
    )
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        s3 = self.storage.s3
        checks: list[tuple[str, Callable[[], object]]] = [
            ("data.uri", lambda: parse_uri(self.data.uri)),
            ("storage.uri", lambda: parse_uri(self.storage.uri)),
            ("storage.s3", lambda: check_endpoint(s3) if s3.endpoint_url else None),
        ]
        for name, check in checks:
            try:
                check()
            except ConfigError as error:
                raise ValueError(f"{name}: {error.message}; {error.remedy}") from None
        return self


class EmbeddingJob(Section):
    """A training job, complete: presets are merged in."""

    api_version: Literal["f2llm.dev/v1alpha1"] = Field(alias="apiVersion", description="Version of this format.")
    kind: Literal["EmbeddingJob"] = Field(description="Always EmbeddingJob.")
    metadata: Metadata
    spec: EmbeddingJobSpec

    @property
    def worker_spec(self) -> JobSpec:
        """What the workers receive: the spec without the preset's name, whose values it already holds, and without
        what only Kubernetes reads.
        """
        return JobSpec.model_validate(self.spec.model_dump(include=set(JobSpec.model_fields)))

    @property
    def run_uri(self) -> str:
        """The run directory: `<storage.uri>/<metadata.name>`."""
        return f"{self.spec.storage.uri.rstrip('/')}/{self.metadata.name}"

    def to_dict(self) -> dict[str, Any]:
        """The effective document as plain values, in the order a person would write; `metadata` holds what is set."""
        spec = self.spec.model_dump(mode="json")
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": {k: v for k, v in self.metadata.model_dump(mode="json").items() if v},
            "spec": {"preset": spec.pop("preset"), **spec},
        }

    def to_yaml(self) -> str:
        """The effective document. Reading it back gives an equal EmbeddingJob."""
        return write_yaml(self.to_dict())


SPEC_FIELDS: dict[str, SpecField] = {field.name: field for field in fields_of(EmbeddingJob)}


def load_job_spec(path: str, *, overrides: Sequence[str] = ()) -> EmbeddingJob:
    """Read, override and validate a document.

    `path` is a YAML or .json file, or `-` for standard input; `overrides` are the texts of `--set`. Raises ConfigError
    with every problem of the document, UsageError for an override that names no field.
    """
    return parse_job_spec(apply_overrides(read_job_spec(path), overrides))


def read_job_spec(path: str, *, holds: str = HOLDS, what: str = "a document") -> RawSpec:
    """The document as written, not yet validated. Raises ConfigError if it cannot be read or is no mapping.

    `what` says in messages what kind of file is read, `holds` what such a file consists of.
    """
    give = f"give the path of {what}, or - for standard input"
    if path == "-":
        return read_yaml(sys.stdin.read(), "standard input", holds=holds)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", remedy=give) from None
    except IsADirectoryError:
        remedy = f"for a run directory: {path}/job.yaml" if holds == HOLDS else give
        raise ConfigError(f"{path}: is a directory, expected a file", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})", remedy="save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", remedy="check the file's permissions") from None
    return (read_json if path.endswith(".json") else read_yaml)(text, path, holds=holds)


def parse_job_spec(raw: RawSpec) -> EmbeddingJob:
    """Merge the preset in and validate. Raises ConfigError that lists every problem, one a line."""
    spec = raw.value.get("spec")
    effective = raw.value
    if isinstance(spec, dict):
        effective = {**raw.value, "spec": merged(preset_values(spec.get("preset")), spec)}
    try:
        # Through JSON, so that strict types know tuples and a quoted "2" is text here as it is on Kubernetes.
        return EmbeddingJob.model_validate_json(json.dumps(effective), strict=True)
    except ValidationError as error:
        raise_problems(raw.name, translate(error, raw, SPEC_FIELDS))


def apply_overrides(raw: RawSpec, assignments: Iterable[str]) -> RawSpec:
    """The document with each `path=value` put in; the value is YAML and the `spec.` prefix may be left out.

    An empty value is null. Raises UsageError for text without `=` or a path that is no field, ConfigError for a value
    that is not YAML.
    """
    for assignment in assignments:
        raw = _apply(raw, assignment)
    return raw


def set_field(raw: RawSpec, name: str, value: Any, *, place: str) -> RawSpec:
    """The document with a value put in at `name`, a path in which `spec.` may be left out; `place` is who says so.

    Raises UsageError for a path that is no field, ConfigError where what is above it is no mapping.
    """
    path = _field_path(name, place)
    changed = json.loads(json.dumps(raw.value))
    section = changed
    for depth, key in enumerate(path[:-1], start=1):
        below = section.setdefault(key, {})
        if below is None:
            below = section[key] = {}
        if not isinstance(below, dict):
            raise ConfigError(
                f"{raw.place(path[:depth])}: {'.'.join(path[:depth])}: expected a mapping to put {name} into",
                remedy="make it a mapping, or remove it from the document",
            )
        section = below
    section[path[-1]] = value
    return raw.with_value(changed, changed=path, place=place)


def _apply(raw: RawSpec, assignment: str) -> RawSpec:
    name, equals, text = assignment.partition("=")
    shown = without_credentials(assignment)
    if not equals:
        raise UsageError(f"--set {shown}: found no '='", remedy="write --set path=value, as in --set train.epochs=1")
    _field_path(name.strip(), f"--set {name.strip()}")
    try:
        value = read_value(text)
    except ConfigError as error:
        raise ConfigError(f"--set {shown}: {error.message}", remedy="write the value as YAML, in quotes") from None
    return set_field(raw, name.strip(), value, place=f"--set {shown}")


def _field_path(name: str, place: str) -> tuple[str, ...]:
    for candidate in (name, f"spec.{name}"):
        if candidate in SPEC_FIELDS:
            return SPEC_FIELDS[candidate].path
        parent, _, key = candidate.rpartition(".")
        if key and parent in SPEC_FIELDS and SPEC_FIELDS[parent].open_mapping:
            return (*SPEC_FIELDS[parent].path, key)
    known = [field.removeprefix("spec.") for field in SPEC_FIELDS]
    raise UsageError(f"{place}: the document has no such field", remedy=close_names(name.removeprefix("spec."), known))
