"""Errors of training. The class says whether the user or a retry can fix an error (see data_io.errors)."""

from data_io.errors import F2LLMError


class RunConflict(F2LLMError):
    """The run directory belongs to another job spec, or holds state that this job spec must not touch."""

    exit_code = 6
    error_class = "user"


class CheckpointError(F2LLMError):
    """No checkpoint can be used: all are damaged, or one has another version, data order or model."""

    exit_code = 7
    error_class = "storage"


class CheckpointDamaged(CheckpointError):
    """The content of a checkpoint differs from the content that was written. An earlier checkpoint can be used."""


class ModelError(F2LLMError):
    """Weights or tokenizer could not be loaded, or do not match."""

    exit_code = 8
    error_class = "user"


class TrainingError(F2LLMError):
    """Training failed: workers died more often than the failure budget allows."""

    exit_code = 9
    error_class = "infrastructure"
    retryable = True


class WorkerLost(TrainingError):
    """The process of a worker, or its node, died or became unreachable."""


class PeerLost(WorkerLost):
    """A worker lost its connection to another worker. The cause is the error that ended the other worker."""


class WorkersHang(TrainingError):
    """A step took much longer than usual and did not end. The message names the worker that the others wait for."""


class LossNotFinite(TrainingError):
    """The loss of a step is NaN or infinity. A retry would compute the same loss again."""

    error_class = "user"
    retryable = False


class CapacityError(F2LLMError):
    """The machine or cluster lacks the resources that the job spec requests."""

    exit_code = 10
    error_class = "capacity"
    retryable = True
