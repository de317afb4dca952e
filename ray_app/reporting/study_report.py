"""The results of an ablation study: results.json. Standard library and pydantic only."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CONFIDENCE = 0.95
MEASURES: Mapping[str, str] = {"ndcg_at_10": "nDCG@10", "recall_at_10": "recall@10", "spearman": "Spearman"}
GIVEN_BY: Mapping[str, tuple[str, ...]] = {"retrieval": ("ndcg_at_10", "recall_at_10"), "sts": ("spearman",)}
"""The metrics of each type of held-out set."""


def measure_words(measure: str) -> str:
    """The written name of a metric: nDCG@10, or nDCG@10 of a set."""
    name, _, of = measure.partition("/")
    return f"{MEASURES.get(name, name)} of {of}" if of else MEASURES.get(name, name)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldChange(_Record):
    """A field of the job spec in which a variant differs from the base."""

    path: str
    base: Any
    value: Any


class RunResult(_Record):
    """One run. `measures` is empty until the run has succeeded. `problem` is the reason of a failure."""

    name: str
    seed: int
    phase: str | None = Field(description="Null before the run starts.")
    step: int = 0
    total_steps: int = 0
    loss: float | None = Field(None, description="Mean of the last twentieth of the steps.")
    measures: dict[str, float] = Field(default_factory=dict)
    training_seconds: float = 0.0
    problem: str | None = None


class Spread(_Record):
    """A metric over the seeds of a variant. `sd` is null for one seed."""

    seeds: int
    mean: float
    sd: float | None


class Difference(_Record):
    """Variant minus base in one metric, over their common seeds. `low`, `high` and `p` are null for one seed."""

    seeds: int
    mean: float
    low: float | None
    high: float | None
    p: float | None = Field(description="Of the paired t-test. Also null if all differences are equal.")


class VariantResult(_Record):
    """A variant's runs, in the order of the seeds, and its metrics. The base has no differences."""

    name: str
    changes: tuple[FieldChange, ...]
    runs: tuple[RunResult, ...]
    spreads: dict[str, Spread]
    differences: dict[str, Difference]


class StudyResults(_Record):
    """`results.json`. The metrics are `ndcg_at_10` and `recall_at_10` (means over the held-out retrieval sets),
    `spearman` (mean over the sets of scored pairs), and `ndcg_at_10/<set>` of each retrieval set.
    """

    version: Literal[1] = 1
    name: str
    uri: str
    data_version: str | None = Field(description="Version of the data set that the runs were trained on.")
    metric: str = Field(description="The metric that variants are compared by.")
    confidence: float = Field(CONFIDENCE, description="Confidence of each single interval.")
    seeds: tuple[int, ...]
    variants: tuple[VariantResult, ...] = Field(description="The base is first.")

    @property
    def runs(self) -> tuple[RunResult, ...]:
        return tuple(run for variant in self.variants for run in variant.runs)

    @property
    def finished(self) -> int:
        """The number of evaluated runs."""
        return sum(bool(run.measures) for run in self.runs)
