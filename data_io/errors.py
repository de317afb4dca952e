"""Errors a user can read.

Two questions decide the class of an error: can the user fix it, and can a retry fix it? The answers are the class
attributes below. The command line turns them into an exit code; callers that retry use them to decide.
"""

from typing import ClassVar


class F2LLMError(Exception):
    """Base of every error this project raises on purpose.

    The message gives the found and the expected value, and `remedy` the action to take. Neither may contain a secret or
    a URI with credentials.
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
        # Ray pickles errors across processes; the default implementation would lose the keyword argument.
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(cls: type[F2LLMError], message: str, remedy: str | None) -> F2LLMError:
    return cls(message, remedy=remedy)


class ConfigError(F2LLMError):
    """The job spec is wrong: the user can fix it, a retry cannot."""

    exit_code = 3
    error_class = "user"


class DataError(F2LLMError):
    """The data set is wrong or damaged. The message names source, shard, row group and row."""

    exit_code = 4
    error_class = "data"


class StorageError(F2LLMError):
    """The store refused, or was still unreachable after every retry."""

    exit_code = 5
    retryable = True
    error_class = "storage"


class StoreAccessError(StorageError):
    """The store denied access: credentials, permissions or bucket name are wrong."""

    retryable = False


class NotFoundInStore(StorageError):
    """The key does not exist."""

    retryable = False


class ObjectChanged(StorageError):
    """The object's ETag changed since the reader first saw it."""

    retryable = False
