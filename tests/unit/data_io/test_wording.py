"""Texts that are not trusted, as they are printed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_io.wording import LONGEST_MESSAGE, shortened, shown, shown_json
from tests.support.hostile import ESCAPES

CONTROL = [*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xD800]


@pytest.mark.parametrize("code", CONTROL)
def test_a_control_character_is_shown_and_not_sent(code: int) -> None:
    assert shown(f"a{chr(code)}b") in (f"a\\x{code:02x}b", f"a\\u{code:04x}b")
    assert json.loads(shown_json(json.dumps(f"a{chr(code)}b", ensure_ascii=False))) == f"a{chr(code)}b"


@given(st.text(st.characters(exclude_categories=["C"])))
def test_other_text_stays_as_it_is(text: str) -> None:
    assert shown(f"{text}\n\t{text}") == f"{text}\n\t{text}"
    assert shown("שלום \u200f مرحبا \u200d🙂") == "שלום \u200f مرحبا \u200d🙂"


@given(st.text(st.characters(), max_size=60), st.integers(4, 70))
def test_a_shortened_text_is_shown_and_has_at_most_so_many_characters(text: str, most: int) -> None:
    made = shortened(text, most)

    assert len(made) <= most
    assert shown(made) == made
    assert made == shown(text) if len(shown(text)) <= most else made.endswith("...")


def test_a_long_message_is_cut_without_reading_all_of_it() -> None:
    made = shortened(ESCAPES * 100_000)

    assert made.startswith(r"\x1b]0;taken over\x07\x1b[31m\x9b2J\u202eabc")
    assert len(made) == LONGEST_MESSAGE
