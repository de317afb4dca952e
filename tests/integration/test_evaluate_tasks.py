"""mteb on six real tasks, one of each type: scores equal those of sentence-transformers, and a kill loses one task."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_io.demo.docstrings import Deduplicator, Docstring, Limits, read_package
from data_io.demo.packages import installed_packages
from data_io.evaluation.mteb import BENCHMARK
from data_io.evaluation.own_sets import read_own
from data_io.evaluation.task import OwnTask, parse_task
from data_io.storage.store import open_store
from ray_app.evaluation.tasks import evaluate_tasks, find_tasks
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import find_exported
from ray_app.run_directory.task_report import TaskReport
from tests.support.command import Running, f2llm
from tests.support.exported import export_small_model
from tests.support.own_tasks import write_tasks
from tests.support.small_training import read_lines, small_job_spec, write_job_spec, write_small_dataset

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning"),
]


@pytest.fixture(scope="module")
def docs() -> list[Docstring]:
    seen, limits = Deduplicator(), Limits(per_package=120, body_max=300)
    packages = installed_packages(("networkx", "numpy", "pandas"))
    return [d for p in packages for d in read_package(p.name, p.root, limits=limits, seen=seen)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, docs: list[Docstring]) -> Path:
    """small/, an exported model, and tasks/."""
    out = tmp_path_factory.mktemp("evaluation")
    export_small_model(out / "small", [d.text for d in docs])
    return out


@pytest.fixture(scope="module")
def names(folder: Path, docs: list[Docstring]) -> list[str]:
    return write_tasks(docs, folder / "tasks")


@pytest.fixture(scope="module")
def report(folder: Path, names: list[str]) -> TaskReport:
    return evaluate(folder, names, "out")


def evaluate(folder: Path, names: list[str], out: str, **options: Any) -> TaskReport:
    model = find_exported(open_store(str(folder / "small")))
    return evaluate_tasks(model, names, results=open_store(str(folder / out)), **options)


def result_files(out: Path) -> dict[str, int]:
    """Tasks that have an mteb result, and when it was written."""
    found = out.glob("results/*/*/*.json")
    return {path.stem: path.stat().st_mtime_ns for path in found if path.name != "model_meta.json"}


def test_scores_are_those_of_sentence_transformers_on_the_exported_model(
    folder: Path, names: list[str], report: TaskReport
) -> None:
    expected = dict(plain_scores(folder / "small", names, {task.name: task.instruction for task in report.tasks}))

    found = {task.name: task.score for task in report.tasks}

    assert {task.type for task in report.tasks} == {
        "Retrieval", "Reranking", "Classification", "Clustering", "STS", "PairClassification",
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-4)
    assert len({round(value, 4) for value in expected.values()}) == 6


def plain_scores(model: Path, names: list[str], instructions: dict[str, str]) -> Iterator[tuple[str, float]]:
    """Scores of the directory by mteb and sentence-transformers alone; only the tasks' texts are ours."""
    import mteb
    from mteb.models import ModelMeta
    from mteb.models.instruct_wrapper import InstructSentenceTransformerModel

    from ray_app.evaluation.own_tasks import own_task

    plain = InstructSentenceTransformerModel(
        str(model), revision="plain", instruction_template="Instruct: {instruction}\nQuery: ",
        apply_instruction_to_passages=False, prompts_dict=instructions, device="cpu",
    )  # fmt: skip
    plain.mteb_model_meta = ModelMeta.create_empty({"name": "plain/model", "revision": "plain"})
    for name in names:
        task = parse_task(name)
        assert isinstance(task, OwnTask)
        own = own_task(read_own(task), task.kind, origin=task.address)
        (result,) = mteb.evaluate(plain, own, cache=None, co2_tracker=False, show_progress_bar=False).task_results
        yield task.name, float(result.get_score())


