"""`f2llm search`: invalid options are refused before an index is opened, and queries get prompts."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.errors import UsageError
from jobs.workflows.models import query_prefix
from tests.support.calling import Run

MODEL = SimpleNamespace(prompts=(("query", "Instruct: Find it.\nQuery: "), ("faq", "ask: ")))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "found no query, expected exactly one of QUERY, --queries and --like"),
        (("a", "--like", "x"), "found QUERY and --like, expected exactly one of"),
        (("a", "--prompt", "faq", "--instruction", "x"), "--prompt and --instruction exclude each other"),
        (("--like", "x", "--model", "m"), "have no effect with --like"),
    ],
)
def test_invalid_options_are_refused(f2llm: Run, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = f2llm("search", "index", *arguments)

    assert (code, out) == (2, "")
    assert said in err


def test_a_file_without_queries_and_a_directory_without_an_index_are_named(f2llm: Run, tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n \n")

    code, _, err = f2llm("search", "index", "--queries", "none.txt")
    assert (code, "no query in none.txt" in err) == (2, True)

    code, _, err = f2llm("search", "index", "a", "--method", "bm25")
    assert (code, "index has no complete index: index.json is missing" in err) == (3, True)


def test_a_query_gets_the_models_prompt_the_named_one_or_the_instruction() -> None:
    assert query_prefix(MODEL, None, None) == "Instruct: Find it.\nQuery: "
    assert query_prefix(MODEL, "faq", None) == "ask: "
    assert query_prefix(MODEL, None, "Answer.") == "Instruct: Answer.\nQuery: "
    assert query_prefix(SimpleNamespace(prompts=()), None, None) == ""
    with pytest.raises(UsageError, match="no prompt 'other'; its prompts: query, faq"):
        query_prefix(MODEL, "other", None)
