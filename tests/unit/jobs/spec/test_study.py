"""A study file, and the runs into which it expands."""

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ConfigError
from jobs.spec.job import EmbeddingJob
from jobs.spec.study import Study, load_study
from jobs.spec.yaml12 import write_yaml
from tests.support.job_specs import job_spec

SOURCES = ("answers", "groups", "parity")


def study_spec(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "f2llm.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "study"},
        "spec": {"base": job_spec({"storage": {"uri": "s3://bucket/runs"}}), "seeds": [0, 1], **spec},
    }


def sources_of(job: EmbeddingJob) -> tuple[str, ...]:
    return job.spec.data.choose(SOURCES)


def load(folder: Path, *overrides: str, **spec: Any) -> Study:
    path = folder / "study.yaml"
    path.write_text(write_yaml(study_spec(**spec)), encoding="utf-8")
    return load_study(str(path), overrides=overrides, sources_of=sources_of)


def problem(folder: Path, **spec: Any) -> str:
    with pytest.raises(ConfigError) as found:
        load(folder, **spec)
    return str(found.value)


def test_every_variant_is_trained_with_every_seed_and_differs_only_in_its_fields(tmp_path: Path) -> None:
    variants = [{"name": "off", "set": {"train.in_batch": "off", "data.hard_negatives.retrieval": 0}}]

    study = load(tmp_path, variants=variants)

    assert [(run.variant, run.seed, run.job.spec.train.seed) for run in study.runs] == [
        ("base", 0, 0), ("off", 0, 0), ("base", 1, 1), ("off", 1, 1),
    ]  # fmt: skip
    assert study.runs[1].job.run_uri == "s3://bucket/runs/study/runs/off-seed-0"
    assert study.variants[1].changes == (("data.hard_negatives.retrieval", 7, 0), ("train.in_batch", "step", "off"))
    assert study.runs[3].job.spec.train.in_batch == "off"
    assert study.runs[2].job.spec == study.base.spec.model_copy(
        update={"train": study.base.spec.train.model_copy(update={"seed": 1})}
    )


def test_a_grid_is_every_combination_and_the_base_is_not_trained_twice(tmp_path: Path) -> None:
    study = load(tmp_path, grid={"train.temperature": [0.02, 0.05], "train.in_batch": ["step", "off"]})

    assert [variant.name for variant in study.variants] == [
        "base", "temp-0-02-ib-step", "temp-0-02-ib-off", "temp-0-05-ib-off",
    ]  # fmt: skip


def test_a_variant_without_a_source_trains_on_the_others(tmp_path: Path) -> None:
    study = load(tmp_path, variants=[{"name": "less", "without_sources": ["groups"]}])

    assert study.variants[1].job.spec.data.sources == ("answers", "parity")


def test_the_base_can_be_a_file_and_overrides_change_it(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(write_yaml(job_spec()), encoding="utf-8")

    study = load(tmp_path, "train.epochs=5", base=str(tmp_path / "job.yaml"), grid={"train.temperature": [1]})

    assert {run.job.spec.train.epochs for run in study.runs} == {5}
    assert study.variants[1].changes == (("train.temperature", 0.05, 1.0),)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "the study has no variants and no grid"),
        ({"variants": [{"name": "x", "set": {"train.in_bath": "off"}}]}, "train.in_bath: unknown field"),
        ({"variants": [{"name": "x", "set": {"train.in_batch": "of"}}]}, "found `of` (a string), expected one of step"),
        ({"variants": [{"name": "x", "set": {"train.in_batch": "step"}}]}, "x is the same as the base"),
        ({"variants": [{"name": "x", "set": {"train.seed": 5}}]}, "train.seed must be the same in all runs of a study"),
        ({"variants": [{"name": "x", "set": {"data.uri": "other"}}]}, "data.uri must be the same in all runs"),
        ({"variants": [{"name": "x", "set": {"metadata.name": "y"}}]}, "metadata.name must be the same in all runs"),
        ({"variants": [{"name": "base", "set": {"train.epochs": 1}}]}, "the name base is used twice"),
        ({"variants": [{"name": n, "set": {"train.epochs": 1}} for n in "xy"]}, "y is the same as x"),
        ({"variants": [{"name": "x", "without_sources": ["nosuch"]}]}, "nosuch is not a source of the base"),
        ({"variants": [{"name": "x", "without_sources": list(SOURCES)}]}, "no source remains"),
        ({"variants": [{"name": "x" * 39, "set": {"train.epochs": 1}}]}, "has 46 characters, expected at most 40"),
        ({"grid": {"train.temperature": []}}, "grid.train.temperature has no value"),
        ({"grid": {"train.temperature": [0.05]}}, "every combination equals the base"),
        ({"grid": {"train.temperature": [0.1]}, "seeds": [1, 1]}, "contains a seed twice"),
        ({"grid": {"train.temperature": [0.1]}, "seeds": []}, "below 2^63, at least 1 of them"),
        (
            {"base": job_spec({"evaluation": {"enabled": False}}), "grid": {"train.epochs": [1]}},
            "the runs have no metrics to compare",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_line_and_column(
    tmp_path: Path, spec: dict[str, Any], says: str
) -> None:
    said = problem(tmp_path, **spec)

    assert says in said
    assert "study.yaml" in said
