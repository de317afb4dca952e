"""What an ablation study found: results.json. Standard library and pydantic only."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CONFIDENCE = 0.95
MEASURES: Mapping[str, str] = {"ndcg_at_10": "nDCG@10", "recall_at_10": "recall@10", "spearman": "Spearman"}
GIVEN_BY: Mapping[str, tuple[str, ...]] = {"retrieval": ("ndcg_at_10", "recall_at_10"), "sts": ("spearman",)}
"""The measures of each type of held-out set."""


def measure_words(measure: str) -> str:
    """A measure as people write it: nDCG@10, nDCG@10 of a set."""
    name, _, of = measure.partition("/")
    return f"{MEASURES.get(name, name)} of {of}" if of else MEASURES.get(name, name)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldChange(_Record):
    """A field of the document in which a variant differs from the base."""

    path: str
    base: Any
    value: Any


class RunResult(_Record):
    """One run. `measures` is empty until it has ended well; `problem` says why it failed."""

    name: str
    seed: int
    phase: str | None = Field(description="Null before it was started.")
    step: int = 0
    total_steps: int = 0
    loss: float | None = Field(None, description="Mean of the last twentieth of the steps.")
    measures: dict[str, float] = Field(default_factory=dict)
    training_seconds: float = 0.0
    problem: str | None = None


class Spread(_Record):
    """A measure over the seeds of a variant; `sd` is null where there is one."""

    seeds: int
    mean: float
    sd: float | None


class Difference(_Record):
    """Variant minus base in one measure, over the seeds that both have; null where there is one seed."""

    seeds: int
    mean: float
    low: float | None
    high: float | None
    p: float | None = Field(description="Of the paired t-test; null too where all differences are the same.")


class VariantResult(_Record):
    """A variant's runs, in the order of the seeds, and its measures; the base has no differences."""

    name: str
    changes: tuple[FieldChange, ...]
    runs: tuple[RunResult, ...]
    spreads: dict[str, Spread]
    differences: dict[str, Difference]


class StudyResults(_Record):
    """`results.json`. Measures are `ndcg_at_10` and `recall_at_10`, means over the held-out retrieval sets, `spearman`
    over scored pairs, and `ndcg_at_10/<set>` of each set.
    """

    version: Literal[1] = 1
    name: str
    uri: str
    data_version: str | None = Field(description="Of the data set that the runs were trained on.")
    metric: str = Field(description="The measure that variants are compared by.")
    confidence: float = Field(CONFIDENCE, description="Of every interval by itself.")
    seeds: tuple[int, ...]
    variants: tuple[VariantResult, ...] = Field(description="The base first.")

    @property
    def runs(self) -> tuple[RunResult, ...]:
        return tuple(run for variant in self.variants for run in variant.runs)

    @property
    def finished(self) -> int:
        """Runs that have been measured."""
        return sum(bool(run.measures) for run in self.runs)
