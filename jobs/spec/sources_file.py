"""The file that `f2llm data prepare files` reads: which of a user's files make a data set, and what they are."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from data_io.data_spec import Section
from data_io.storage.address import without_credentials
from data_io.task import Kind
from jobs.errors import UsageError
from jobs.spec.fields import fields_of
from jobs.spec.job import read_job_spec
from jobs.spec.validation import raise_problems, translate

SourceKind = Literal["retrieval", "clustering", "classification", "sts", "scored"]
_KINDS = (*(kind.value for kind in Kind), "sts", "scored")
MIN_SCORE = 4.0
"""From which score on a pair is one text and its positive, where nothing else is said (arXiv 2510.02294, section 2)."""


class ColumnNames(Section):
    """Which columns hold what, where they have unusual names."""

    query: str | None = Field(None, description="Column of the query; null recognizes the usual names.")
    positive: str | None = Field(None, description="Column of the positive; null recognizes the usual names.")
    negatives: tuple[str, ...] | None = Field(None, description="Columns of hard negatives; null recognizes them.")
    score: str | None = Field(None, description="Column of the score of a pair, for sts and scored.")


class SourceInput(Section):
    """One source, or one set of scored pairs to evaluate on."""

    name: str = Field(description="Name of the source in the data set.")
    address: str = Field(description="A file, a directory or a pattern: JSONL, CSV or Parquet, here or under s3://.")
    kind: SourceKind = Field(
        description="What a positive means; sts is scored pairs to evaluate on, scored is scored pairs to train on."
    )
    instruction: str | None = Field(None, description="What queries are prefixed with; null takes the files' own.")
    license: str = Field("", description="License of the texts; it is shown in the model card.")
    columns: ColumnNames = Field(default_factory=ColumnNames, description="Columns with unusual names.")
    negatives: Annotated[int, Field(ge=0, le=128)] | None = Field(
        None, description="Hard negatives to keep of every row; null keeps as many as every row has."
    )
    mine_lexical: Annotated[int, Field(ge=0, le=128)] = Field(
        0, description="Hard negatives in all, mined by BM25 where a row has fewer; 0 mines none."
    )
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="For scored: pairs of this score and above are trained on, in both directions; null is 4."
    )

    @model_validator(mode="after")
    def _only_scored_pairs_have_a_least_score(self) -> Self:
        if self.min_score is not None and self.kind != "scored":
            raise ValueError(f"min_score={self.min_score:g}, but kind is {self.kind}; remove it, or set kind: scored")
        return self


class SourcesFile(Section):
    """A data set made of files."""

    sources: tuple[SourceInput, ...] = Field(
        min_length=1, description="What the data set is made of: a list, each item with these fields."
    )
    heldout_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.02, description="Part of the queries of each retrieval source that is held out to evaluate on."
    )
    max_heldout_queries: Annotated[int, Field(ge=1)] = Field(1000, description="Most queries held out of one source.")
    tokenizer_vocabulary: Annotated[int, Field(ge=300)] | None = Field(
        None, description="Also train a tokenizer of so many ids, for a model that is built from nothing."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of the order of rows.")

    def sources_as_values(self) -> list[dict[str, Any]]:
        """The sources as plain values, kinds as members of Kind where they are kinds.

        Scored pairs to train on are a retrieval source whose columns have a `min_score`.
        """
        return [_as_values(source) for source in self.sources]


def _as_values(source: SourceInput) -> dict[str, Any]:
    values = source.model_dump(exclude={"min_score"})
    if source.kind == "sts":
        return values
    if source.kind != "scored":
        return values | {"kind": Kind(source.kind)}
    least = MIN_SCORE if source.min_score is None else source.min_score
    return values | {"kind": Kind.RETRIEVAL, "columns": values["columns"] | {"min_score": least}}


def load_sources_file(path: str) -> SourcesFile:
    """Read a YAML or .json file, or `-` for standard input. Raises ConfigError with every problem."""
    raw = read_job_spec(path, holds="sources", what="a sources file (docs/tasks/prepare-data.md)")
    fields = {field.name: field for field in fields_of(SourcesFile)}
    try:
        return SourcesFile.model_validate_json(json.dumps(raw.value), strict=True)
    except ValidationError as error:
        raise_problems(raw.name, translate(error, raw, fields))


def parse_source(
    text: str, *, instruction: str | None, license: str, mine_lexical: int, min_score: float | None = None
) -> SourceInput:
    """`NAME:KIND=ADDRESS` of the command line. Raises UsageError for anything else."""
    what, equals, address = text.partition("=")
    name, colon, kind = what.partition(":")
    if not (equals and colon and name and address) or kind not in _KINDS:
        raise UsageError(
            f"--source {without_credentials(text)}: expected NAME:KIND=ADDRESS with a kind of {', '.join(_KINDS)}",
            remedy="for example --source faq:retrieval=faq.jsonl",
        )
    return SourceInput.model_validate(
        {
            "name": name,
            "address": address,
            "kind": kind,
            "instruction": instruction,
            "license": license,
            # Only where other rows' positives are wrong answers can they be mined as such.
            "mine_lexical": mine_lexical if kind in (Kind.RETRIEVAL, "scored") else 0,
            "min_score": min_score if kind == "scored" else None,
        }
    )
