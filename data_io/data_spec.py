"""The part of the job spec that locates the data set and sets how it is read. Standard library and pydantic only."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_io.errors import ConfigError
from data_io.task import Kind


class Section(BaseModel):
    """A section of the job spec: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class S3Options(Section):
    """Connection to S3-compatible storage. Credentials come from the environment or the identity of the pod or node,
    never from the job spec.
    """

    endpoint_url: str | None = Field(
        None,
        description="URL of the S3 service. null: AWS_ENDPOINT_URL if it is set, or AWS. Set it for MinIO and other "
        "stores.",
    )
    region: str | None = Field(None, description="Region of the bucket. null: AWS_REGION if it is set, or us-east-1.")
    allow_http: bool = Field(False, description="Allow an endpoint without TLS (http://).")


class HardNegatives(Section):
    """Hard negatives per query that a step uses, by task type of the source.

    A step uses those that a row has, if it has fewer (docs/developers/design.md#the-recipe-and-where-we-differ).
    """

    retrieval: Annotated[int, Field(ge=0, le=128)] = Field(
        7, description="Hard negatives per query of retrieval sources. Lower it to save memory and time."
    )
    clustering: Annotated[int, Field(ge=0, le=128)] = Field(
        7, description="Hard negatives per query of clustering sources."
    )
    classification: Annotated[int, Field(ge=0, le=128)] = Field(
        1, description="Hard negatives per query of classification sources."
    )

    def of(self, kind: Kind) -> int:
        return {
            Kind.RETRIEVAL: self.retrieval,
            Kind.CLUSTERING: self.clustering,
            Kind.CLASSIFICATION: self.classification,
        }[kind]


class NodeCacheSpec(Section):
    """A directory on each node that caches data read from the object store."""

    path: str | None = Field(
        None,
        min_length=1,
        description="Cache directory on the node that trains. null: no cache. Set it if the object store is slow or "
        "charges per request.",
    )
    max_bytes: Annotated[int, Field(ge=2**20)] = Field(
        100 * 2**30, description="Most bytes in the cache. The least recently used data are deleted first."
    )


class DataSpec(Section):
    """The data set and how it is read."""

    uri: str = Field(description="Directory or s3:// prefix of a prepared data set, which contains manifest.json.")
    sources: tuple[str, ...] | None = Field(
        None, min_length=1, description="Names of the sources to train on. null: all."
    )
    hard_negatives: HardNegatives = Field(
        default_factory=HardNegatives, description="Hard negatives per query that a step uses, by task type."
    )
    prefetch_steps: Annotated[int, Field(ge=1, le=64)] = Field(
        4,
        description="Optimizer steps whose data are read and tokenized in advance. Raise it if workers wait for data.",
    )
    loader_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        2,
        description="Tokenizer threads per worker; other threads read the data. Raise it if workers wait for data.",
    )
    verify: Literal["always", "never"] = Field(
        "always", description="Whether to check all data against the checksums of the manifest when they are read."
    )
    cache: NodeCacheSpec = Field(
        default_factory=NodeCacheSpec, description="Cache of the data set on the disk of each node."
    )

    def choose(self, known: Sequence[str]) -> tuple[str, ...]:
        """Names of the sources to train on, in the order of the data set, whose sources are `known`.

        Raises ConfigError for a name that the data set does not have, with the closest name that it has.
        """
        for name in self.sources or ():
            if name not in known:
                close = get_close_matches(name, known, n=1, cutoff=0.7)
                raise ConfigError(
                    f"spec.data.sources: {name} is not in the manifest of {self.uri}; "
                    f"the data set has {', '.join(known) or 'no source'}",
                    remedy=f"did you mean `{close[0]}`?"
                    if close
                    else "use one of these names, or remove spec.data.sources to use all",
                )
        return tuple(name for name in known if self.sources is None or name in self.sources)
