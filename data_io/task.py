"""The three kinds of source in the recipe (arXiv 2510.02294, section 2) and what follows from each."""

import re
from enum import StrEnum

_PROMPT = re.compile(r"Instruct: (?P<instruction>.*)\nQuery: ", re.DOTALL)


class Kind(StrEnum):
    """What a source's positives mean; the manifest says it, code never guesses it from a name."""

    RETRIEVAL = "retrieval"
    CLUSTERING = "clustering"
    CLASSIFICATION = "classification"

    @property
    def uses_in_batch_negatives(self) -> bool:
        """Whether other rows' positives are negatives; elsewhere they may share the label."""
        return self is Kind.RETRIEVAL

    @property
    def recipe_negatives(self) -> int:
        """Hard negatives stored per row in the released data: 24, and 1 for binary classification."""
        return 1 if self is Kind.CLASSIFICATION else 24


def format_query(text: str, instruction: str) -> str:
    """The text that is embedded for a query; documents carry no instruction (section 2).

    An empty instruction leaves the text as it is.
    """
    return f"Instruct: {instruction}\nQuery: {text}" if instruction else text


def instruction_of(prompt: str) -> str | None:
    """The instruction in what `format_query` puts before a text; empty for no prompt, None for a prompt of others."""
    found = _PROMPT.fullmatch(prompt)
    return found["instruction"] if found else None if prompt else ""
