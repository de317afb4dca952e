"""Errors of the command line; the exit codes of all layers are listed in docs/reference/exit-codes.md."""

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
    """The command was called in a way that cannot work; 2 is also what the argument parser exits with."""

    exit_code = 2
    error_class = "user"


class KubernetesError(F2LLMError):
    """The Kubernetes API does not answer, or cannot do now what it was asked."""

    exit_code = 11
    error_class = "infrastructure"
    retryable = True


class NotFoundInKubernetes(KubernetesError):
    """Kubernetes has no such object."""

    error_class = "user"
    retryable = False


class RefusedByKubernetes(KubernetesError):
    """Kubernetes answered, and the answer is no: a document that breaks a rule, or missing permission."""

    error_class = "user"
    retryable = False


class StaleObject(KubernetesError):
    """Somebody else has written the object since it was read, or a name is taken."""
