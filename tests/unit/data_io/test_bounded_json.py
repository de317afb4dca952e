"""JSON that is not trusted: read within bounds, or refused with a ValueError."""

import pytest
from pydantic import BaseModel

from data_io.bounded_json import read_json, read_model


class Record(BaseModel):
    step: int
    loss: float | None = None


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"\xff\xfe", "[" * 30_000, '{"a":' * 30_000, "[" * 30_000 + "]" * 30_000, "1" * 5000,
        f"[{2**63}]", f"[{-(2**63)}]", "[1e999]", "[-1e999]",
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_a_hostile_text_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)


def test_values_within_bounds_are_read() -> None:
    assert read_json(f'{{"a": [{2**63 - 1}, -1, 1.5, true, null, "x"]}}') == {
        "a": [2**63 - 1, -1, 1.5, True, None, "x"]
    }


def test_what_python_writes_for_a_missing_number_is_none() -> None:
    assert read_json('{"loss": NaN, "rate": [Infinity, -Infinity]}') == {"loss": None, "rate": [None, None]}
    assert read_model(Record, '{"step": 3, "loss": NaN}') == Record(step=3)


def test_a_record_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        read_model(Record, '{"loss": 1.0}')
