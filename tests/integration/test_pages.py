"""The commands of README and docs print what the pages show. Real text, real models, real runs."""

from pathlib import Path

import pytest

from tests.support.pages import blocks, differences, page_text, pages, prepare, run_page

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

APPLICATIONS = "docs/tasks/applications/"
"""Its pages share a directory: the first one makes the texts and the model of all."""
RUN = [page for page in pages() if any(block.runs for block in blocks(page_text(page)))]


def check(page: str, folder: Path, done: set[str]) -> None:
    found = list(run_page(page, folder, done=done))

    wrong = [
        f"$ {command.command}\n{line}"
        for command, out, both in found
        for line in differences(command.output, out, both)
    ]
    assert not wrong, "\n".join([*wrong, f"write it again: python -m tests.support.pages --write {page}"])


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    folder = tmp_path_factory.mktemp("applications")
    prepare(folder)
    return folder, set()


@pytest.mark.parametrize("page", [page for page in RUN if page.startswith(APPLICATIONS)])
def test_a_page_of_applications_shows_what_its_commands_print(page: str, applications: tuple[Path, set[str]]) -> None:
    check(page, *applications)


@pytest.mark.parametrize("page", [page for page in RUN if not page.startswith(APPLICATIONS)])
def test_a_page_shows_what_its_commands_print(page: str, tmp_path: Path) -> None:
    prepare(tmp_path)

    check(page, tmp_path, set())
