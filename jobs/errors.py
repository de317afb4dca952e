"""Errors of the command line. `f2llm explain exit-codes` lists the exit codes of all layers."""

from data_io.errors import ConfigError, F2LLMError

__all__ = [
    "ConfigError",
    "F2LLMError",
    "KubernetesError",
    "NotFoundInKubernetes",
    "RefusedByKubernetes",
    "StaleObject",
    "UsageError",
]


class UsageError(F2LLMError):
    """The command has invalid arguments or options. The argument parser also exits with 2."""

    exit_code = 2
    error_class = "user"


class KubernetesError(F2LLMError):
    """The Kubernetes API is unreachable, or cannot serve the request now."""

    exit_code = 11
    error_class = "infrastructure"
    retryable = True


class NotFoundInKubernetes(KubernetesError):
    """Kubernetes has no such object."""

    error_class = "user"
    retryable = False


class RefusedByKubernetes(KubernetesError):
    """Kubernetes denied the request: the job spec breaks a rule, or a permission is missing."""

    error_class = "user"
    retryable = False


class StaleObject(KubernetesError):
    """The object was changed by another client after it was read, or its name is already in use."""
