"""The job spec: one `EmbeddingJob`, as a YAML file or as a custom resource on Kubernetes.

A job spec is read (`jobs.spec.yaml12`), changed by `--set`, completed from its preset, and validated. The result
contains every value; `validate --show` prints it and the run directory stores it.
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
from jobs.spec.validation import close_names, raise_problems, shown, translate
from jobs.spec.yaml12 import HOLDS, RawSpec, read_json, read_value, read_yaml, write_yaml
from ray_app.job_spec import JobSpec

API_VERSION = "f2llm.dev/v1alpha1"
MAX_NAME_LENGTH = 40


class Metadata(Section):
    """Name, namespace, labels and annotations of the job."""

    # Names of other objects contain it. Those of Services begin with a letter and have at most 63 characters.
    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, max_length=MAX_NAME_LENGTH)] = Field(
        description="Name of the job and of its run directory: lower-case letters, digits and '-', beginning with a "
        "letter."
    )
    namespace: Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)] | None = Field(
        None, description="Kubernetes namespace. null: that of the current context. One machine ignores it."
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Kubernetes labels of the job, for example the Kueue queue."
    )
    annotations: dict[str, str] = Field(default_factory=dict, description="Kubernetes annotations of the job.")


class EmbeddingJobSpec(JobSpec):
    """Model, data, training, workers and storage of a job."""

    # A preset contains the model, so an editor must require only one of the two.
    model_config = ConfigDict(
        json_schema_extra={"required": ["data"], "anyOf": [{"required": ["preset"]}, {"required": ["model"]}]}
    )

    preset: PresetName | None = Field(
        None,
        description="Published recipe whose values apply to all fields that the job spec leaves out. Fields of the job "
        "spec override it.",
    )
    suspend: bool = Field(
        False,
        description="On Kubernetes: true stops the job after a checkpoint and deletes its pods; false resumes it. One "
        "machine ignores it.",
    )
    cluster: ClusterSpec = Field(default_factory=ClusterSpec)

    @model_validator(mode="after")
    def _uris_are_valid(self) -> Self:
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
    """A training job with its preset merged in."""

    api_version: Literal["f2llm.dev/v1alpha1"] = Field(alias="apiVersion", description="Version of this format.")
    kind: Literal["EmbeddingJob"] = Field(description="Always EmbeddingJob.")
    metadata: Metadata
    spec: EmbeddingJobSpec

    @property
    def worker_spec(self) -> JobSpec:
        """The spec for the workers, without the preset's name, since its values are merged in, and without the fields
        that only Kubernetes reads.
        """
        return JobSpec.model_validate(self.spec.model_dump(include=set(JobSpec.model_fields)))

    @property
    def run_uri(self) -> str:
        """The run directory: `<storage.uri>/<metadata.name>`."""
        return f"{self.spec.storage.uri.rstrip('/')}/{self.metadata.name}"

    def to_dict(self) -> dict[str, Any]:
        """The effective job spec as plain values, in the usual order; `metadata` contains only fields that are set."""
        spec = self.spec.model_dump(mode="json")
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "metadata": {k: v for k, v in self.metadata.model_dump(mode="json").items() if v},
            "spec": {"preset": spec.pop("preset"), **spec},
        }

    def to_yaml(self) -> str:
        """The effective job spec. Reading it back gives an equal EmbeddingJob."""
        return write_yaml(self.to_dict())


SPEC_FIELDS: dict[str, SpecField] = {field.name: field for field in fields_of(EmbeddingJob)}


def load_job_spec(path: str, *, overrides: Sequence[str] = ()) -> EmbeddingJob:
    """Read, override and validate a job spec.

    `path` is a YAML or .json file, or `-` for standard input; `overrides` are the values of `--set`. Raises ConfigError
    with every problem of the job spec, UsageError for an override of an unknown field.
    """
    return parse_job_spec(apply_overrides(read_job_spec(path), overrides))


def read_job_spec(path: str, *, holds: str = HOLDS, what: str = "a job spec") -> RawSpec:
    """The job spec as written, not yet validated. Raises ConfigError if it cannot be read or is not a mapping.

    `what` and `holds` name the kind of file and its top-level fields in messages.
    """
    give = f"pass the path of {what}, or - for standard input"
    if path == "-":
        return read_yaml(sys.stdin.read(), "standard input", holds=holds)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", remedy=give) from None
    except IsADirectoryError:
        remedy = f"if it is a run directory, pass {path}/job.yaml" if holds == HOLDS else give
        raise ConfigError(f"{path}: is a directory, expected a file", remedy=remedy) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})", remedy="save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", remedy="check the file's permissions") from None
    return (read_json if path.endswith(".json") else read_yaml)(text, path, holds=holds)


def parse_job_spec(raw: RawSpec) -> EmbeddingJob:
    """Merge the preset in and validate. Raises ConfigError with every problem, one per line, or with the kind alone if
    the file is not an EmbeddingJob.
    """
    _refuse_other_kind(raw)
    spec = raw.value.get("spec")
    effective = raw.value
    if isinstance(spec, dict):
        effective = {**raw.value, "spec": merged(preset_values(spec.get("preset")), spec)}
    try:
        # Through JSON: strict types accept lists as tuples, and a quoted "2" is a string, as on Kubernetes.
        return EmbeddingJob.model_validate_json(json.dumps(effective), strict=True)
    except ValidationError as error:
        raise_problems(raw.name, translate(error, raw, SPEC_FIELDS))


def _refuse_other_kind(raw: RawSpec) -> None:
    kind = raw.value.get("kind")
    if not isinstance(kind, str) or kind == "EmbeddingJob":
        return
    path = "-" if raw.name == "standard input" else raw.name
    raise ConfigError(
        f"{raw.place(('kind',))}: kind: found {shown(kind)}, expected EmbeddingJob",
        remedy=f"check a study with `f2llm ablate {path} --dry-run`"
        if kind == "Study"
        else "write `kind: EmbeddingJob`",
    )


def apply_overrides(raw: RawSpec, assignments: Iterable[str]) -> RawSpec:
    """The job spec with each `path=value` applied. The value is YAML; the prefix `spec.` is optional.

    An empty value is null. Raises UsageError if `=` is missing or the path is not a field, ConfigError if the value is
    not YAML.
    """
    for assignment in assignments:
        raw = _apply(raw, assignment)
    return raw


def set_field(raw: RawSpec, name: str, value: Any, *, place: str) -> RawSpec:
    """The job spec with `value` at the path `name`, whose prefix `spec.` is optional.

    `place` is the origin of the value, for messages.

    Raises UsageError if the path is not a field, ConfigError if a value above it is not a mapping.
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
                f"{raw.place(path[:depth])}: {'.'.join(path[:depth])}: expected a mapping that can contain {name}",
                remedy="make it a mapping, or remove it from the job spec",
            )
        section = below
    section[path[-1]] = value
    return raw.with_value(changed, changed=path, place=place)


def _apply(raw: RawSpec, assignment: str) -> RawSpec:
    name, equals, text = assignment.partition("=")
    shown = without_credentials(assignment)
    if not equals:
        raise UsageError(
            f"--set {shown}: '=' is missing", remedy="write --set path=value, for example --set train.epochs=1"
        )
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
    raise UsageError(f"{place}: unknown field", remedy=close_names(name.removeprefix("spec."), known))
