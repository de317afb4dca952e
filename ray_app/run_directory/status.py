"""`status.json` of a run directory: where a run stands, for people, the command line and the operator alike.

Standard library and pydantic only.
"""

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

HEARD_SECONDS = 60.0
"""A driver that lives writes its lease every 5 s; so many of them are missed by a store that is slow, or by clocks."""


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


class Reason(StrEnum):
    """Why workers started."""

    FIRST_START = "FirstStart"
    FAILURE = "Failure"
    PREEMPTION = "Preemption"
    """A node said that it is about to go."""
    RESIZE = "Resize"
    STOPPED = "StartedAgainAfterStop"
    FAILED = "StartedAgainAfterFailure"
    DRIVER_LOST = "DriverLost"
    """The run was started again, and nothing says how the driver before ended."""


class WorkerGroup(BaseModel):
    """One start of training: from which step, with how many workers, why, and what it cost."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    time: datetime
    step: int
    workers: int
    reason: Reason | None = Field(None, description="Null where whoever started it did not say.")
    message: str = Field("", description="What the workers before failed from.")
    steps_lost: int = 0


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
    model_flops_per_second: float | None = Field(
        None,
        description="6 a weight and token, whatever is computed again; all workers together.",
    )
    data_wait_share: float | None = None
    store_retries: int = Field(0, description="Reads of training data that were repeated since training began.")
    source_losses: dict[str, float] = Field(
        default_factory=dict, description="Loss of each source in the newest step that used it."
    )
    workers: int = 0
    worker_slowness: tuple[float, ...] = Field(
        (), description="By rank, seconds a token of forward passes beside those of the median worker: 1 is as fast."
    )
    restarts: int = 0
    restarts_by_reason: dict[str, int] = Field(default_factory=dict)
    groups: tuple[WorkerGroup, ...] = Field((), description="The newest 20 starts of training: workers over time.")
    steps_lost: int = Field(0, description="Steps that were computed and then repeated because a checkpoint was older.")
    eta_seconds: float | None = None
    training_seconds: float = Field(
        0.0,
        description="Wall time since training first started, without the time between a run's end, or its driver's "
        "death, and the next driver's beginning to train.",
    )
    goodput: float | None = Field(
        None,
        description="Share of training_seconds that went into steps of the surviving trajectory: what is missing went "
        "into starts, steps that were done again, and waiting for workers or checkpoints.",
    )
    last_checkpoint_step: int | None = None
    last_checkpoint_time: datetime | None = Field(None, description="When it was complete.")
    checkpoint_stall_seconds: float | None = Field(None, description="For how long its copy held training up.")
    checkpoint_save_seconds: float | None = Field(None, description="How long it was then written, beside training.")
    score: float | None = Field(
        None, description="Of the newest measured checkpoint: mean of nDCG@10 and Spearman over the held-out sets."
    )
    score_step: int | None = Field(None, description="The step of that checkpoint.")
    best_score: float | None = Field(None, description="The highest so far; its checkpoint is kept as the model best.")
    best_step: int | None = Field(None, description="The step of that one.")
    store: str = Field("", description="What the store of the run directory was seen to do when the driver started.")
    store_silent_since: datetime | None = Field(None, description="Since when that store has not answered the driver.")
    message: str = ""
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall time by phase, over all attempts.")
    updated: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def stale_seconds(self, *, heard: datetime | None, now: datetime) -> float | None:
        """For how long nothing was heard of the driver; None while it is heard, and of a run that has ended.

        `heard` is when the driver last wrote its lease (driver_lease.last_heard): it does so in every phase, whereas
        the status is left alone during an evaluation, a long step or a wait for room.
        """
        silent = (now - max(self.updated, heard or self.updated)).total_seconds()
        return silent if silent > HEARD_SECONDS and not self.phase.is_end else None

    def silence(self, stale_seconds: float) -> str:
        """What to say of a driver that has been silent for so long."""
        minutes = int(stale_seconds // 60)
        spent = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"
        step = self.last_checkpoint_step
        goes_on = "begins again" if step is None else f"goes on from step {step}"
        return f"no word from the driver for {spent}; `f2llm run` {goes_on}"
