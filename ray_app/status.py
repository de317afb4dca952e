"""`status.json` of a run directory: where a run stands, for people, the command line and the operator alike.

Standard library and pydantic only.
"""

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Phase(StrEnum):
    """What a run is doing. The last three are ends; a stopped or failed run goes on when it is started again."""

    PREPARING = "Preparing"
    EVALUATING_BEFORE = "EvaluatingBefore"
    TRAINING = "Training"
    EVALUATING_AFTER = "EvaluatingAfter"
    SUCCEEDED = "Succeeded"
    STOPPED = "Stopped"
    FAILED = "Failed"

    @property
    def is_end(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.STOPPED, Phase.FAILED)


class RunStatus(BaseModel):
    """A snapshot; rates are means over the last steps, shares lie between 0 and 1, times are seconds."""

    model_config = ConfigDict(frozen=True)

    name: str
    phase: Phase = Phase.PREPARING
    attempt: int = Field(0, description="How many times training was started, resumes included.")
    step: int = 0
    total_steps: int = 0
    epoch: float = Field(0.0, description="Epochs done; 0.5 is the middle of the first.")
    micro_batches_consumed: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    examples_per_second: float | None = None
    tokens_per_second: float | None = None
    data_wait_share: float | None = None
    workers: int = 0
    restarts: int = 0
    steps_lost: int = Field(0, description="Steps that were computed and then repeated because a checkpoint was older.")
    eta_seconds: float | None = None
    last_checkpoint_step: int | None = None
    message: str = ""
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall time by phase, over all attempts.")
    updated: datetime = Field(default_factory=lambda: datetime.now(UTC))
