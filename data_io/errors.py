"""Errors a user can read.

Two questions decide the class of an error: can the user mend it, and can a retry mend it? The answers are the class
attributes below; the command line turns them into an exit code, a retrying caller into a decision.
"""

from typing import ClassVar


class F2LLMError(Exception):
    """Base of every error this project raises on purpose.

    The message says what was found and what was expected; `remedy` says what to do. Neither ever holds a secret or a
    URI with credentials.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    error_class: ClassVar[str] = "internal"

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message if self.remedy is None else f"{self.message}\n  hint: {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles errors across processes; the default would lose the keyword argument.
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(cls: type[F2LLMError], message: str, remedy: str | None) -> F2LLMError:
    return cls(message, remedy=remedy)


class ConfigError(F2LLMError):
    """The document is wrong: the user mends it, a retry cannot."""

    exit_code = 3
    error_class = "user"


class DataError(F2LLMError):
    """The data set is wrong or damaged: source, shard, row group and row are in the message."""

    exit_code = 4
    error_class = "data"


class StorageError(F2LLMError):
    """The store refused or stayed away after every retry."""

    exit_code = 5
    retryable = True
    error_class = "storage"


class StoreAccessError(StorageError):
    """The store answered, and the answer is no: credentials, permissions, bucket name."""

    retryable = False


class NotFoundInStore(StorageError):
    """The key does not exist."""

    retryable = False


class ObjectChanged(StorageError):
    """The object's ETag is no longer the one that the reader was promised."""

    retryable = False
