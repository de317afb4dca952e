"""Refusals as OpenAI's clients read them: a status, and a body that says what was found, expected and to be done."""

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """An answer other than 200.

    `code` is a word for programs, `param` the field that is meant. With `retry_after` a client may ask again after as
    many seconds; the openai package does so by itself for 429 and 503.
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
    """429: there is more to do than may wait."""
    return Refusal(
        429,
        f"The server is busy: {waiting}. Ask again in {retry_after} s, or add replicas.",
        code="overloaded",
        retry_after=retry_after,
    )


def stopping() -> Refusal:
    """503: this process ends, another one may take the request."""
    return Refusal(503, "The server is stopping. Ask again in 5 s.", code="stopping", retry_after=5)


def too_late(seconds: float) -> Refusal:
    """504: the time of a request is over."""
    return Refusal(
        504,
        f"The request was not done within {seconds:g} s. Send fewer texts at once, or raise --timeout.",
        code="timeout",
    )


def too_large(found: str, most: int) -> Refusal:
    """413: a body beyond the limit."""
    return Refusal(
        413,
        f"The body has {found} bytes, and at most {most:,} are taken. Send fewer texts in a request.",
        code="body_too_large",
    )
