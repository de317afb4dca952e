"""The part of the document that says where data are and how they are read. Standard library and pydantic only."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_io.errors import ConfigError
from data_io.task import Kind


class Section(BaseModel):
    """A piece of the document: immutable, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class S3Options(Section):
    """How to reach S3-compatible storage. Credentials come from the environment or the node's identity, never from
    here.
    """

    endpoint_url: str | None = Field(
        None, description="Address of the S3 service; null uses AWS_ENDPOINT_URL or AWS itself."
    )
    region: str | None = Field(None, description="Region; null uses AWS_REGION, else us-east-1.")
    allow_http: bool = Field(False, description="Allow an endpoint without TLS.")


class HardNegatives(Section):
    """How many of a row's hard negatives a step uses, by kind (docs/developers/design.md#the-recipe-and-where-we-differ)."""

    retrieval: Annotated[int, Field(ge=0, le=128)] = 7
    clustering: Annotated[int, Field(ge=0, le=128)] = 7
    classification: Annotated[int, Field(ge=0, le=128)] = 1

    def of(self, kind: Kind) -> int:
        return {
            Kind.RETRIEVAL: self.retrieval,
            Kind.CLUSTERING: self.clustering,
            Kind.CLASSIFICATION: self.classification,
        }[kind]


class NodeCacheSpec(Section):
    """A directory of each machine that keeps what was read from the store."""

    path: str | None = Field(
        None, min_length=1, description="Directory on the machine that trains; null keeps nothing."
    )
    max_bytes: Annotated[int, Field(ge=2**20)] = Field(
        100 * 2**30, description="How much it may hold; the least recently used goes first."
    )


class DataSpec(Section):
    """The data set and how much of it is read ahead."""

    uri: str = Field(description="Directory or s3:// prefix of a prepared data set (the one that holds manifest.json).")
    sources: tuple[str, ...] | None = Field(None, min_length=1, description="Sources to train on; null means all.")
    hard_negatives: HardNegatives = Field(
        default_factory=HardNegatives, description="Hard negatives per query in a step."
    )
    prefetch_steps: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="Optimizer steps read and tokenized ahead."
    )
    loader_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Threads per worker that tokenize; others read."
    )
    verify: Literal["always", "never"] = Field(
        "always", description="Check every byte read against the manifest's checksums."
    )
    cache: NodeCacheSpec = Field(
        default_factory=NodeCacheSpec, description="Keep what is read on the machine that reads it."
    )

    def choose(self, known: Sequence[str]) -> tuple[str, ...]:
        """Names of the sources to train on, of those that the data set has, in the data set's order.

        Raises ConfigError for a name it does not have, with the closest one that it has.
        """
        for name in self.sources or ():
            if name not in known:
                close = get_close_matches(name, known, n=1, cutoff=0.7)
                raise ConfigError(
                    f"spec.data.sources: {name} is not in the manifest of {self.uri}; "
                    f"the data set has {', '.join(known) or 'no source'}",
                    remedy=f"did you mean `{close[0]}`?"
                    if close
                    else "name one of those, or leave spec.data.sources out to use all",
                )
        return tuple(name for name in known if self.sources is None or name in self.sources)
