"""The result of an evaluation on tasks, and published scores to compare it with.

Imports only the standard library and pydantic.
"""

from collections.abc import Mapping
from statistics import fmean

from pydantic import BaseModel, ConfigDict, Field

RESULTS = "evaluation/mteb"
"""The directory of task results in a run directory."""
SUMMARY = "summary.json"
"""The file in that directory with the last evaluation, a TaskReport."""
ENGLISH_V2 = "MTEB(eng, v2)"
"""The benchmark of the published scores."""
PUBLISHED_SOURCE = "arXiv 2510.02294, Table 2"
_CATEGORIES = ("Classification", "Clustering", "PairClassification", "Reranking", "Retrieval", "STS", "Summarization")
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    name: dict(zip((*_CATEGORIES, "mean"), figures, strict=True))
    for name, figures in {
        "F2LLM-0.6B": (90.56, 60.36, 81.49, 47.88, 55.70, 82.48, 24.54, 70.03),
        "F2LLM-1.7B": (90.86, 64.13, 83.27, 49.84, 57.83, 83.90, 29.88, 72.01),
        "F2LLM-4B": (91.68, 68.54, 83.75, 50.05, 59.63, 84.20, 33.19, 73.67),
        "Qwen3-Embedding-0.6B": (85.76, 54.05, 84.37, 48.18, 61.83, 86.57, 33.43, 70.70),
        "Qwen3-Embedding-4B": (89.84, 57.51, 87.01, 50.76, 68.46, 88.72, 34.39, 74.60),
    }.items()
}
"""Means over the tasks of each category of MTEB(eng, v2), and over all 41 tasks, times 100."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskScore(_Record):
    """One task. `score`: mteb's main score, named by `metric`; null if the task could not be evaluated."""

    name: str
    type: str
    metric: str
    benchmark: str | None = Field(description="The benchmark that selected the task; null for a task selected by name.")
    score: float | None = None
    before: float | None = Field(None, description="Score of the initial model, before the first step, if evaluated.")
    instruction: str = ""
    seconds: float | None = None
    failure: str | None = Field(None, description="Why the task was not evaluated.")
    remedy: str | None = Field(None, description="How to fix it.")


class Category(_Record):
    """The mean score over the evaluated tasks of one type, times 100. The category `mean` covers tasks of all types."""

    benchmark: str | None = Field(description="The benchmark that selected the tasks; null for tasks selected by name.")
    name: str
    tasks: int
    score: float
    before: float | None
    published: dict[str, float] = Field(description="By model; empty unless all tasks of the category are evaluated.")


class TaskReport(_Record):
    """All tasks of one evaluation, in the requested order."""

    version: int = 1
    model: str
    revision: str
    dimensions: int | None
    results: str = Field(description="Path or URI of mteb's own result files.")
    tasks: tuple[TaskScore, ...]

    @property
    def measured(self) -> tuple[TaskScore, ...]:
        return tuple(task for task in self.tasks if task.score is not None)

    @property
    def failed(self) -> tuple[TaskScore, ...]:
        return tuple(task for task in self.tasks if task.failure is not None)

    def categories(self) -> list[Category]:
        """Rows for each benchmark and for the tasks selected by name: one row per task type and one for all types.

        A row has published scores only if they are for exactly the same tasks.
        """
        rows = []
        for benchmark in dict.fromkeys(task.benchmark for task in self.tasks):
            asked = [task for task in self.tasks if task.benchmark == benchmark]
            types = sorted({task.type for task in asked if task.score is not None})
            rows += [_category(benchmark, name, [task for task in asked if task.type == name]) for name in types]
            rows += [_category(benchmark, "mean", asked)] if types else []
        return rows


def _category(benchmark: str | None, name: str, asked: list[TaskScore]) -> Category:
    scores = [task.score for task in asked if task.score is not None]
    before = [task.before for task in asked if task.before is not None]
    same_tasks = benchmark == ENGLISH_V2 and len(scores) == len(asked)
    return Category(
        benchmark=benchmark,
        name=name,
        tasks=len(scores),
        score=100 * fmean(scores),
        before=100 * fmean(before) if len(before) == len(scores) else None,
        published={model: figures[name] for model, figures in PUBLISHED.items()} if same_tasks else {},
    )
