"""The result of an evaluation: evaluation/before.json and after.json.

Imports only the standard library, pydantic and the store.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from data_io.bounded_json import read_model
from data_io.errors import DataError
from data_io.storage.store import Store
from ray_app.run_directory.directory import read_text

Record = TypeVar("Record", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RankingMetrics(_Record):
    """Means over the queries of a set, between 0 and 1, as defined by trec_eval and MTEB."""

    ndcg_at_10: float
    recall_at_10: float


class RelevantDocument(_Record):
    """A document that answers the query, and its grade (above 0). `text` can be truncated."""

    document_id: str
    text: str
    grade: float


class RetrievedDocument(_Record):
    """A document that the model ranked high. `grade` is 0 if it is not relevant. `text` can be truncated."""

    document_id: str
    text: str
    score: float
    grade: float


class QueryExample(_Record):
    """One query and its top results. The same queries are shown before and after training."""

    query_id: str
    query: str
    relevant: tuple[RelevantDocument, ...]
    retrieved: tuple[RetrievedDocument, ...]
    first_relevant_rank: int | None = Field(description="From 1; null if none is among the first 100 documents.")


class RetrievalResult(_Record):
    """One retrieval set. `bm25`: BM25 on the same corpus and queries; null if it was not requested.

    `by_dims`: the model's metrics with truncated embeddings, by number of first values.
    """

    type: Literal["retrieval"] = "retrieval"
    name: str
    instruction: str
    queries: int
    documents: int
    model: RankingMetrics
    bm25: RankingMetrics | None
    by_dims: dict[int, RankingMetrics] = Field(default_factory=dict)
    examples: tuple[QueryExample, ...]
    seconds: float


class StsResult(_Record):
    """One set of scored pairs. `spearman` is null if one side is constant, because ranks cannot be correlated then.

    `by_dims`: the same with truncated embeddings, by number of first values.
    """

    type: Literal["sts"] = "sts"
    name: str
    instruction: str
    pairs: int
    spearman: float | None
    by_dims: dict[int, float | None] = Field(default_factory=dict)
    seconds: float


class EvaluationReport(_Record):
    """All sets of a data set, in the manifest's order."""

    version: Literal[1] = 1
    sets: tuple[Annotated[RetrievalResult | StsResult, Field(discriminator="type")], ...]

    @property
    def retrieval(self) -> tuple[RetrievalResult, ...]:
        return tuple(result for result in self.sets if isinstance(result, RetrievalResult))

    @property
    def sts(self) -> tuple[StsResult, ...]:
        return tuple(result for result in self.sets if isinstance(result, StsResult))

    @property
    def scores(self) -> dict[str, float]:
        """One score per set: nDCG@10 for retrieval, Spearman's correlation for scored pairs."""
        return {
            each.name: each.model.ndcg_at_10 if isinstance(each, RetrievalResult) else each.spearman or 0.0
            for each in self.sets
        }

    @property
    def mean_score(self) -> float | None:
        """The mean of `scores`, with equal weight per set; None without sets."""
        scores = self.scores.values()
        return sum(scores) / len(scores) if scores else None

    @property
    def mean_model(self) -> RankingMetrics | None:
        """The model's means, with equal weight per set; None without retrieval sets."""
        return _mean([result.model for result in self.retrieval])

    def mean_model_by_dims(self) -> dict[int, RankingMetrics]:
        """The same with truncated embeddings, for each number of first values that all sets were evaluated with."""
        measured = [result.by_dims for result in self.retrieval]
        common = sorted(set.intersection(*(set(each) for each in measured))) if measured else []
        means = {dims: _mean([each[dims] for each in measured]) for dims in common}
        return {dims: mean for dims, mean in means.items() if mean is not None}

    @property
    def mean_bm25(self) -> RankingMetrics | None:
        """BM25's means over the same sets; None if a set has no BM25 result."""
        baselines = [result.bm25 for result in self.retrieval if result.bm25 is not None]
        return _mean(baselines) if len(baselines) == len(self.retrieval) else None


def _mean(metrics: list[RankingMetrics]) -> RankingMetrics | None:
    if not metrics:
        return None
    return RankingMetrics(
        ndcg_at_10=sum(each.ndcg_at_10 for each in metrics) / len(metrics),
        recall_at_10=sum(each.recall_at_10 for each in metrics) / len(metrics),
    )


Moment = Literal["before", "after"]


def read_evaluation(run: Store, moment: Moment) -> EvaluationReport | None:
    """The evaluation at that moment; None if it was not done. Raises DataError if the file is damaged."""
    return read_record(run, f"evaluation/{moment}.json", EvaluationReport)


def read_record(run: Store, key: str, kind: type[Record]) -> Record | None:
    """A result in a run directory; None if the file does not exist. Raises DataError if it is damaged."""
    text = read_text(run, key)
    try:
        return read_model(kind, text) if text else None
    except ValueError as error:
        raise DataError(
            f"{run.uri}/{key} is damaged: it is not the result of an evaluation",
            remedy="remove it, and evaluate the run again with `f2llm evaluate`",
        ) from error
