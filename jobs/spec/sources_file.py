"""The sources file of `f2llm data prepare files`: the user's files that form a data set, with their task types."""

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
"""Default lowest score at which a pair counts as a text and its positive (arXiv 2510.02294, section 2)."""


class ColumnNames(Section):
    """Names of the columns, needed only if they are not the usual ones."""

    query: str | None = Field(None, description="Column of the query. null: detected by its name.")
    positive: str | None = Field(None, description="Column of the positive. null: detected by its name.")
    negatives: tuple[str, ...] | None = Field(None, description="Columns of hard negatives. null: detected by name.")
    score: str | None = Field(
        None, description="Column with the score of a pair, for sts and scored. null: detected by its name."
    )


class SourceInput(Section):
    """One source, or one set of scored pairs for evaluation."""

    name: str = Field(description="Name of the source in the data set.")
    address: str = Field(description="File, directory or glob with JSONL, CSV or Parquet, local or under s3://.")
    kind: SourceKind = Field(
        description="Task type of the source, which defines its positives. sts: scored pairs for evaluation; scored: "
        "scored pairs for training."
    )
    instruction: str | None = Field(
        None, description="Instruction that is put before each query. null: that of the files, if they have one."
    )
    license: str = Field("", description="License of the texts, shown in the model card.")
    columns: ColumnNames = Field(
        default_factory=ColumnNames, description="Column names, if they are not the usual ones."
    )
    negatives: Annotated[int, Field(ge=0, le=128)] | None = Field(
        None, description="Hard negatives to keep per row. null: the number that every row has."
    )
    mine_lexical: Annotated[int, Field(ge=0, le=128)] = Field(
        0, description="Hard negatives per row in total; rows with fewer get more, mined with BM25. 0: no mining."
    )
    min_score: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="For scored: lowest score of the pairs to train on, in both directions. null: 4."
    )

    @model_validator(mode="after")
    def _only_scored_pairs_have_a_least_score(self) -> Self:
        if self.min_score is not None and self.kind != "scored":
            raise ValueError(
                f"min_score={self.min_score:g}, but kind is {self.kind}; remove min_score, or set kind: scored"
            )
        return self


class SourcesFile(Section):
    """A data set from files."""

    sources: tuple[SourceInput, ...] = Field(
        min_length=1, description="List of the sources; each item has these fields."
    )
    heldout_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.02, description="Share of the queries of each retrieval source that is held out for evaluation. 0: none."
    )
    max_heldout_queries: Annotated[int, Field(ge=1)] = Field(1000, description="Most held-out queries per source.")
    tokenizer_vocabulary: Annotated[int, Field(ge=300)] | None = Field(
        None,
        description="Vocabulary size of a tokenizer to train on the data, for a model that is trained from scratch. "
        "null: no tokenizer.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="Seed of the row order.")

    def sources_as_values(self) -> list[dict[str, Any]]:
        """The sources as plain values, with `kind` as a member of Kind except for `sts`.

        Scored pairs for training become a retrieval source whose columns have a `min_score`.
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
    raw = read_job_spec(path, holds="sources", what="a sources file (`f2llm explain --kind Sources`)")
    fields = {field.name: field for field in fields_of(SourcesFile)}
    try:
        return SourcesFile.model_validate_json(json.dumps(raw.value), strict=True)
    except ValidationError as error:
        raise_problems(raw.name, translate(error, raw, fields))


def parse_source(
    text: str, *, instruction: str | None, license: str, mine_lexical: int, min_score: float | None = None
) -> SourceInput:
    """Parse `NAME:KIND=PATH` of the command line. Raises UsageError for any other form."""
    what, equals, address = text.partition("=")
    name, colon, kind = what.partition(":")
    if not (equals and colon and name and address) or kind not in _KINDS:
        raise UsageError(
            f"--source {without_credentials(text)}: expected NAME:KIND=PATH, with KIND one of {', '.join(_KINDS)}",
            remedy="for example --source faq:retrieval=faq.jsonl",
        )
    return SourceInput.model_validate(
        {
            "name": name,
            "address": address,
            "kind": kind,
            "instruction": instruction,
            "license": license,
            # Negatives can be mined only if the positives of other rows are wrong answers.
            "mine_lexical": mine_lexical if kind in (Kind.RETRIEVAL, "scored") else 0,
            "min_score": min_score if kind == "scored" else None,
        }
    )
