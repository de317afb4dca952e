"""The commands that start nothing: their output and their exit codes."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from data_io.curation.tokenizer_training import save_tokenizer, train_tokenizer
from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.errors import StorageError
from data_io.storage.store import open_store
from jobs.cli.options import print_json
from jobs.spec.demo import demo_job_spec
from jobs.spec.job import load_job_spec, parse_job_spec
from jobs.spec.presets import PRESET_NAMES
from jobs.spec.yaml12 import RawSpec
from ray_app.run_directory.directory import write_status
from ray_app.run_directory.evaluation_curve import CURVE, MeasuredCheckpoint
from ray_app.run_directory.exit_record import Failure, exit_record, write_exit_record
from ray_app.run_directory.status import Phase, RunStatus
from tests.support.calling import Run
from tests.support.datasets import write_example
from tests.support.job_specs import job_spec

F2LLM = Path(sys.executable).parent / "f2llm"


@pytest.fixture
def job(tmp_path: Path) -> str:
    """A job spec with its data set, for a model small enough for a test."""
    data = open_store(str(tmp_path / "data"))
    write_example(data)
    save_tokenizer(data, train_tokenizer(["what a text may say"], vocabulary_size=300))
    value = job_spec(
        {
            "model": {"name_or_path": None, "architecture": {"hidden_size": 64}, "max_seq_length": 64},
            "train": {"global_batch_size": 16, "micro_batch_size": 4, "epochs": 1, "warmup_steps": 2},
            "data": {"uri": str(tmp_path / "data")},
            "storage": {"uri": str(tmp_path / "runs")},
            "checkpoint": {"every": "5 steps"},
        }
    )
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(value))
    return str(tmp_path / "job.yaml")


def test_validate_names_the_run_directory(f2llm: Run, job: str, tmp_path: Path) -> None:
    code, out, err = f2llm("validate", job)

    assert (code, err) == (0, "")
    assert out == f"{job}: valid; run directory: {tmp_path}/runs/job\n"


def test_validate_show_prints_an_equal_job_spec(f2llm: Run, job: str, tmp_path: Path) -> None:
    code, out, _ = f2llm("validate", job, "--show", "--set", "train.seed=7")
    (tmp_path / "effective.yaml").write_text(out)

    assert code == 0
    assert load_job_spec("effective.yaml") == load_job_spec(job, overrides=["train.seed=7"])


def test_validate_json_is_the_effective_job_spec(f2llm: Run, job: str) -> None:
    code, out, _ = f2llm("validate", job, "--json")

    assert code == 0
    assert json.loads(out) == {"valid": True, "job_spec": load_job_spec(job).to_dict()}


def test_a_job_spec_may_come_from_standard_input(f2llm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(yaml.safe_dump(job_spec({"train": {"epochs": 0}}))))

    code, _, err = f2llm("validate", "-")

    assert code == 3
    assert "standard input:" in err
    assert "spec.train.epochs: found `0`" in err


def test_plan_prints_steps_from_the_manifest(f2llm: Run, job: str) -> None:
    code, out, _ = f2llm("plan", job)

    # 150 rows are 38 micro-batches of 4, 21 are 6; 44 micro-batches are 11 steps of 4.
    assert code == 0
    assert "171 examples in 2 sources" in out
    assert "11 (11 per epoch)" in out
    assert "warning: data.hard_negatives.retrieval=7, but questions has 5 per row" in out


def test_plan_json_has_the_same_numbers_and_every_assumption(f2llm: Run, job: str) -> None:
    code, out, _ = f2llm("plan", job, "--json")

    plan = json.loads(out)
    assert code == 0
    assert (plan["total_steps"], plan["examples_per_epoch"]) == (11, 171)
    assert plan["memory"]["total"] == sum(value for name, value in plan["memory"].items() if name != "total")
    assert plan["checkpoint_bytes"] == 12 * plan["parameters"]
    assert plan["assumptions"]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_plan_needs_no_data_set_if_the_rows_are_given(f2llm: Run, tmp_path: Path, preset: str) -> None:
    value = {**job_spec(), "spec": {"preset": preset, "data": {"uri": "s3://nowhere/data"}}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(value))

    code, out, _ = f2llm("plan", "job.yaml", "--rows", "6000000", "--json")

    assert code == 0
    assert json.loads(out)["steps_per_epoch"] == -(-6_000_000 // 512)


def test_plan_without_its_data_set_is_a_data_error(f2llm: Run, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_spec({"data": {"uri": "nowhere"}})))

    code, _, err = f2llm("plan", "job.yaml")

    assert code == 4
    assert "no data set at" in err
    assert "f2llm data prepare" in err


def test_a_run_that_would_be_refused_is_refused_dry_too(f2llm: Run, job: str, tmp_path: Path) -> None:
    open_store(str(tmp_path / "data")).delete(TOKENIZER_KEYS)

    code, out, err = f2llm("run", job, "--dry-run")

    assert (code, out) == (4, "")
    assert "has no tokenizer" in err
    assert "--tokenizer-vocabulary" in err


def test_a_dry_run_checks_everything_and_starts_nothing(f2llm: Run, job: str, tmp_path: Path) -> None:
    code, out, _ = f2llm("run", job, "--dry-run")

    assert code == 0
    assert "dry run: nothing was started" in out
    assert not (tmp_path / "runs").exists()


def test_submitting_as_a_client_dry_run_needs_no_cluster(f2llm: Run, job: str) -> None:
    remote = ("--set", "data.uri=s3://bucket/data", "--set", "storage.uri=s3://bucket/runs")
    code, out, _ = f2llm("submit", job, "--dry-run=client", *remote)
    bad, _, _ = f2llm("submit", job, "--dry-run=client", *remote, "--set", "train.epochs=-1")

    assert (code, bad) == (0, 3)
    assert "nothing was sent" in out


def test_a_client_dry_run_refuses_a_directory_that_no_pod_has(f2llm: Run, job: str) -> None:
    code, _, err = f2llm("submit", job, "--dry-run=client")

    assert code == 3
    assert "spec.data.uri is a directory that no volume of spec.cluster.volumes provides" in err


def test_a_dry_run_finds_a_source_that_is_not_there(f2llm: Run, job: str) -> None:
    code, _, err = f2llm("run", job, "--dry-run", "--set", "data.sources=[question]")

    assert code == 3
    assert "question is not in the manifest" in err
    assert "did you mean `questions`?" in err


def test_a_dry_run_finds_the_run_of_another_job_spec(f2llm: Run, job: str, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "job"
    run.mkdir(parents=True)
    (run / "job.yaml").write_text(load_job_spec(job).to_yaml())
    (run / "metrics.jsonl").write_text('{"step": 1}\n')

    same, _, _ = f2llm("run", job, "--dry-run", "--workers", "2")
    other, _, err = f2llm("run", job, "--dry-run", "--set", "train.seed=1")

    assert (same, other) == (0, 6)
    assert "this run was started with a different job spec" in err
    assert "spec.train.seed: 0 in the run, 1 here" in err


def test_a_dry_run_accepts_a_changed_job_spec_until_something_is_trained(f2llm: Run, job: str, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "job"
    run.mkdir(parents=True)
    (run / "job.yaml").write_text(load_job_spec(job).to_yaml())

    code, _, _ = f2llm("run", job, "--dry-run", "--set", "train.seed=1")

    assert code == 0


def test_a_dry_run_finds_a_run_directory_with_other_files(f2llm: Run, job: str, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "job"
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")

    code, _, err = f2llm("run", job, "--dry-run")

    assert code == 6
    assert "is not empty and has no job.yaml: notes.txt" in err


def test_workers_is_a_field_of_the_job_spec(f2llm: Run, job: str) -> None:
    code, out, _ = f2llm("run", job, "--dry-run", "--workers", "3", "--json")

    assert code == 0
    assert json.loads(out)["job_spec"]["spec"]["workers"]["replicas"] == 3


def test_gpus_that_have_no_work_are_refused(f2llm: Run, job: str) -> None:
    code, _, err = f2llm("run", job, "--dry-run", "--workers", "9", "--set", "workers.gpus=1")

    assert code == 3
    assert "workers.replicas=9" in err


def test_the_schema_and_the_program_accept_the_same_job_specs(f2llm: Run) -> None:
    code, out, _ = f2llm("schema")

    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    assert code == 0
    good: list[dict[str, Any]] = [
        job_spec(),
        demo_job_spec(Path("runs")),
        {**job_spec(), "spec": {"preset": "f2llm-0.6b", "data": {"uri": "data"}}},
        parse_job_spec(RawSpec("job", job_spec())).to_dict(),
    ]
    bad: list[dict[str, Any]] = [
        job_spec({"train": {"microbatch_size": 1}}),
        job_spec({"train": {"epochs": 0}}),
        {**job_spec(), "spec": {"data": {"uri": "data"}}},
        {**job_spec(), "spec": {"preset": "f2llm-0.6b"}},
        {**job_spec(), "metadata": {"name": "Upper"}},
    ]
    assert [check.is_valid(value) for value in good] == [True] * len(good)
    assert [check.is_valid(value) for value in bad] == [False] * len(bad)


def test_json_output_is_valid_for_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": float("nan"), "best": [1.5, -float("inf")]})

    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"loss": None, "best": [1.5, None]}


def test_status_prints_the_state_of_a_run(f2llm: Run, tmp_path: Path) -> None:
    status = RunStatus(name="job", phase=Phase.TRAINING, step=3, total_steps=10, loss=1.5, workers=2, attempt=2)
    write_status(open_store(str(tmp_path / "run")), status)

    code, out, _ = f2llm("status", "run")
    _, as_json, _ = f2llm("status", "run", "--json")

    assert code == 0
    assert "step 3/10  loss 1.500" in out
    assert "attempt 2" in out
    assert json.loads(as_json)["step"] == 3


def test_status_of_a_run_whose_driver_is_not_heard_says_so_and_gives_no_eta(f2llm: Run, tmp_path: Path) -> None:
    then = datetime.now(UTC) - timedelta(seconds=450)
    status = RunStatus(
        name="job", phase=Phase.TRAINING, step=58, total_steps=80, loss=1.5, eta_seconds=317, last_checkpoint_step=56,
        last_checkpoint_time=then, updated=then,
    )  # fmt: skip
    run = open_store(str(tmp_path / "run"))
    run.put("status.json", status.model_dump_json().encode())

    _, silent, _ = f2llm("status", "run")
    _, silent_json, _ = f2llm("status", "run", "--json")
    run.put("driver.json", b"{}")  # as a driver that measures a model does, which leaves the status alone
    _, heard, _ = f2llm("status", "run")
    _, heard_json, _ = f2llm("status", "run", "--json")

    assert (
        "phase       Training, but no heartbeat from the driver for 7 min; `f2llm run` resumes from step 56" in silent
    )
    assert "checkpoint  step 56, 7 min 3" in silent
    assert "ETA" not in silent
    assert 450 <= json.loads(silent_json)["stale_seconds"] < 500
    assert json.loads(silent_json)["eta_seconds"] is None
    assert "phase       Training\n" in heard
    assert "ETA 5 min 17 s" in heard
    assert json.loads(heard_json)["stale_seconds"] is None


def test_status_of_a_run_under_way_has_the_scores_of_its_checkpoints(f2llm: Run, tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    write_status(run, RunStatus(name="job", phase=Phase.TRAINING, step=30, total_steps=40))
    measured = [
        MeasuredCheckpoint(step=step, attempt=1, score=score, sets={}, seconds=1.0, time=datetime.now(UTC))
        for step, score in ((10, 0.25), (20, 0.5), (30, 0.375))
    ]
    run.put(CURVE, "\n".join(each.model_dump_json() for each in measured).encode())

    _, out, _ = f2llm("status", "run")
    _, as_json, _ = f2llm("status", "run", "--json")

    assert "score       0.3750 at step 30, best 0.5000 at step 20" in out
    found = json.loads(as_json)
    assert [found[key] for key in ("score", "score_step", "best_score", "best_step")] == [0.375, 30, 0.5, 20]


def test_status_of_a_failed_run_says_why_where_and_what_to_do(f2llm: Run, tmp_path: Path) -> None:
    run = open_store(str(tmp_path / "run"))
    status = RunStatus(name="job", phase=Phase.TRAINING, step=3, total_steps=10, attempt=2)
    failure = Failure(
        StorageError("the store is away", remedy="look at it"), rank=1, node="n7", log=("a worker's line",)
    )
    write_status(run, status.model_copy(update={"phase": Phase.FAILED, "message": "the store is away"}))
    write_exit_record(run, exit_record(failure, status, driver_log=("the driver's line",)))

    code, out, _ = f2llm("status", "run")
    _, as_json, _ = f2llm("status", "run", "--json")

    assert code == 0
    for expected in (
        "storage error StorageError, exit code 5; running it again can succeed", "worker 1 on n7, step 3 of 10",
        "look at it", "a worker's line", "the driver's line",
    ):  # fmt: skip
        assert expected in out
    assert json.loads(as_json)["exit"]["message"] == "the store is away"


@pytest.mark.parametrize("command", ["status", "evaluate", "export"])
def test_a_directory_without_a_run_is_an_error(f2llm: Run, command: str) -> None:
    code, out, err = f2llm(command, "nowhere")

    assert (code, out) == (5, "")
    assert "error: no run at nowhere" in err
    assert "runs/demo" in err


def test_a_run_without_a_model_hints_at_export(f2llm: Run, job: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.yaml").write_text(load_job_spec(job).to_yaml())

    code, _, err = f2llm("evaluate", "run")

    assert code == 5
    assert "f2llm export run" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data", "prepare", "my-data"], "No such command 'my-data'"),
        (["run"], "Missing argument 'JOB.yaml'"),
        (["run", "job.yaml", "--workers", "0"], "Invalid value for '--workers'"),
        (["validat", "job.yaml"], "No such command 'validat'"),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(f2llm: Run, arguments: list[str], says: str) -> None:
    code, out, err = f2llm(*arguments)

    assert (code, out) == (2, "")
    assert says in " ".join(err.split())


def test_an_unexpected_error_is_reported_as_a_bug_with_exit_code_1(
    f2llm: Run, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("boom")

    monkeypatch.setattr("jobs.workflows.data.data_size", broken)

    code, _, err = f2llm("plan", job)

    assert code == 1
    assert "error: KeyError: 'boom'" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_version_prints_this_program_and_its_libraries(f2llm: Run) -> None:
    _, short, _ = f2llm("--version")
    _, long, _ = f2llm("version", "--json")

    assert short.startswith("f2llm-ray ")
    assert short.split()[1] == json.loads(long)["f2llm-ray"]
    assert "torch" in json.loads(long)


def test_paths_of_set_are_completed_in_the_shell() -> None:
    environment = {
        **os.environ,
        "_F2LLM_COMPLETE": "complete_bash",
        "COMP_WORDS": "f2llm run --set train.ep",
        "COMP_CWORD": "3",
    }

    done = subprocess.run([F2LLM], capture_output=True, text=True, env=environment, check=False)

    assert done.stdout.split() == ["train.epochs="]


@pytest.mark.parametrize("command", ["schema", "--help", "data sources", "data sources --json"])
def test_a_command_whose_output_is_closed_prints_no_error_and_exits_as_by_sigpipe(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run([F2LLM, *command.split()], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)

    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_no_color_is_respected_on_a_terminal(tmp_path: Path) -> None:
    code = (
        "import io, sys; from jobs.cli.output.progress import progress\n"
        "from ray_app.run_directory.status import Phase, RunStatus\n"
        "out = io.StringIO(); out.isatty = lambda: True\n"
        "with progress(out) as show: show(RunStatus(name='job', phase=Phase.TRAINING, step=1, total_steps=2))\n"
        "print('\\x1b[3' in out.getvalue())"
    )
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}

    plain = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**environment, "NO_COLOR": "1"}, check=True
    )
    colored = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)

    assert (plain.stdout.strip(), colored.stdout.strip()) == ("False", "True")


STOPPED = {"class": "user", "exit_code": 130, "message": "stopped by Ctrl-C", "remedy": "run the same command again"}


def test_ctrl_c_ends_a_command_without_a_message_except_json(
    f2llm: Run, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.workflows.training.run_job", stop)

    code, out, err = f2llm("run", job, "--quiet")
    coded, as_json, said = f2llm("run", job, "--quiet", "--json")

    assert (code, out, err) == (130, "", "")
    assert (coded, said) == (130, "")
    assert json.loads(as_json) == {"error": STOPPED}


def test_ctrl_c_while_the_command_line_is_imported_ends_it_without_a_message(tmp_path: Path) -> None:
    """A module in place of typer raises KeyboardInterrupt, as the interpreter does during an import."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), *sys.path])

    plain, for_programs = (
        subprocess.run(
            [sys.executable, "-m", "jobs.cli", "version", *options],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
        )
        for options in ([], ["--json"])
    )  # fmt: skip

    assert (plain.returncode, plain.stdout, plain.stderr) == (130, "", "")
    assert (for_programs.returncode, for_programs.stderr) == (130, "")
    assert json.loads(for_programs.stdout) == {"error": STOPPED}
