"""The interface of the recorder. Rank 0's recorder records the run (run_recorder.py); all others do nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from data_io.loading.loader import LoadedStep
from data_io.storage.ranged_reads import ReadStats
from ray_app.checkpointing.checkpoint import CheckpointSaver, Restored, SavedCheckpoint
from ray_app.training.collectives import SharedStep


@dataclass(frozen=True)
class StepResult:
    """A finished step. `grad_norm` is the norm before clipping; `seconds` counts from the end of the previous step."""

    loaded: LoadedStep
    shared: SharedStep
    learning_rate: float
    grad_norm: float
    seconds: float
    micro_batches_consumed: int
    query_hashes: Sequence[Sequence[str]]
    """Query hashes of the step's examples, by part; empty unless the job records its examples."""


class Recorder(Protocol):
    """Records an attempt. Every rank calls the same methods; only rank 0's recorder writes anything."""

    def begin(self, restored: Restored | None) -> None:
        """The attempt starts from `restored`, or from step 0."""

    def save_is_due(self, step: int) -> bool:
        """Whether rank 0 wants a checkpoint after `step`."""

    def step(self, result: StepResult) -> None:
        """A step has ended."""

    def save_begun(self) -> None:
        """A save starts."""

    def saved(self, checkpoint: SavedCheckpoint | None) -> None:
        """A save is complete. None: no save has finished."""

    def poll(self, saver: CheckpointSaver) -> None:
        """Record the background save if it is complete."""

    def finish(self, reads_by_rank: Sequence[Mapping[str, ReadStats]]) -> None:
        """Training has ended. `reads_by_rank`: the reads of each rank, by source."""

    def flush(self) -> None:
        """When this returns, every line written so far is in the store. Called by another thread."""

    def close(self) -> None:
        """When this returns, lines and status are in the store."""


class NullRecorder:
    """The recorder of the ranks above 0."""

    def begin(self, restored: Restored | None) -> None:
        pass

    def save_is_due(self, step: int) -> bool:
        return False

    def step(self, result: StepResult) -> None:
        pass

    def save_begun(self) -> None:
        pass

    def saved(self, checkpoint: SavedCheckpoint | None) -> None:
        pass

    def poll(self, saver: CheckpointSaver) -> None:
        pass

    def finish(self, reads_by_rank: Sequence[Mapping[str, ReadStats]]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass
