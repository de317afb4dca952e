"""Errors of training: what the user or a retry can mend is said by the class (see data_io.errors)."""

from data_io.errors import F2LLMError


class RunConflict(F2LLMError):
    """The run directory belongs to another document, or holds state that this document must not touch."""

    exit_code = 6
    error_class = "user"


class CheckpointError(F2LLMError):
    """No checkpoint can be used: all are damaged, or one is of another version, data order or model."""

    exit_code = 7
    error_class = "storage"


class CheckpointDamaged(CheckpointError):
    """A checkpoint is not what was written; the one before it may be used."""


class ModelError(F2LLMError):
    """Weights or tokenizer could not be loaded or do not fit together."""

    exit_code = 8
    error_class = "user"


class TrainingError(F2LLMError):
    """The training itself failed: a worker died more often than the budget allows."""

    exit_code = 9
    error_class = "infrastructure"
    retryable = True


class WorkerLost(TrainingError):
    """The process of a worker, or its node, died or fell silent."""


class PeerLost(WorkerLost):
    """A worker lost touch with another one: what ended that one is the cause."""


class WorkersHang(TrainingError):
    """A step did not end for much longer than steps take: the message names the worker that the others wait for."""


class LossNotFinite(TrainingError):
    """A step gave NaN or infinity: the same step would give it again."""

    error_class = "user"
    retryable = False


class CapacityError(F2LLMError):
    """The machine or cluster cannot give what the document asks for."""

    exit_code = 10
    error_class = "capacity"
    retryable = True
