"""The developers' pages match the code: paths, names in files, rooms and layers."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGES = ("data_io", "ray_app", "jobs")
PAGES = ("docs/developers/architecture.md", "CONTRIBUTING.md", "docs/developers/design.md")

_SPAN = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.-]+/(?:[\w.-]+/)*[\w.-]*")
_NAMES_IN_A_FILE = re.compile(r"`([\w./-]+\.py)` \(((?:`\w+`(?:, )?)+)\)")


def paths_in(page: str, root: Path) -> Iterator[str]:
    """Paths between backticks that begin with a directory of this repository, or end as Python files do."""
    folders = {path.name for path in root.iterdir() if path.is_dir()}
    for span in _SPAN.findall(page):
        if _PATH.fullmatch(span) and (span.partition("/")[0] in folders or span.endswith(".py")):
            yield span


def rooms(root: Path) -> set[str]:
    return {
        f"{package}/{path.name}/"
        for package in PACKAGES
        for path in (root / package).iterdir()
        if (path / "__init__.py").is_file()
    }


def read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_path_that_a_page_names_is_there(name: str, project_root: Path) -> None:
    named = set(paths_in(read(project_root, name), project_root))

    assert {path for path in named if not (project_root / path).exists()} == set()


@pytest.mark.parametrize("name", PAGES)
def test_every_name_after_a_file_is_defined_in_it(name: str, project_root: Path) -> None:
    for file, names in _NAMES_IN_A_FILE.findall(read(project_root, name)):
        code = (project_root / file).read_text(encoding="utf-8")
        for defined in _SPAN.findall(names):
            assert re.search(rf"^(?:class |def |async def )?{defined}\b", code, re.MULTILINE), (
                f"{file} has no {defined}"
            )


def test_the_architecture_page_names_every_room(project_root: Path) -> None:
    named = set(paths_in(read(project_root, PAGES[0]), project_root))

    assert rooms(project_root) - named == set()


def test_the_layers_of_the_architecture_page_are_those_that_lint_checks(project_root: Path) -> None:
    page = " ".join(read(project_root, PAGES[0]).split())
    contracts = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]

    for contract in contracts["contracts"]:
        if contract["type"] == "layers":
            (of,) = contract.get("containers", ["packages"])
            assert f"{of}: {' -> '.join(contract['layers'])}" in page, contract["name"]


def test_paths_are_found_by_their_first_directory_and_as_python_files(project_root: Path) -> None:
    page = (
        "`docs/tasks/prepare-data.md`, `docs/`, `jops/no.py`; not `model/`, `/v1/embeddings`, `f2llm run jobs/x`, "
        "`x.py`, docs/a.md"
    )

    assert list(paths_in(page, project_root)) == ["docs/tasks/prepare-data.md", "docs/", "jops/no.py"]