def test_tasks_in_the_job_spec_are_evaluated_before_and_after_training(
    folder: Path, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task needs a network: the run finishes anyway, and reports the missing task."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data, runs = tmp_path / "data", tmp_path / "runs"
    write_small_dataset(open_store(str(data)))
    job_spec = small_job_spec(str(data), str(runs), epochs=1)
    job_spec["spec"]["evaluation"] = {"tasks": [names[0], "STS12", "held-out"]}

    done = f2llm("run", write_job_spec(tmp_path / "job.yaml", job_spec), "--quiet")

    assert done.returncode == 0, done.stderr
    assert "tasks: 3 of 4 evaluated, mean " in done.stdout
    run = runs / "small"
    found = TaskReport.model_validate_json((run / "evaluation" / "mteb" / "summary.json").read_text())
    assert [task.name for task in found.failed] == ["STS12"]
    assert any(task.before != task.score for task in found.measured)
    assert all(task.before is not None for task in found.measured)
    (event,) = [line for line in read_lines(run / "events.jsonl") if line["event"] == "TasksNotMeasured"]
    assert list(event["tasks"]) == ["STS12"]
    own = parse_task(names[0])
    assert isinstance(own, OwnTask)
    assert f"| {own.name}" in (run / "model" / "README.md").read_text().replace("\\_", "_")
    assert f"<td>{own.name}</td>" in (run / "report.html").read_text()
    # The command reuses them without changes.
    again = evaluate_tasks(
        find_exported(open_store(str(run))), [names[0]], results=open_store(str(run / "evaluation" / "mteb"))
    )
    assert again.tasks[0].score == next(task.score for task in found.tasks if task.name == own.name)
    assert len(result_files(run / "evaluation" / "mteb")) == 3


def test_an_unknown_task_is_refused_before_the_run_begins(names: list[str], tmp_path: Path) -> None:
    data, runs = tmp_path / "data", tmp_path / "runs"
    write_small_dataset(open_store(str(data)))
    job_spec = small_job_spec(str(data), str(runs))
    job_spec["spec"]["evaluation"] = {"tasks": [names[0], "NoSuchTask"]}

    done = f2llm("run", write_job_spec(tmp_path / "job.yaml", job_spec))

    assert done.returncode == 3
    assert "NoSuchTask" in done.stderr
    assert not (runs / "small").exists()


def test_results_are_mtebs_own_files(folder: Path, report: TaskReport) -> None:
    from mteb.cache import ResultCache

    (loaded,) = ResultCache(folder / "out").load_results(validate_and_filter=False).model_results

    assert {result.task_name: result.get_score() for result in loaded.task_results} == pytest.approx(
        {task.name: task.score for task in report.tasks}
    )
    assert (loaded.model_name, loaded.model_revision) == ("f2llm-ray/small", report.revision)
    (settings,) = folder.glob("out/results/*/*/run_settings.jsonl")
    assert len(settings.read_text().splitlines()) == 6


def test_a_task_is_evaluated_again_only_if_its_texts_or_settings_changed(folder: Path, names: list[str]) -> None:
    (sts,) = [name for name in names if ":sts=" in name]
    out = folder / "again"
    first = evaluate(folder, [sts], "again")
    before = result_files(out)

    same = evaluate(folder, [sts], "again")
    assert same.tasks[0].score == first.tasks[0].score
    assert result_files(out) == before

    short = evaluate(folder, [sts], "again", cut=Cut(8))
    asked = evaluate(folder, [sts], "again", instructions={"docs_sts": "Other."})
    assert len({round(r.tasks[0].score or 0, 6) for r in (first, short, asked)}) == 3
    assert result_files(out) == before

    path = Path(sts.partition("=")[2])
    table = pq.read_table(path)
    pq.write_table(table.slice(1), folder / "tasks" / "fewer.parquet")
    fewer = evaluate(folder, [f"docs_sts:sts={folder}/tasks/fewer.parquet"], "again")
    assert fewer.tasks[0].score != first.tasks[0].score
    assert result_files(out) != before


def test_a_task_whose_score_is_nan_counts_as_not_evaluated_each_time(folder: Path, tmp_path: Path) -> None:
    """All texts begin alike and the instruction leaves no space for the rest, so all embeddings are equal."""
    path, out = tmp_path / "sts.csv", tmp_path / "out"
    path.write_text("sentence1,sentence2,score\n" + "".join(f"left {i},right {i},{i}\n" for i in range(6)))
    arguments = ("evaluate", folder / "small", "--task", f"mine:sts={path}", "--out", out, "--json")

    for _ in range(2):
        done = f2llm(*arguments, "--instruction", "mine=" + "find what belongs together " * 40)

        assert done.returncode == 5, done.stderr
        (task,) = json.loads(done.stdout, parse_constant=pytest.fail)["tasks"]
        assert task["score"] is None
        assert "task mine: cosine_spearman is nan" in task["failure"]
        assert "max_seq_length" in task["remedy"]
        assert result_files(out) == {}


def test_a_killed_evaluation_resumes_with_the_missing_tasks(
    folder: Path, names: list[str], report: TaskReport, tmp_path: Path
) -> None:
    asked = [part for name in names for part in ("--task", name)]
    arguments = ("evaluate", folder / "small", *asked, "--out", tmp_path / "out")
    with Running(*arguments, log=tmp_path / "log") as job:
        job.wait_until(lambda: len(result_files(tmp_path / "out")) >= 2)
        job.kill_all()
    finished = result_files(tmp_path / "out")

    done = f2llm(*arguments, "--json")

    assert done.returncode == 0, done.stderr
    assert {task["name"]: task["score"] for task in json.loads(done.stdout)["tasks"]} == pytest.approx(
        {task.name: task.score for task in report.tasks}
    )
    later = result_files(tmp_path / "out")
    assert 2 <= len(finished) < len(later) == 6
    assert {name: later[name] for name in finished} == finished


def test_the_benchmark_has_41_tasks_with_the_recipes_instructions_and_reports_data_that_it_cannot_fetch(
    folder: Path, tmp_path: Path
) -> None:
    from ray_app.evaluation.mteb_model import F2LLM_INSTRUCTIONS

    tasks = find_tasks([BENCHMARK], None)
    assert len(tasks) == 41
    assert all(F2LLM_INSTRUCTIONS[task.name] for task in tasks)

    done = f2llm("evaluate", folder / "small", "--task", BENCHMARK, "--out", tmp_path)

    assert done.returncode == 5
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 41
    assert all("it needs " in line and "at revision" in line and "is unreachable" in line for line in said)
    assert sum(line.startswith("  hint: ") for line in done.stderr.splitlines()) == 1
    assert "0 of 41 tasks evaluated" in done.stdout


def test_an_unknown_task_is_refused_with_a_close_name_before_any_evaluation(folder: Path, tmp_path: Path) -> None:
    done = f2llm("evaluate", folder / "small", "--task", "MTEB(eng v2)", "--task", "STS99", "--out", tmp_path / "out")

    assert done.returncode == 3
    assert "no task or benchmark 'MTEB(eng v2)'" in done.stderr
    assert "did you mean" in done.stderr
    assert not (tmp_path / "out").exists()
