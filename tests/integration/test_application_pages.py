"""The pages of docs/tasks/applications: their commands print what the pages show, on real text with a real model."""

from pathlib import Path

import pytest

from tests.support.pages import AFTER, FOLDER, PAGES, START, commands, differences, page_text, prepare, run_page

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands are run; those of the first page are done."""
    found = tmp_path_factory.mktemp("applications")
    prepare(found)
    check(START, found)
    return found


_done: set[str] = set()


def check(page: str, folder: Path) -> None:
    """Run a page's commands, once, and hold their output against the page."""
    if page in _done:
        return
    shown = [each.output for each in commands(page_text(page))]

    found = list(run_page(page, folder))

    assert shown
    wrong = [line for page_output, now in zip(shown, found, strict=True) for line in differences(page_output, now)]
    assert not wrong, "\n".join([*wrong, "write it again: python -m tests.support.pages"])
    _done.add(page)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_commands_print(page: str, folder: Path) -> None:
    if page in AFTER:
        check(AFTER[page], folder)
    check(page, folder)


def test_every_page_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {START, *PAGES}
