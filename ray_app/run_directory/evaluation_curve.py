"""The score curve of a run, evaluation/checkpoints.jsonl: the scores of its checkpoints during training."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from data_io.bounded_json import read_model
from data_io.storage.store import Store
from ray_app.run_directory.checkpoint_manifest import CheckpointName
from ray_app.run_directory.directory import LINES_BYTES, read_text

CURVE = "evaluation/checkpoints.jsonl"


class MeasuredCheckpoint(BaseModel):
    """A line of evaluation/checkpoints.jsonl.

    `sets`: nDCG@10 or Spearman's correlation of each held-out set. `score`: their mean, with equal weight per set.
    `seconds`: the duration of export and evaluation.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    attempt: int
    score: float
    sets: dict[str, float]
    seconds: float
    time: datetime

    @property
    def name(self) -> CheckpointName:
        return CheckpointName(self.step, self.attempt)


def read_curve(run: Store) -> tuple[MeasuredCheckpoint, ...]:
    """The evaluated checkpoints, by step. If a step was recomputed after a failure, its last result counts.

    Skips incomplete lines, which a crash can leave.
    """
    by_step: dict[int, MeasuredCheckpoint] = {}
    for line in read_text(run, CURVE, most=LINES_BYTES).splitlines():
        try:
            measured = read_model(MeasuredCheckpoint, line)
        except ValueError:
            continue
        by_step[measured.step] = measured
    return tuple(by_step[step] for step in sorted(by_step))


def read_scores(run: Store) -> dict[str, Any]:
    """`scores_of` the checkpoints of this run that were evaluated so far."""
    return scores_of(read_curve(run))


def scores_of(curve: Sequence[MeasuredCheckpoint]) -> dict[str, Any]:
    """Fields of RunStatus for the newest and the best evaluated checkpoint; empty if no checkpoint is evaluated yet."""
    best = best_of(curve)
    if best is None:
        return {}
    newest = curve[-1]
    return {"score": newest.score, "score_step": newest.step, "best_score": best.score, "best_step": best.step}


def best_of(curve: Sequence[MeasuredCheckpoint]) -> MeasuredCheckpoint | None:
    """The checkpoint with the highest score; the earliest of equal ones."""
    return max(curve, key=lambda each: (each.score, -each.step), default=None)
