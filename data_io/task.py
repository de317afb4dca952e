"""The three task types of the recipe (arXiv 2510.02294, section 2) and their properties."""

import re
from enum import StrEnum

_PROMPT = re.compile(r"Instruct: (?P<instruction>.*)\nQuery: ", re.DOTALL)


class Kind(StrEnum):
    """The task type of a source: the meaning of its positives. The manifest states it; no code guesses it by name."""

    RETRIEVAL = "retrieval"
    CLUSTERING = "clustering"
    CLASSIFICATION = "classification"

    @property
    def uses_in_batch_negatives(self) -> bool:
        """Whether other rows' positives are used as negatives. In the other kinds they may have the same label."""
        return self is Kind.RETRIEVAL

    @property
    def recipe_negatives(self) -> int:
        """Hard negatives stored per row in the released data: 24, and 1 for binary classification."""
        return 1 if self is Kind.CLASSIFICATION else 24


def format_query(text: str, instruction: str) -> str:
    """The text that is embedded for a query. Documents have no instruction (section 2).

    With an empty instruction this is the text itself.
    """
    return f"Instruct: {instruction}\nQuery: {text}" if instruction else text


def instruction_of(prompt: str) -> str | None:
    """The instruction in a prefix of `format_query`: empty for no prefix, None for a prefix of another format."""
    found = _PROMPT.fullmatch(prompt)
    return found["instruction"] if found else None if prompt else ""
