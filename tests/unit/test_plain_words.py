"""The words of the repository: no banned pattern, no term that the glossary replaces, no sentence that is too long."""

from pathlib import Path

import pytest

from tests.support.plain_words import Text, hits, prose, repository_files, sentences


def test_the_repository_is_in_plain_words() -> None:
    found = [str(hit) for path in repository_files() for hit in hits(prose(path))]

    assert found == []


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("It keeps what is needed.", "what as a noun"),
        ("None where there is no file.", "where for if"),
        ("24 negatives a row.", "a for per"),
        ("The run goes on from its checkpoint.", "image"),
        ("This is no pod.", "is no"),
        ("The namespace; otherwise the context's.", "ellipsis"),
        ("A field of the document.", "term: job spec"),
        ("The tokeniser lies in a folder.", "term"),
    ],
)
def test_each_rule_finds_its_pattern(words: str, rule: str) -> None:
    assert rule in {hit.rule for hit in hits([Text(Path("page.md"), 1, words, counted=False)])}


@pytest.mark.parametrize(
    "words",
    [
        "What is f2llm-ray?",
        "It lies in the `folder`.",
        "24 negatives per row, behind a proxy.",
        "It is no longer used.",
    ],
)
def test_words_that_are_meant_are_not_found(words: str) -> None:
    assert list(hits([Text(Path("page.md"), 1, words, counted=True)])) == []


def test_a_sentence_has_at_most_30_words_where_people_read() -> None:
    long = " ".join(["word"] * 31) + "."

    assert [hit.rule for hit in hits([Text(Path("page.md"), 1, long, counted=True)])] == ["long sentence"]
    assert list(hits([Text(Path("code.py"), 1, long, counted=False)])) == []
    assert sentences("One. Two, e.g. three? Four") == ["One.", "Two, e.g.", "three?", "Four"]


def test_code_of_a_page_is_not_prose(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n\nText with `code`.\n\n```console\n$ what is mended\n```\n\n"
        "- an item\n- another [link](folder.md)\n\n| a | b |\n|---|---|\n"
    )

    assert [text.words for text in prose(page)] == [
        "A title", "Text with `code`.", "an item", "another [link]", "a", "b",
    ]  # fmt: skip


def test_help_and_messages_are_counted_docstrings_and_comments_are_not(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        '"""A docstring."""\nx = f"a message of {x} words"\ny = "a help text"  # a comment\n"""About y."""\n'
    )

    assert {(text.words, text.counted) for text in prose(module)} == {
        ("A docstring.", False), ("a message of `x` words", True), ("a help text", True), ("# a comment", False),
        ("About y.", False),
    }  # fmt: skip
