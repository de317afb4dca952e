"""What a study makes of the run directories that it finds, before anything is started."""

import json
from pathlib import Path

import pytest
import yaml

from data_io.dataset.evaluation_sets import StsSet
from data_io.dataset.manifest import SourceInfo
from data_io.dataset.writer import Row, write_dataset
from data_io.storage.store import Store, open_store
from data_io.task import Kind
from jobs.errors import ConfigError
from jobs.spec.study import Study, load_study
from jobs.workflows.study import StudyRecords, run_study, study_data
from ray_app.errors import RunConflict
from ray_app.reporting.run_record import DataFacts
from ray_app.run_directory.directory import write_status
from ray_app.run_directory.evaluation_report import EvaluationReport, RankingMetrics, RetrievalResult
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.calling import Run, caller
from tests.support.small_training import small_job_spec, write_job_spec, write_small_dataset


@pytest.fixture
def f2llm(capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A study of a base and a variant with two seeds, on a small data set."""
    write_small_dataset(open_store(str(tmp_path / "data")))
    job_spec = {
        "apiVersion": "f2llm.dev/v1alpha1",
        "kind": "Study",
        "metadata": {"name": "study"},
        "spec": {
            "base": small_job_spec(str(tmp_path / "data"), str(tmp_path / "runs")),
            "variants": [{"name": "off", "set": {"train.in_batch": "off"}}],
            "seeds": [0, 1],
        },
    }
    return write_job_spec(tmp_path / "study.yaml", job_spec)


def change(path: Path, **spec: object) -> None:
    """Set fields of the study in the file."""
    job_spec = yaml.safe_load(path.read_text())
    job_spec["spec"] |= spec
    write_job_spec(path, job_spec)


def loaded(path: Path, *overrides: str) -> Study:
    return load_study(str(path), overrides=overrides, sources_of=lambda job: ())


def write_run(study: Study, number: int, *, ndcg: float | None, version: str | None = None) -> Store:
    """The `number`-th run of a study, as training leaves it; None where it was stopped before the end."""
    run = study.runs[number]
    place = open_store(run.job.run_uri)
    place.put("job.yaml", run.job.to_yaml().encode())
    facts = DataFacts(version=version or study_data(study).version, sources=())
    place.put("data.json", facts.model_dump_json().encode())
    if ndcg is not None:
        metrics = RankingMetrics(ndcg_at_10=ndcg, recall_at_10=ndcg)
        found = RetrievalResult(
            name="held-out", instruction="", queries=9, documents=9, model=metrics, bm25=None, examples=(), seconds=1.0
        )
        place.put("evaluation/after.json", EvaluationReport(sets=(found,)).model_dump_json().encode())
    phase = Phase.STOPPED if ndcg is None else Phase.SUCCEEDED
    write_status(place, RunStatus(name=run.name, phase=phase, step=3, total_steps=40))
    return place


def test_a_dry_run_lists_every_run_with_what_it_takes_and_where_it_stands(f2llm: Run, path: Path) -> None:
    study = loaded(path)
    write_run(study, 0, ndcg=0.5)
    write_run(study, 1, ndcg=None)

    code, out, _ = f2llm("ablate", str(path), "--dry-run")
    _, text, _ = f2llm("ablate", str(path), "--dry-run", "--json")

    assert code == 0
    assert [line.split()[0::3] for line in out.splitlines()[1:5]] == [
        ["base-seed-0", "finished"], ["off-seed-0", "begun"], ["base-seed-1", "new"], ["off-seed-1", "new"],
    ]  # fmt: skip
    assert "3 of 4 runs to train: 120 steps" in out
    assert not Path(study.uri, "results.json").exists()
    assert [run["steps"] for run in json.loads(text)["runs"]] == [40, 40, 40, 40]


def test_prices_of_all_runs_together_are_told_before_anything_is_started(
    f2llm: Run, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "prices.yaml").write_text("H100: 2.0\n")

    code, out, _ = f2llm("ablate", str(path), "--dry-run", "--json", "--prices", f"{tmp_path}/prices.yaml")
    _, one, _ = f2llm("plan", str(job_of(path, tmp_path)), "--json", "--prices", f"{tmp_path}/prices.yaml")
    useless, _, _ = f2llm("ablate", str(path), "--prices", f"{tmp_path}/prices.yaml")

    assert (code, useless) == (0, 2)
    assert json.loads(out)["costs"][0]["cost"] == pytest.approx(4 * json.loads(one)["costs"][0]["cost"])


def job_of(path: Path, folder: Path) -> Path:
    return write_job_spec(folder / "job.yaml", yaml.safe_load(path.read_text())["spec"]["base"])


def test_a_run_of_another_job_spec_or_other_data_is_refused_naming_what_differs(path: Path) -> None:
    study = loaded(path)
    place = write_run(study, 0, ndcg=0.5)
    StudyRecords(study).refuse_others(study_data(study))

    with pytest.raises(RunConflict, match=r"train\.weight_decay: 0\.01 in the run, 0\.5 here"):
        StudyRecords(loaded(path, "train.weight_decay=0.5")).refuse_others(study_data(study))
    with pytest.raises(RunConflict, match=r"evaluation\.max_queries: null in the run, 3 here"):
        StudyRecords(loaded(path, "evaluation.max_queries=3")).refuse_others(study_data(study))
    StudyRecords(loaded(path, "workers.replicas=2")).refuse_others(study_data(study))  # which changes no result
    place.put("data.json", DataFacts(version="another", sources=()).model_dump_json().encode())
    with pytest.raises(RunConflict, match="data set: version another in the run"):
        StudyRecords(study).refuse_others(study_data(study))


def test_a_metric_that_no_held_out_set_gives_is_refused_before_anything_is_trained(path: Path, tmp_path: Path) -> None:
    source = SourceInfo(name="answers", kind=Kind.RETRIEVAL, negatives=0)
    pairs = StsSet("pairs", "", ["a", "b"], ["a!", "c"], [5.0, 0.0])
    write_dataset(open_store(str(tmp_path / "pairs")), [(source, [Row("a", "b", ())])], [pairs])
    only_pairs = f"data.uri={tmp_path}/pairs"

    with pytest.raises(ConfigError, match="no held-out set with the metric ndcg_at_10") as found:
        run_study(loaded(path, only_pairs), parallel=1, say=lambda text: None)
    change(path, metric="spearman")

    assert found.value.remedy is not None
    assert "metric: spearman" in found.value.remedy
    assert study_data(loaded(path, only_pairs)).metrics == ("spearman",)
    assert study_data(loaded(path)).metrics == ("ndcg_at_10", "recall_at_10", "spearman")


def test_a_run_with_a_damaged_evaluation_is_evaluated_again_not_trained(path: Path) -> None:
    study = loaded(path)
    place = write_run(study, 0, ndcg=0.5)
    place.put("evaluation/after.json", b'{"sets": [')

    records = StudyRecords(study)

    assert records.state(study.runs[0]) == "not evaluated"
    assert records.results().finished == 0


def test_results_and_page_are_written_from_the_finished_runs(path: Path) -> None:
    study = loaded(path)
    for number, ndcg in enumerate((0.5, 0.4, 0.6)):
        write_run(study, number, ndcg=ndcg)

    found = StudyRecords(study).write()

    assert found.variants[1].differences["ndcg_at_10"].mean == pytest.approx(-0.1)
    assert json.loads(Path(study.uri, "results.json").read_text())["variants"][0]["spreads"]["ndcg_at_10"]["seeds"] == 2
    assert "3 of 4 runs are finished" in Path(study.uri, "study.html").read_text()
