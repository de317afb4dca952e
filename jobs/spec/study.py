"""A study: one document, variants of it and seeds, worked out into the runs of an ablation. Pure.

    base x (itself, variants, cells of the grid) x seeds  ->  runs, each a document of its own

Every variant is trained with every seed, so that a variant and the base can be compared seed by seed: what a seed does
to both (first weights, order of the data) cancels out.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from data_io.data_spec import S3Options, Section
from jobs.errors import ConfigError, UsageError
from jobs.spec.diff import compare, value_text
from jobs.spec.fields import JOB_NAME_PATTERN, SpecField, fields_of
from jobs.spec.job import MAX_NAME_LENGTH, EmbeddingJob, apply_overrides, parse_job_spec, read_job_spec, set_field
from jobs.spec.validation import raise_problems, translate
from jobs.spec.yaml12 import RawSpec

BASE = "base"
RUNS = "runs"
"""The directory of a study's runs below its directory."""
_HOLDS = "apiVersion, kind: Study, metadata and spec"
# What makes runs comparable, and where they lie, is the same for all of them.
_OF_THE_STUDY = ("train.seed", "storage.*", "evaluation.*", "data.uri", "suspend")

Metric = Literal["ndcg_at_10", "recall_at_10", "spearman"]


class Variant(Section):
    """One way to train that differs from the base."""

    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, max_length=MAX_NAME_LENGTH)] = Field(
        description="What the variant is called; part of its runs' names."
    )
    set_: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="Fields of the document and their values, as for --set."
    )
    without_sources: tuple[str, ...] = Field((), description="Sources of the base that are not trained on.")


class StudyMetadata(Section):
    """Who the study is."""

    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, max_length=MAX_NAME_LENGTH)] = Field(
        description="Name of the study and of its directory below the base's storage.uri."
    )


class StudySpec(Section):
    """What is compared."""

    base: str | dict[str, Any] = Field(description="The EmbeddingJob that runs are made from: a file, or all of it.")
    variants: tuple[Variant, ...] = Field((), description="What is compared with the base: a list of these fields.")
    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="Fields of the document, each with a list of values; every combination is a variant.",
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        min_length=1, description="Values of train.seed; every variant is trained with each."
    )
    metric: Metric = Field(
        "ndcg_at_10",
        description="What variants are compared by, a mean over the held-out sets; `spearman` is that of scored pairs.",
    )

    @model_validator(mode="after")
    def _something_is_compared(self) -> Self:
        if not self.variants and not self.grid:
            raise ValueError("there are no variants and no grid; add a variant to compare with the base")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)} has a seed twice; name each once")
        empty = next((name for name, values in self.grid.items() if not values), None)
        if empty is not None:
            raise ValueError(f"grid.{empty} has no value; give a list of values")
        return self


class StudyFile(Section):
    """A study as it is written."""

    api_version: Literal["f2llm.dev/v1alpha1"] = Field(alias="apiVersion", description="Version of this format.")
    kind: Literal["Study"] = Field(description="Always Study.")
    metadata: StudyMetadata
    spec: StudySpec


STUDY_FIELDS: dict[str, SpecField] = {field.name: field for field in fields_of(StudyFile)}


@dataclass(frozen=True)
class StudyVariant:
    """A variant with its effective document; `changes` has the path, the base's value and its own of each field that
    differs.
    """

    name: str
    job: EmbeddingJob
    raw: RawSpec
    changes: tuple[tuple[str, Any, Any], ...] = ()


@dataclass(frozen=True)
class StudyRun:
    """One training: a variant with a seed."""

    variant: str
    seed: int
    job: EmbeddingJob

    @property
    def name(self) -> str:
        return self.job.metadata.name


@dataclass(frozen=True)
class Study:
    """A study worked out. The base comes first among the variants; runs are seed by seed, so that a study that is
    stopped half way has compared something.
    """

    name: str
    uri: str
    s3: S3Options
    metric: Metric
    seeds: tuple[int, ...]
    variants: tuple[StudyVariant, ...]
    runs: tuple[StudyRun, ...]

    @property
    def base(self) -> EmbeddingJob:
        return self.variants[0].job


def load_study(
    path: str, *, overrides: Sequence[str] = (), sources_of: Callable[[EmbeddingJob], Sequence[str]]
) -> Study:
    """Read, validate and work out a study; `overrides` are the texts of `--set` and change its base.

    `sources_of` gives the sources that a document trains on; it is asked where a variant leaves some out. Raises
    ConfigError with the place of what is wrong.
    """
    raw = read_job_spec(path, holds=_HOLDS, what="a study")
    try:
        job_spec = StudyFile.model_validate_json(json.dumps(raw.value), strict=True)
    except ValidationError as error:
        raise_problems(raw.name, translate(error, raw, STUDY_FIELDS))
    name, spec = job_spec.metadata.name, job_spec.spec
    base = apply_overrides(_base(raw, spec.base), overrides)
    storage = parse_job_spec(base).spec.storage
    uri = f"{storage.uri.rstrip('/')}/{name}"
    base = set_field(base, "storage.uri", f"{uri}/{RUNS}", place=raw.name)
    variants = _variants(raw, spec, base, sources_of)
    return Study(
        name=name,
        uri=uri,
        s3=storage.s3,
        metric=spec.metric,
        seeds=spec.seeds,
        variants=tuple(variants),
        runs=tuple(
            StudyRun(each.name, seed, _run_job_spec(raw, each, seed)) for seed in spec.seeds for each in variants
        ),
    )


