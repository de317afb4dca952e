"""A study: one job spec, its variants and seeds, expanded into the runs of an ablation. Pure.

    base x (itself, variants, combinations of the grid) x seeds  ->  runs, each with its own job spec

Every variant is trained with every seed, so that a variant and the base can be compared seed by seed. Effects of the
seed on both (initial weights, data order) cancel out.
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
"""The directory of the runs, below the directory of the study."""
_HOLDS = "apiVersion, kind: Study, metadata and spec"
# The runs of a study share these fields, so that they are comparable and lie in one directory.
_OF_THE_STUDY = ("train.seed", "storage.*", "evaluation.*", "data.uri", "suspend")

Metric = Literal["ndcg_at_10", "recall_at_10", "spearman"]


class Variant(Section):
    """A job spec that differs from the base."""

    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, max_length=MAX_NAME_LENGTH)] = Field(
        description="Name of the variant. It is part of the names of its runs."
    )
    set_: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="Fields of the job spec with their values, as for --set."
    )
    without_sources: tuple[str, ...] = Field((), description="Sources of the base to leave out.")


class StudyMetadata(Section):
    """The name of the study."""

    name: Annotated[str, Field(pattern=JOB_NAME_PATTERN, max_length=MAX_NAME_LENGTH)] = Field(
        description="Name of the study and of its directory below storage.uri of the base."
    )


class StudySpec(Section):
    """The base, its variants, the seeds and the metric of the comparison."""

    base: str | dict[str, Any] = Field(
        description="EmbeddingJob on which all runs are based: the path of a file, or the whole job spec."
    )
    variants: tuple[Variant, ...] = Field(
        (), description="Variants to compare with the base: a list, each item with these fields."
    )
    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="Fields of the job spec, each with a list of values. Every combination is a variant.",
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        min_length=1, description="Values of train.seed. Every variant is trained with each seed."
    )
    metric: Metric = Field(
        "ndcg_at_10",
        description="Metric of the comparison, as the mean over the held-out sets. `spearman` is the metric of scored "
        "pairs.",
    )

    @model_validator(mode="after")
    def _something_is_compared(self) -> Self:
        if not self.variants and not self.grid:
            raise ValueError("the study has no variants and no grid; add a variant to compare with the base")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)} contains a seed twice; list each seed once")
        empty = next((name for name, values in self.grid.items() if not values), None)
        if empty is not None:
            raise ValueError(f"grid.{empty} has no values; add a list of values")
        return self


class StudyFile(Section):
    """A study file."""

    api_version: Literal["f2llm.dev/v1alpha1"] = Field(alias="apiVersion", description="Version of this format.")
    kind: Literal["Study"] = Field(description="Always Study.")
    metadata: StudyMetadata
    spec: StudySpec


STUDY_FIELDS: dict[str, SpecField] = {field.name: field for field in fields_of(StudyFile)}


@dataclass(frozen=True)
class StudyVariant:
    """A variant with its effective job spec. `changes` lists each field that differs: path, value of the base, value of
    the variant.
    """

    name: str
    job: EmbeddingJob
    raw: RawSpec
    changes: tuple[tuple[str, Any, Any], ...] = ()


@dataclass(frozen=True)
class StudyRun:
    """One training run: a variant with a seed."""

    variant: str
    seed: int
    job: EmbeddingJob

    @property
    def name(self) -> str:
        return self.job.metadata.name


@dataclass(frozen=True)
class Study:
    """An expanded study. The base is the first variant. Runs are ordered by seed, so that an interrupted study already
    has complete comparisons.
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
    """Read, validate and expand a study; `overrides` are the values of `--set` and change the base.

    `sources_of` returns the sources of a job spec; it is called if a variant leaves sources out. Raises ConfigError
    with the position of the problem.
    """
    raw = read_job_spec(path, holds=_HOLDS, what="a study")
    if raw.value.get("kind") == "EmbeddingJob":
        raise ConfigError(
            f"{raw.place(('kind',))}: kind: found EmbeddingJob, expected Study",
            remedy=f"check a job spec with `f2llm validate {path}`",
        )
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
            f"{base.place(('spec', 'evaluation', 'enabled'))}: evaluation.enabled is false, so the runs have no "
            "metrics to compare",
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
            raise ConfigError(f"{place}: the name {same} is used twice", remedy="use a different name for each variant")
        if same := next((each.name for each in found if each.changes == written.changes), None):
            raise ConfigError(f"{place}: {written.name} is the same as {same}", remedy="remove one of them")
        found.append(written)
    at = {field: study.place(("spec", "grid", field)) for field in spec.grid}
    for cell in _cells(spec.grid):
        written = _changed(_cell_name(cell), base, first, cell, at)
        # A combination that equals the base or a variant is trained once.
        if all(each.changes != written.changes for each in found):
            if any(each.name == written.name for each in found):
                raise ConfigError(
                    f"{study.place(('spec', 'grid'))}: two combinations have the name {written.name}",
                    remedy="write them as variants, with different names",
                )
            found.append(written)
    if len(found) == 1:
        raise ConfigError(
            f"{study.place(('spec', 'grid'))}: every combination equals the base", remedy="add another value to a field"
        )
    return found


def _rest(place: str, variant: Variant, known: Sequence[str]) -> list[str]:
    unknown = [name for name in variant.without_sources if name not in known]
    rest = [name for name in known if name not in variant.without_sources]
    if unknown or not rest or "data.sources" in variant.set_:
        found = (
            f"{unknown[0]} is not a source of the base, which has {', '.join(known)}"
            if unknown
            else "no source remains"
            if not rest
            else "data.sources is also set"
        )
        raise ConfigError(f"{place}: without_sources: {found}", remedy="list some of the sources of the base, not all")
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
        f"{place}: {field} must be the same in all runs of a study, so that they are comparable",
        remedy="change it in the base, or in seeds",
    )


def _cells(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    if grid:
        for values in product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _cell_name(cell: Mapping[str, Any]) -> str:
    """temperature-0-02; for several fields shorter, since Kubernetes limits names: temp-0-02-lr-1e-05."""
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
            f"{study.place(('spec', 'variants'))}: the name {name} of a run has {len(name)} characters, "
            f"expected at most {MAX_NAME_LENGTH}",
            remedy="write the variant under `variants`, with a shorter name",
        )
    raw = set_field(variant.raw, "metadata.name", name, place=study.name)
    return parse_job_spec(set_field(raw, "train.seed", seed, place=study.name))
