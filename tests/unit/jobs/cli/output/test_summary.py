"""The summary at the end of a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.cli.app import call
from jobs.cli.output.summary import print_summary, summary, time_split
from jobs.spec.demo import demo_job
from ray_app.run_directory.evaluation_report import EvaluationReport, RankingMetrics, RetrievalResult
from ray_app.run_directory.status import Phase, RunStatus
from ray_app.run_directory.task_report import TaskReport, TaskScore

DONE = RunStatus(
    name="demo",
    phase=Phase.SUCCEEDED,
    step=149,
    total_steps=149,
    loss=1.25,
    seconds={"EvaluatingBefore": 10.0, "Training": 200.0, "EvaluatingAfter": 15.5},
)


def report(ndcg: float, *, bm25: float = 0.62) -> EvaluationReport:
    result = RetrievalResult(
        name="held-out",
        instruction="",
        queries=10,
        documents=100,
        model=RankingMetrics(ndcg_at_10=ndcg, recall_at_10=ndcg),
        bm25=RankingMetrics(ndcg_at_10=bm25, recall_at_10=bm25),
        examples=(),
        seconds=1.0,
    )
    return EvaluationReport(sets=(result,))


def test_time_is_split_by_what_it_was_spent_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("F2LLM_SETUP_SECONDS", "95")

    split = time_split({**DONE.seconds, "Preparing": 2.0}, data_seconds=21.0)

    assert list(split.items()) == [
        ("set-up", 95.0), ("data", 21.0), ("training", 200.0), ("evaluation", 25.5), ("other", 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["", "soon", "-1"])
def test_an_invalid_set_up_time_is_left_out(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("F2LLM_SETUP_SECONDS", value)

    assert "set-up" not in time_split(DONE.seconds, data_seconds=None)


def scores(**others: float | None) -> TaskReport:
    found = tuple(
        TaskScore(name=name, type="STS", metric="cosine_spearman", benchmark=None, score=score, before=0.2)
        for name, score in others.items()
    )
    return TaskReport(model="demo", revision="1", dimensions=None, results="", tasks=found)


def test_tasks_are_summarized_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for tasks in (scores(a=0.5, b=0.25), scores(a=0.5, b=None), scores(b=None)):
        print_summary(summary(DONE, run_uri="runs/demo", before=None, after=None, tasks=tasks, split={}))

    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tasks:")]
    assert lines == [
        "tasks: 2 of 2 evaluated, mean 20.00 before, 37.50 after training",
        "tasks: 1 of 2 evaluated, mean 20.00 before, 50.00 after training",
        "tasks: 0 of 1 evaluated",
    ]


def test_the_summary_compares_metrics_before_and_after_training_with_bm25(capsys: pytest.CaptureFixture[str]) -> None:
    split = time_split(DONE.seconds, data_seconds=21.0)

    print_summary(summary(DONE, run_uri="runs/demo", before=report(0.062), after=report(0.41), split=split))

    assert capsys.readouterr().out.splitlines() == [
        "succeeded at step 149 of 149, loss 1.250",
        "nDCG@10 on held-out queries: 0.062 before, 0.410 after training (BM25: 0.620)",
        "time: data 21 s, training 3 min 20 s, evaluation 26 s",
        "model:  runs/demo/model",
        "report: runs/demo/report.html",
    ]


def test_missing_metrics_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = DONE.model_copy(
        update={"phase": Phase.STOPPED, "step": 5, "message": "stopped at step 5 of 149; run it again"}
    )

    print_summary(summary(stopped, run_uri="runs/demo", before=report(0.062), after=None, split={}))

    assert capsys.readouterr().out.splitlines() == [
        "stopped at step 5 of 149; run it again, loss 1.250",
        "report: runs/demo/report.html",
    ]


@pytest.mark.parametrize(("signal", "code"), [(None, 0), (2, 130), (15, 143)])
def test_a_run_that_a_signal_stopped_exits_as_the_shell_expects(
    signal: int | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    started: dict[str, Any] = {}
    file.write_text(demo_job(tmp_path).to_yaml())

    def run(name: str, spec: Any, **options: Any) -> SimpleNamespace:
        started.update(options, name=name, workers=spec.workers.replicas)
        options["on_status"](DONE)
        return SimpleNamespace(status=DONE, signal=signal)

    monkeypatch.setattr("jobs.workflows.training.run", run)

    found = call(["run", str(file), "--workers", "3", "--steps", "7", "--json"])

    facts = json.loads(capsys.readouterr().out)
    assert found == code
    assert (started["name"], started["workers"], started["stop_after_steps"]) == ("demo", 3, 7)
    assert started["job_spec_yaml"] == demo_job(tmp_path, overrides=["workers.replicas=3"]).to_yaml()
    assert started["differences"](demo_job(tmp_path, overrides=["train.seed=1"]).to_yaml()) == [
        "spec.train.seed: 1 in the run, 0 here"
    ]
    assert facts["status"]["step"] == 149


def test_the_demo_keeps_everything_in_one_directory() -> None:
    job = demo_job(Path("elsewhere"))

    assert job.run_uri == "elsewhere/demo"
    assert job.spec.data.uri == "elsewhere/data"
    assert job.spec.model.architecture is not None
    assert job.spec.model.tokenizer is None


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_the_demo_takes_one_to_four_workers(workers: int) -> None:
    assert demo_job(Path("runs"), overrides=[f"workers.replicas={workers}"]).spec.workers.lowest == workers
