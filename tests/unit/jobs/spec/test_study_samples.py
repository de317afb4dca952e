"""The studies of docs/studies."""

from pathlib import Path

import pytest

from jobs.spec.job import EmbeddingJob
from jobs.spec.study import load_study

FOLDER = Path(__file__).parents[4] / "docs" / "studies"


def no_sources(_job: EmbeddingJob) -> tuple[str, ...]:
    return ()


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_a_study_is_valid_and_compares_every_variant_with_three_seeds(
    path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project_root)

    study = load_study(str(path), sources_of=no_sources)

    assert len(study.seeds) == 3
    assert len(study.variants) >= 5
    assert len({run.name for run in study.runs}) == len(study.runs) == 3 * len(study.variants)
    assert len({run.job.to_yaml() for run in study.runs}) == len(study.runs)


def test_the_recipes_ablations_change_one_field_or_the_negatives_of_all_kinds(
    project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project_root)

    study = load_study("docs/studies/recipe.yaml", sources_of=no_sources)

    assert {each.name: [path for path, *_ in each.changes] for each in study.variants[1:]} == {
        "no-hard-negatives": [f"data.hard_negatives.{kind}" for kind in ("retrieval", "clustering", "classification")],
        "no-in-batch": ["train.in_batch"],
        "in-batch-of-micro-batch": ["train.in_batch"],
        "one-source-a-step": ["train.step_source"],
        "mixed-micro-batches": ["train.step_source"],
        "token-deletion": ["train.token_deletion"],
        "uniform-sampling": ["train.source_sampling"],
    }
