"""Why a run failed, in one screen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_app.exit_record import ExitRecord

_SHOWN_LINES = 12


def place_of(record: "ExitRecord") -> str:
    """Where and when: "worker 1 on node-7, step 14 of 40, epoch 1.40, attempt 3, 2026-01-02 03:04:05 UTC"."""
    facts = [
        f"worker {record.rank} on {record.node}" if record.rank is not None else "",
        f"step {record.step} of {record.total_steps}",
        f"epoch {record.epoch:.2f}",
        f"attempt {record.attempt}",
        f"{record.time:%Y-%m-%d %H:%M:%S} UTC",
    ]
    return ", ".join(filter(None, facts))


def log_lines(record: "ExitRecord") -> list[str]:
    """The ends of the logs that there are, each under its name."""
    lines = []
    for name, log in ((f"worker {record.rank}", record.worker_log), ("driver", record.driver_log)):
        if log:
            shown = log[-_SHOWN_LINES:]
            lines += [f"last {len(shown)} lines of the log of the {name} (exit.json has {len(log)}):"]
            lines += [f"  {line}" for line in shown]
    return lines


def status_lines(record: "ExitRecord") -> list[tuple[str, str]]:
    """Label and text, as `f2llm status` prints them."""
    again = "the same command may help" if record.retryable else "the same command would fail again"
    lines = [
        ("failure", f"{record.error_class} error {record.error}, exit code {record.exit_code}; {again}"),
        ("where", place_of(record)),
    ]
    return [*lines, ("to mend it", record.remedy)] if record.remedy else lines
