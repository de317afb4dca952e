"""The summary at the end of a run: steps, metrics, time and paths."""

import os
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from data_io.wording import counted
from jobs.formatting import duration

if TYPE_CHECKING:
    from ray_app.run_directory.exit_record import ExitRecord

if TYPE_CHECKING:
    from ray_app.run_directory.evaluation_report import EvaluationReport
    from ray_app.run_directory.status import RunStatus
    from ray_app.run_directory.task_report import TaskReport

# The group of each phase in the time split. All other phases count as "other".
_GROUPS = {"Training": "training", "EvaluatingBefore": "evaluation", "EvaluatingAfter": "evaluation"}


def time_split(seconds: Mapping[str, float], *, data_seconds: float | None) -> dict[str, float]:
    """Seconds of set-up (from $F2LLM_SETUP_SECONDS, if set), data, training, evaluation and everything else."""
    split: dict[str, float] = {}
    setup = os.environ.get("F2LLM_SETUP_SECONDS", "")
    if setup.replace(".", "", 1).isdigit():
        split["set-up"] = float(setup)
    if data_seconds is not None:
        split["data"] = data_seconds
    for phase, spent in seconds.items():
        group = _GROUPS.get(phase, "other")
        split[group] = split.get(group, 0.0) + spent
    return dict(sorted(split.items(), key=lambda item: _ORDER.index(item[0])))


_ORDER = ("set-up", "data", "training", "evaluation", "other")


def summary(
    status: "RunStatus",
    *,
    run_uri: str,
    before: "EvaluationReport | None",
    after: "EvaluationReport | None",
    tasks: "TaskReport | None" = None,
    split: Mapping[str, float],
) -> dict[str, Any]:
    """The summary of a run as plain values. Missing metrics are None."""
    means = {
        "before": before and before.mean_model,
        "after": after and after.mean_model,
        "bm25": after and after.mean_bm25,
    }
    return {
        "status": status.model_dump(mode="json"),
        "run": run_uri,
        "ndcg_at_10": {moment: metrics and metrics.ndcg_at_10 for moment, metrics in means.items()},
        "tasks": tasks and tasks.model_dump(mode="json"),
        "recall_at_10": {moment: metrics and metrics.recall_at_10 for moment, metrics in means.items()},
        "seconds": dict(split),
        "model": f"{run_uri}/model" if status.phase.value == "Succeeded" else None,
        "report": f"{run_uri}/report.html",
    }


def print_summary(facts: Mapping[str, Any]) -> None:
    """Print the summary as text."""
    status, ndcg = facts["status"], facts["ndcg_at_10"]
    loss = "" if status["loss"] is None else f", loss {status['loss']:.3f}"
    how = status["message"] or f"{status['phase'].lower()} at step {status['step']} of {status['total_steps']}"
    print(f"{how}{loss}")
    if ndcg["after"] is not None:
        before = "" if ndcg["before"] is None else f"{ndcg['before']:.3f} before, "
        bm25 = "" if ndcg["bm25"] is None else f" (BM25: {ndcg['bm25']:.3f})"
        print(f"nDCG@10 on held-out queries: {before}{ndcg['after']:.3f} after training{bm25}")
    if facts["tasks"]:
        print(_tasks_line(facts["tasks"]["tasks"]))
    if status["best_score"] is not None:
        print(f"best checkpoint: step {status['best_step']}, score {status['best_score']:.3f}: {facts['run']}/best")
    if facts["seconds"]:
        print("time: " + ", ".join(f"{name} {duration(spent)}" for name, spent in facts["seconds"].items()))
    if facts["model"]:
        print(f"model:  {facts['model']}")
    print(f"report: {facts['report']}")


def _tasks_line(tasks: Sequence[Mapping[str, Any]]) -> str:
    """The mean score over the evaluated tasks, times 100 as in mteb's tables."""
    measured = [task for task in tasks if task["score"] is not None]
    line = f"tasks: {len(measured)} of {len(tasks)} evaluated"
    if not measured:
        return line
    before = [task["before"] for task in measured if task["before"] is not None]
    earlier = f"{100 * fmean(before):.2f} before, " if len(before) == len(measured) else ""
    return f"{line}, mean {earlier}{100 * fmean(task['score'] for task in measured):.2f} after training"


_SHOWN_LINES = 12


def place_of(record: "ExitRecord") -> str:
    """Place and time: "worker 1 on node-7, step 14 of 40, epoch 1.40, attempt 3, 2026-01-02 03:04:05 UTC"."""
    facts = [
        f"worker {record.rank} on {record.node}" if record.rank is not None else "",
        f"step {record.step} of {record.total_steps}",
        f"epoch {record.epoch:.2f}",
        f"attempt {record.attempt}",
        f"{record.time:%Y-%m-%d %H:%M:%S} UTC",
    ]
    return ", ".join(filter(None, facts))


def log_lines(record: "ExitRecord") -> list[str]:
    """The last lines of each log that exists, with a heading."""
    lines = []
    for name, log in ((f"worker {record.rank}", record.worker_log), ("the driver", record.driver_log)):
        if log:
            shown = log[-_SHOWN_LINES:]
            lines += [f"last {counted(len(shown), 'line')} of the log of {name} (exit.json has {len(log)}):"]
            lines += [f"  {line}" for line in shown]
    return lines


def status_lines(record: "ExitRecord") -> list[tuple[str, str]]:
    """Labels with texts for `f2llm status`."""
    again = "running it again can succeed" if record.retryable else "running it again would fail again"
    lines = [
        ("failure", f"{record.error_class} error {record.error}, exit code {record.exit_code}; {again}"),
        ("where", place_of(record)),
    ]
    return [*lines, ("hint", record.remedy)] if record.remedy else lines
