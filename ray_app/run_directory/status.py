"""`status.json` of a run directory: the state of a run, for people, the command line and the operator.

Imports only the standard library and pydantic.
"""

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

HEARTBEAT_TIMEOUT_SECONDS = 60.0
"""A driver writes its lease every 5 s. The timeout is longer because of slow stores and clock differences."""


class Phase(StrEnum):
    """The phase of a run. The last three are final; a stopped or failed run resumes when it is started again."""

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


class Reason(StrEnum):
    """Why workers started."""

    FIRST_START = "FirstStart"
    FAILURE = "Failure"
    PREEMPTION = "Preemption"
    """A node announced that it is about to be preempted."""
    RESIZE = "Resize"
    STOPPED = "StartedAgainAfterStop"
    FAILED = "StartedAgainAfterFailure"
    DRIVER_LOST = "DriverLost"
    """The run was started again, and it is not recorded how the previous driver ended."""


class WorkerGroup(BaseModel):
    """One start of training: its step, number of workers and reason, and the steps that it lost."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    time: datetime
    step: int
    workers: int
    reason: Reason | None = Field(None, description="Null if unknown.")
    message: str = Field("", description="The error of the previous workers.")
    steps_lost: int = 0


class RunStatus(BaseModel):
    """A snapshot. Rates are means over the last steps, shares are between 0 and 1, times are in seconds."""

    model_config = ConfigDict(frozen=True)

    name: str
    phase: Phase = Phase.PREPARING
    attempt: int = Field(0, description="How many times training was started, including resumes.")
    step: int = 0
    total_steps: int = 0
    epoch: float = Field(0.0, description="Epochs done; 0.5 is the middle of the first.")
    micro_batches_consumed: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    examples_per_second: float | None = None
    tokens_per_second: float | None = None
    model_flops_per_second: float | None = Field(
        None,
        description="Sum over all workers. 6 operations per weight and token; recomputation is not counted.",
    )
    data_wait_share: float | None = None
    store_retries: int = Field(0, description="Retried reads of training data since training began.")
    source_losses: dict[str, float] = Field(
        default_factory=dict, description="Loss of each source in the last step that used it."
    )
    workers: int = 0
    worker_slowness: tuple[float, ...] = Field(
        (), description="By rank: forward time per token relative to the median worker. 1: as fast as the median."
    )
    restarts: int = 0
    restarts_by_reason: dict[str, int] = Field(default_factory=dict)
    groups: tuple[WorkerGroup, ...] = Field((), description="The last 20 starts of training: workers over time.")
    steps_lost: int = Field(0, description="Steps recomputed because the checkpoint was older.")
    eta_seconds: float | None = None
    training_seconds: float = Field(
        0.0,
        description="Wall time since training first started. Not counted: the time from the end of the run, or the "
        "death of its driver, until the next driver begins to train.",
    )
    goodput: float | None = Field(
        None,
        description="Share of training_seconds spent on steps that were kept. The rest was spent on starts, recomputed "
        "steps, and waiting for workers or checkpoints.",
    )
    last_checkpoint_step: int | None = None
    last_checkpoint_time: datetime | None = Field(None, description="When it was complete.")
    checkpoint_stall_seconds: float | None = Field(None, description="How long training waited for the copy to memory.")
    checkpoint_save_seconds: float | None = Field(None, description="How long the background write took.")
    score: float | None = Field(
        None, description="Of the newest evaluated checkpoint: mean of nDCG@10 and Spearman over the held-out sets."
    )
    score_step: int | None = Field(None, description="The step of that checkpoint.")
    best_score: float | None = Field(None, description="The highest score so far. Its model is kept as best/.")
    best_step: int | None = Field(None, description="The step of the best checkpoint.")
    store: str = Field("", description="Features of the run directory's store, detected when the driver started.")
    store_unreachable_since: datetime | None = Field(None, description="Since when the driver cannot reach that store.")
    message: str = ""
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall time by phase, over all attempts.")
    updated: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def stale_seconds(self, *, heartbeat: datetime | None, now: datetime) -> float | None:
        """Time since the driver's last heartbeat; None before the heartbeat timeout, and for a run that has ended.

        `heartbeat` is when the driver last wrote its lease (driver_lease.last_heartbeat). The driver does this in every
        phase. The status does not change during an evaluation, a long step or a wait for resources.
        """
        age = (now - max(self.updated, heartbeat or self.updated)).total_seconds()
        return age if age > HEARTBEAT_TIMEOUT_SECONDS and not self.phase.is_end else None

    def heartbeat_message(self, stale_seconds: float) -> str:
        """The message about a driver whose last heartbeat was `stale_seconds` ago."""
        minutes = int(stale_seconds // 60)
        spent = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
        step = self.last_checkpoint_step
        resumes = "starts from step 0" if step is None else f"resumes from step {step}"
        return f"no heartbeat from the driver for {spent}; `f2llm run` {resumes}"
