"""Whether a document may go on with a run directory that another document started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jobs.spec.job import EmbeddingJob, parse_job_spec
from jobs.spec.yaml12 import read_yaml
from ray_app.errors import RunConflict

# Paths below `spec`. None of them changes what a step computes, except that a step may be told to leave micro-batches
# out; the data set may move, for its content has a fingerprint.
MAY_CHANGE: frozenset[str] = frozenset(
    {
        "workers.*",
        "checkpoint.*",
        "evaluation.*",
        "storage.*",
        "data.uri",
        "data.prefetch_steps",
        "data.loader_threads",
        "data.verify",
        "data.cache.*",
        "model.attn_implementation",
        "train.record_examples",
        "train.skip_micro_batches",
        "suspend",
        "cluster.*",
    }
)


@dataclass(frozen=True)
class Difference:
    """One field that two documents give another value; the path is without `spec.`."""

    path: str
    frozen: Any
    new: Any

    def __str__(self) -> str:
        return f"spec.{self.path}: {value_text(self.frozen)} there, {value_text(self.new)} here"


def differences(frozen: EmbeddingJob, new: EmbeddingJob) -> list[Difference]:
    """The fields that differ and may not, in the document's order.

    Effective values are compared, so that a preset and the same values written out are one. Metadata is not compared.
    """
    return [found for found in _all_differences(frozen, new) if not may_change(found.path)]


def changes_from(frozen_yaml: str, new: EmbeddingJob) -> list[Difference]:
    """The fields that differ and may, from the text of a run directory's job.yaml."""
    return [found for found in all_differences_from(frozen_yaml, new) if may_change(found.path)]


def all_differences_from(frozen_yaml: str, new: EmbeddingJob) -> list[Difference]:
    """Every field that differs, from the text of a run directory's job.yaml. Raises ConfigError where that is none."""
    return _all_differences(parse_job_spec(read_yaml(frozen_yaml, "job.yaml of the run directory")), new)


def may_change(path: str) -> bool:
    """Whether a field, by its path below `spec`, may differ between two starts of one run."""
    return any(fnmatchcase(path, pattern) for pattern in MAY_CHANGE)


def differences_from(frozen_yaml: str, new: EmbeddingJob) -> list[Difference]:
    """`differences` from the text of a run directory's job.yaml. Raises ConfigError where that is no document."""
    return [found for found in all_differences_from(frozen_yaml, new) if not may_change(found.path)]


def refuse_differences(frozen_yaml: str, new: EmbeddingJob, *, run_uri: str) -> None:
    """Raises RunConflict that names every field in which the new document may not differ."""
    if found := differences_from(frozen_yaml, new):
        lines = "".join(f"\n  {difference}" for difference in found)
        raise RunConflict(
            f"{run_uri}: this run was started by a document that says something else:{lines}",
            remedy="give the new document another metadata.name, or write "
            f"{found[0].path}: {value_text(found[0].frozen)}",
        )


def compare(documents: Sequence[EmbeddingJob]) -> list[tuple[str, list[Any]]]:
    """(path, its value in each document) of every field that is not the same in all, in the document's order."""
    leaves = [dict(_leaves(_values(each))) for each in documents]
    found = (
        (path, [each.get(path) for each in leaves]) for path in dict.fromkeys(path for each in leaves for path in each)
    )
    return [(path, values) for path, values in found if any(value != values[0] for value in values)]


def value_text(value: Any) -> str:
    """A value as it stands in a document."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _all_differences(frozen: EmbeddingJob, new: EmbeddingJob) -> list[Difference]:
    return [Difference(path, before, after) for path, (before, after) in compare((frozen, new))]


def _values(job: EmbeddingJob) -> dict[str, Any]:
    return job.spec.model_dump(mode="json", exclude={"preset"})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
