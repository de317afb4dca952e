"""Whether a job spec can resume a run directory that another job spec started."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from jobs.spec.job import EmbeddingJob, parse_job_spec
from jobs.spec.yaml12 import read_yaml

# Paths below `spec`. None of them changes the computation of a step, except skip_micro_batches, which leaves
# micro-batches out. The data set can move, since a fingerprint identifies its content.
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
    """One field with different values in two job specs; the path is without `spec.`."""

    path: str
    frozen: Any
    new: Any

    def __str__(self) -> str:
        return f"spec.{self.path}: {value_text(self.frozen)} in the run, {value_text(self.new)} here"


def differences(frozen: EmbeddingJob, new: EmbeddingJob) -> list[Difference]:
    """The fields that differ although they must not, in the order of the job spec.

    Effective values are compared, so that a preset equals the same values written out. Metadata is not compared.
    """
    return [found for found in _all_differences(frozen, new) if not may_change(found.path)]


def changes_from(frozen_yaml: str, new: EmbeddingJob) -> list[Difference]:
    """The fields that differ and are allowed to, from the text of a run directory's job.yaml."""
    return [found for found in all_differences_from(frozen_yaml, new) if may_change(found.path)]


def all_differences_from(frozen_yaml: str, new: EmbeddingJob) -> list[Difference]:
    """All fields that differ, from the text of a run directory's job.yaml. Raises ConfigError if it is invalid."""
    return _all_differences(parse_job_spec(read_yaml(frozen_yaml, "job.yaml of the run directory")), new)


def may_change(path: str) -> bool:
    """Whether a field, given by its path below `spec`, may change between two starts of a run."""
    return any(fnmatchcase(path, pattern) for pattern in MAY_CHANGE)


def differences_from(frozen_yaml: str, new: EmbeddingJob) -> list[Difference]:
    """`differences` from the text of a run directory's job.yaml. Raises ConfigError if it is invalid."""
    return [found for found in all_differences_from(frozen_yaml, new) if not may_change(found.path)]


def compare(jobs: Sequence[EmbeddingJob]) -> list[tuple[str, list[Any]]]:
    """(path, its value in each job spec) of every field that is not the same in all, in the order of the job spec."""
    leaves = [dict(_leaves(_values(each))) for each in jobs]
    found = (
        (path, [each.get(path) for each in leaves]) for path in dict.fromkeys(path for each in leaves for path in each)
    )
    return [(path, values) for path, values in found if any(value != values[0] for value in values)]


def value_text(value: Any) -> str:
    """A value as YAML writes it in a job spec."""
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
