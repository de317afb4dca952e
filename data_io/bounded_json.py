"""JSON from stores and files, which is not trusted."""

import json
from math import isinf
from typing import Any, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)

_MOST_DIGITS = 19
"""Digits of the largest integer of 64 bits."""


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text. NaN and Infinity, which Python writes although JSON has no such values, become None.

    Raises ValueError if it is not JSON, is nested deeper than Python reads, or has a number beyond 64 bits.
    """
    try:
        return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_model(model: type[Model], text: str | bytes) -> Model:
    """The record in a JSON text. Raises ValueError as `read_json` does, and if the record is not valid."""
    return model.model_validate(read_json(text))


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS + 1 or abs(value := int(digits)) >= 2**63:
        raise ValueError(f"it has an integer of {len(digits):,} digits")
    return value


def _number(digits: str) -> float:
    if isinf(value := float(digits)):
        raise ValueError(f"it has a number that is too large: {digits[:20]}")
    return value
