"""The page of public sources says what the records say."""

from tools.generate.sources_table import PAGE, with_table


def test_the_table_of_sources_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")

    assert page == with_table(page), "write it again: make generate"
    assert page.count("| [") == 60
