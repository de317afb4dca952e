"""The sources file, which lists the user's files of a data set."""

from pathlib import Path

import pytest

from data_io.task import Kind
from jobs.errors import ConfigError, UsageError
from jobs.spec.sources_file import load_sources_file, parse_source


def test_a_sources_file_gives_plain_values_with_kinds(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(
        "sources:\n"
        "- {name: faq, address: faq.jsonl, kind: retrieval, mine_lexical: 7, columns: {query: q}}\n"
        "- {name: pairs, address: pairs.csv, kind: sts}\n"
        "seed: 3\n"
    )

    sources = load_sources_file(str(file))

    faq, pairs = sources.sources_as_values()
    assert (faq["name"], faq["kind"], faq["mine_lexical"], faq["columns"]["query"]) == ("faq", Kind.RETRIEVAL, 7, "q")
    assert isinstance(faq["kind"], Kind)
    assert pairs["kind"] == "sts"
    assert sources.seed == 3


def test_problems_of_a_sources_file_have_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text("sources:\n- name: faq\n  adress: faq.jsonl\n  kind: search\n")

    with pytest.raises(ConfigError) as caught:
        load_sources_file(str(file))

    message = caught.value.message
    assert "sources.0.address: required, but missing" in message
    assert ":3:3: sources.0.adress: unknown field; did you mean `address`?" in message
    assert ":4:3: sources.0.kind: found `search` (a string), expected one of retrieval, clustering" in message


def test_an_empty_sources_file_is_refused_with_its_expected_fields(tmp_path: Path) -> None:
    (tmp_path / "sources.yaml").write_text("")

    with pytest.raises(ConfigError, match="expected a mapping with sources"):
        load_sources_file(str(tmp_path / "sources.yaml"))


def test_a_source_of_the_command_line_is_named_with_its_kind() -> None:
    source = parse_source("faq:retrieval=data/a=b.jsonl", instruction="Find.", license="MIT", mine_lexical=7)

    assert (source.name, source.kind, source.address) == ("faq", "retrieval", "data/a=b.jsonl")
    assert (source.instruction, source.license, source.mine_lexical) == ("Find.", "MIT", 7)


def test_negatives_are_mined_for_retrieval_only() -> None:
    kinds = ("retrieval", "clustering", "classification", "sts")

    mined = [parse_source(f"a:{k}=f", instruction=None, license="", mine_lexical=7).mine_lexical for k in kinds]

    assert mined == [7, 0, 0, 0]


@pytest.mark.parametrize("text", ["faq.jsonl", "faq=faq.jsonl", "faq:search=faq.jsonl", ":retrieval=a", "a:retrieval="])
def test_an_invalid_source_option_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="NAME:KIND=PATH"):
        parse_source(text, instruction=None, license="", mine_lexical=0)
