"""What an evaluation found: evaluation/before.json and after.json. Standard library and pydantic only."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_io.storage.store import Store
from ray_app.run_directory.directory import read_text


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RankingMetrics(_Record):
    """Means over the queries of a set, each in 0..1, as trec_eval and MTEB define them."""

    ndcg_at_10: float
    recall_at_10: float


class RelevantDocument(_Record):
    """A document that answers the query, and its grade (above 0). `text` may be cut short."""

    document_id: str
    text: str
    grade: float


class RetrievedDocument(_Record):
    """A document the model ranked high; `grade` is 0 where it is not relevant. `text` may be cut short."""

    document_id: str
    text: str
    score: float
    grade: float


class QueryExample(_Record):
    """One query and what came first for it. The same queries are shown before and after training."""

    query_id: str
    query: str
    relevant: tuple[RelevantDocument, ...]
    retrieved: tuple[RetrievedDocument, ...]
    first_relevant_rank: int | None = Field(description="From 1; null where none is among the first 100 documents.")


class RetrievalResult(_Record):
    """One retrieval set. `bm25` ranks the same corpus for the same queries; null where it was not asked for.

    `by_dims` is the model with only the first so many values of its embeddings.
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
    """One set of scored pairs. `spearman` is null where either side is constant: there is no rank to correlate.

    `by_dims` is that of only the first so many values of the embeddings.
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
        """By set, nDCG@10 of a retrieval set, Spearman's correlation of scored pairs."""
        return {
            each.name: each.model.ndcg_at_10 if isinstance(each, RetrievalResult) else each.spearman or 0.0
            for each in self.sets
        }

    @property
    def mean_score(self) -> float | None:
        """The mean of `scores`, each set counting once; null without sets."""
        scores = self.scores.values()
        return sum(scores) / len(scores) if scores else None

    @property
    def mean_model(self) -> RankingMetrics | None:
        """The model's means, each set counting once; null without retrieval sets."""
        return _mean([result.model for result in self.retrieval])

    def mean_model_by_dims(self) -> dict[int, RankingMetrics]:
        """The same for the first so many values of the embeddings, of each number that every set was measured with."""
        measured = [result.by_dims for result in self.retrieval]
        common = sorted(set.intersection(*(set(each) for each in measured))) if measured else []
        means = {dims: _mean([each[dims] for each in measured]) for dims in common}
        return {dims: mean for dims, mean in means.items() if mean is not None}

    @property
    def mean_bm25(self) -> RankingMetrics | None:
        """BM25's means over the same sets; null where a set has none."""
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
    """What was measured at that moment, None where nothing was."""
    text = read_text(run, f"evaluation/{moment}.json")
    return EvaluationReport.model_validate_json(text) if text else None
