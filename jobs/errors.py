"""Errors of the command line; the exit codes of all layers are listed in docs/reference/exit-codes.md."""

from data_io.errors import ConfigError, F2LLMError

__all__ = ["ConfigError", "F2LLMError", "UsageError"]


class UsageError(F2LLMError):
    """The command was called in a way that cannot work; 2 is also what the argument parser exits with."""

    exit_code = 2
    error_class = "user"
