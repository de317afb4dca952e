"""Translates the object store's errors for the user. It reads their texts: obstore gives status codes nowhere else."""

import errno
import os
import re

from data_io.errors import ConfigError, F2LLMError, NotFoundInStore, ObjectChanged, StorageError, StoreAccessError

_ERRNO = re.compile(r"\(os error (\d+)\)")
_STATUS = re.compile(r"status code: (\d{3})")
_S3_CODE = re.compile(r"(?:<Code>|\(code: )(\w+)")  # the second form: obstore, for a key in a bulk delete
_NODE_IDENTITY = ("169.254.169.254", "169.254.170.2", "169.254.170.23")
_PASSING = {"RequestTimeout", "IncompleteBody", "OperationAborted", "SlowDown", "InternalError"}
"""Codes that a retry can fix, though some have the status of a refusal."""
_TOKEN_SERVICE = "performing POST REDACTED"  # nosec B105
"""obstore hides the URL of a request with a token, such as a pod's request to AWS's token service."""
_PROFILES = 'eval "$(aws configure export-credentials --format env)"'
_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, and the permissions for this bucket"
_LOCAL = {
    errno.EACCES: ("permission denied", "change the directory's owner or mode, or use another directory"),
    errno.EPERM: ("operation not permitted", "change the directory's owner or mode, or use another directory"),
    errno.EROFS: ("the file system is read-only", "use a directory that can be written"),
    errno.ENOTDIR: ("a part of the path is a file, not a directory", "move that file away or use another directory"),
    errno.EEXIST: ("a part of the path is a file, not a directory", "move that file away or use another directory"),
    errno.EISDIR: ("it is a directory, not a file", "move that directory away or use another name"),
    errno.ENOSPC: ("no space is left on the device", "free some space or use another directory"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or use another directory"),
    errno.ENAMETOOLONG: ("the name is too long", "use a shorter name"),
}


class ObjectTooShort(StorageError):
    """The object ends before the requested range."""

    retryable = False


class ObjectTooLarge(StorageError):
    """The object has more bytes than its reader keeps in memory."""

    retryable = False


def translate(error: Exception, *, place: str, bucket: str | None, has_answered: bool = False) -> F2LLMError:
    """The project's error for one of obstore's or the operating system's. `place` is the object, safe to print.

    `bucket` is None for a local directory. `has_answered`: the store has answered this process's credentials before.
    Only the kind of failure is taken from the original error, because its text may contain headers.
    """
    text = str(error)
    if type(error).__name__ == "PreconditionError":
        return ObjectChanged(f"{place}: the object was overwritten; its ETag has changed")
    return _local(error, text, place) if bucket is None else _remote(error, text, place, bucket, has_answered)


def unusable_settings(error: Exception, *, place: str) -> ConfigError:
    """The error for settings in the environment that only obstore reads and rejects before any request."""
    empty = sorted(name for name, value in os.environ.items() if name.startswith("AWS_") and not value)
    found = f"; these are empty: {', '.join(empty)}" if empty else ""
    return ConfigError(
        f"{place}: the environment has settings that cannot be used: {str(error).split(chr(10), 1)[0]}{found}",
        remedy="correct or remove the AWS_ variables, SSL_CERT_FILE and SSL_CERT_DIR",
    )


def credentials_may_have_expired(error: Exception) -> bool:
    """Whether new credentials could make this request succeed."""
    text = str(error)
    return _refused(_first(_STATUS, text), _first(_S3_CODE, text))


def is_of_the_node(error: Exception) -> bool:
    """Whether the machine's own identity was unavailable. The store got no request."""
    return any(address in str(error) for address in _NODE_IDENTITY)


def out_of_range(error: BaseException | None) -> bool:
    """Whether the store says that a range begins after the end of the object."""
    text = str(error)
    return "Requested range was invalid" in text or "StartTooLarge" in text or _first(_STATUS, text) == "416"


def _local(error: Exception, text: str, place: str) -> F2LLMError:
    if isinstance(error, FileNotFoundError):
        return NotFoundInStore(f"{place}: no such file")
    number = getattr(error, "errno", None) or int(_first(_ERRNO, text) or 0)
    if number in _LOCAL:
        found, remedy = _LOCAL[number]
        return StoreAccessError(f"{place}: {found}", remedy=remedy)
    reason = os.strerror(number) if number else text.split("\n", 1)[0]
    return StorageError(f"{place}: {reason}")


def _remote(error: Exception, text: str, place: str, bucket: str, has_answered: bool) -> F2LLMError:
    status, code = _first(_STATUS, text), _first(_S3_CODE, text)
    if code == "NoSuchBucket":
        return StoreAccessError(f"{place}: there is no bucket {bucket!r}", remedy="create it or correct the s3:// URI")
    if isinstance(error, FileNotFoundError):
        return NotFoundInStore(f"{place}: no such object")
    if is_of_the_node(error):
        if has_answered:  # renewing credentials: the service is slow or busy
            return StorageError(
                f"{place}: this machine's identity service does not answer",
                remedy="check the node's metadata service",
            )
        return StoreAccessError(
            f"{place}: found no credentials in the environment, and this machine has no identity",
            remedy=f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; profiles of ~/.aws are not read, but this "
            f"command sets the variables from one: {_PROFILES}",
        )
    if _TOKEN_SERVICE in text or "Failed to read token file" in text:
        kind = StorageError if has_answered else StoreAccessError
        return kind(
            f"{place}: found no credentials: AWS's token service gave none for the role in AWS_ROLE_ARN",
            remedy="check AWS_ROLE_ARN, the role's trust policy, the file that AWS_WEB_IDENTITY_TOKEN_FILE names, and "
            "that https://sts.<region>.amazonaws.com is reachable",
        )
    if _refused(status, code):
        reason = code or f"HTTP {status}"
        return StoreAccessError(f"{place}: access denied ({reason})", remedy=_CREDENTIALS)
    if "Received redirect" in text or code in {"PermanentRedirect", "AuthorizationHeaderMalformed"}:
        return StoreAccessError(
            f"{place}: the bucket {bucket!r} is in another region",
            remedy="set storage.s3.region or AWS_REGION to its region",
        )
    if status is not None:
        answer = f"HTTP {status}" if code is None else f"HTTP {status}, {code}"
        passes = code in _PASSING or status in {"408", "429"} or (status.startswith("5") and status != "501")
        kind = StorageError if passes else StoreAccessError
        return kind(f"{place}: the store answered {answer}", remedy="check the store's own log")
    if "error sending request" in text:
        return StorageError(
            f"{place}: cannot connect",
            remedy="check storage.s3.endpoint_url or AWS_ENDPOINT_URL, the region, the network, and that the service "
            "is up",
        )
    return StorageError(f"{place}: the connection failed during a transfer")


def _refused(status: str | None, code: str | None) -> bool:
    return status in {"401", "403"} or code in {"AccessDenied", "ExpiredToken", "InvalidToken"}


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return None if match is None else match.group(1)
