"""Refusals in the form that OpenAI's clients read: a status, and a body with the mistake and the remedy."""

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """A response with a status other than 200.

    `code` is for programs, `param` names the field in question. With `retry_after` a client can retry after that many
    seconds. The openai package retries automatically after 429 and 503.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": _type(self.status), "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def _type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


def overloaded(waiting: str, retry_after: int) -> Refusal:
    """429: the queue is full."""
    return Refusal(
        429,
        f"The server is busy: {waiting}. Retry in {retry_after} s, or add replicas.",
        code="overloaded",
        retry_after=retry_after,
    )


def stopping() -> Refusal:
    """503: this process is stopping. Another replica can answer the request."""
    return Refusal(503, "The server is stopping. Retry in 5 s.", code="stopping", retry_after=5)


def too_late(seconds: float) -> Refusal:
    """504: the request timed out."""
    return Refusal(
        504,
        f"The request was not answered within {seconds:g} s. Send fewer texts per request, or raise --timeout.",
        code="timeout",
    )


def too_large(found: str, most: int) -> Refusal:
    """413: the body is larger than the limit."""
    return Refusal(
        413,
        f"The body has {found} bytes; the limit is {most:,}. Send fewer texts per request.",
        code="body_too_large",
    )
