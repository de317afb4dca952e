"""Numbers, counts, durations and phases as people read them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray_app.run_directory.status import RunStatus


PHASE_WORDS = {
    "Preparing": "preparing",
    "EvaluatingBefore": "evaluating before training",
    "Training": "training",
    "EvaluatingAfter": "exporting and evaluating after training",
    "Succeeded": "done",
    "Stopped": "stopped",
    "Failed": "failed",
}
"""The words for a phase that people see. status.json contains the names of ray_app.run_directory.status.Phase."""


def numbers(status: "RunStatus") -> list[str]:
    """The training metrics of a status, one string per metric. Metrics that are not known yet are left out."""
    pieces = [f"step {status.step}/{status.total_steps}"]
    if status.loss is not None:
        pieces.append(f"loss {status.loss:.3f}")
    if status.examples_per_second is not None:
        pieces.append(f"{short_number(status.examples_per_second)} examples/s")
    if status.tokens_per_second is not None:
        pieces.append(f"{short_number(status.tokens_per_second)} tokens/s")
    if status.data_wait_share is not None:
        pieces.append(f"data wait {status.data_wait_share:.0%}")
    if status.eta_seconds is not None:
        pieces.append(f"ETA {duration(status.eta_seconds)}")
    return pieces


def short_number(value: float) -> str:
    """Three significant digits: 0.52, 8.31, 86, 9.4k, 1.2M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration in words: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