def _base(study: RawSpec, base: str | dict[str, Any]) -> RawSpec:
    if isinstance(base, str):
        return read_job_spec(base)
    below = ("spec", "base")
    places = {path[2:]: text for path, text in study.places.items() if path[:2] == below}
    return RawSpec(study.place(below), base, places)


def _variants(
    study: RawSpec, spec: StudySpec, base: RawSpec, sources_of: Callable[[EmbeddingJob], Sequence[str]]
) -> list[StudyVariant]:
    first = parse_job_spec(base)
    if not first.spec.evaluation.enabled:
        raise ConfigError(
            f"{base.place(('spec', 'evaluation', 'enabled'))}: evaluation.enabled is false, so there is nothing to "
            "compare runs by",
            remedy="set evaluation.enabled: true in the base",
        )
    found = [StudyVariant(BASE, first, base)]
    for number, variant in enumerate(spec.variants):
        place = study.place(("spec", "variants", number))
        values = dict(variant.set_)
        if variant.without_sources:
            values["data.sources"] = _rest(place, variant, sources_of(first))
        at = {field: study.place(("spec", "variants", number, "set", field)) for field in values}
        written = _changed(variant.name, base, first, values, at)
        if not written.changes:
            raise ConfigError(
                f"{place}: {variant.name} is the same as the base", remedy="set a field to another value, or remove it"
            )
        if same := next((each.name for each in found if each.name == written.name), None):
            raise ConfigError(f"{place}: {same} is there already", remedy="give each variant a name of its own")
        if same := next((each.name for each in found if each.changes == written.changes), None):
            raise ConfigError(f"{place}: {written.name} is the same as {same}", remedy="remove one of them")
        found.append(written)
    at = {field: study.place(("spec", "grid", field)) for field in spec.grid}
    for cell in _cells(spec.grid):
        written = _changed(_cell_name(cell), base, first, cell, at)
        # A cell that is the base, or a variant, is trained once.
        if all(each.changes != written.changes for each in found):
            if any(each.name == written.name for each in found):
                raise ConfigError(
                    f"{study.place(('spec', 'grid'))}: two cells would be called {written.name}",
                    remedy="write them as variants, with names",
                )
            found.append(written)
    if len(found) == 1:
        raise ConfigError(
            f"{study.place(('spec', 'grid'))}: all of it is the base", remedy="give a field another value as well"
        )
    return found


def _rest(place: str, variant: Variant, known: Sequence[str]) -> list[str]:
    unknown = [name for name in variant.without_sources if name not in known]
    rest = [name for name in known if name not in variant.without_sources]
    if unknown or not rest or "data.sources" in variant.set_:
        found = (
            f"{unknown[0]} is no source of the base, which has {', '.join(known)}"
            if unknown
            else "no source is left"
            if not rest
            else "data.sources is set too"
        )
        raise ConfigError(f"{place}: without_sources: {found}", remedy="name sources of the base, not all of them")
    return rest


def _changed(
    name: str, base: RawSpec, first: EmbeddingJob, values: Mapping[str, Any], places: Mapping[str, str]
) -> StudyVariant:
    raw = base
    for field, value in values.items():
        try:
            raw = set_field(raw, field, value, place=places[field])
        except UsageError as error:
            raise ConfigError(f"{places[field]}: {field}: unknown field", remedy=error.remedy) from None
        if field.partition(".")[0] in ("metadata", "apiVersion", "kind"):
            raise _fixed(places[field], field)
    job = parse_job_spec(raw)
    changes = tuple((path, before, after) for path, (before, after) in compare((first, job)))
    for path, *_ in changes:
        if any(fnmatchcase(path, pattern) for pattern in _OF_THE_STUDY):
            raise _fixed(next((places[f] for f in values if path.startswith(f.removeprefix("spec."))), raw.name), path)
    return StudyVariant(name, job, raw, changes)


def _fixed(place: str, field: str) -> ConfigError:
    return ConfigError(
        f"{place}: {field} is the same in all runs of a study, or they could not be compared",
        remedy="change it in the base, or in seeds",
    )


def _cells(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    if grid:
        for values in product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _cell_name(cell: Mapping[str, Any]) -> str:
    """temperature-0-02, and where there are several fields, as names are short on Kubernetes: temp-0-02-lr-1e-05."""
    names = [field.rpartition(".")[2] for field in cell]
    if len(cell) > 1:
        names = ["".join(word[0] for word in name.split("_")) if "_" in name else name[:4] for name in names]
    return "-".join(_slug(f"{name}-{_plain(value)}") for name, value in zip(names, cell.values(), strict=True))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(f"{key}-{_plain(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "-".join(_plain(each) for each in value)
    return value_text(value)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _run_job_spec(study: RawSpec, variant: StudyVariant, seed: int) -> EmbeddingJob:
    name = f"{variant.name}-seed-{seed}"
    if len(name) > MAX_NAME_LENGTH:
        raise ConfigError(
            f"{study.place(('spec', 'variants'))}: the run {name} has a name of {len(name)} characters, "
            f"{MAX_NAME_LENGTH} at most",
            remedy="write the variant under `variants`, with a short name",
        )
    raw = set_field(variant.raw, "metadata.name", name, place=study.name)
    return parse_job_spec(set_field(raw, "train.seed", seed, place=study.name))
