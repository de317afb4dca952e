"""Links between pages, and from code to pages, lead to existing files and headings."""

import re
from collections.abc import Iterator
from pathlib import Path

_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CITED = re.compile(r"\b(docs/[\w/-]+\.md)#([\w-]+)")
_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**/*.md", "bench/results/*.md", "helm/*/README.md")
_CODE = ("data_io", "ray_app", "applications", "jobs", "tools", "bench", "tests")


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to headings: lower case, without punctuation, spaces as hyphens."""
    headings = _HEADING.findall(_FENCED.sub("", page))
    texts = [_LINK.sub(lambda link: link[0].partition("]")[0][1:], heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def links(page: str) -> Iterator[str]:
    """Relative links, images included, outside of blocks of code."""
    for target in _LINK.findall(_FENCED.sub("", page)):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def is_there(file: Path, anchor: str) -> bool:
    if not file.exists():
        return False
    return not anchor or anchor in anchors(file.read_text(encoding="utf-8"))


def test_every_link_of_a_page_leads_to_a_file_and_a_heading(project_root: Path) -> None:
    wrong = []
    for path in (path for pattern in _PAGES for path in project_root.glob(pattern)):
        for target in links(path.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            if not is_there(path.parent / file if file else path, anchor):
                wrong.append(f"{path.relative_to(project_root)}: {target}")

    assert wrong == []


def test_every_heading_that_code_cites_is_there(project_root: Path) -> None:
    wrong = []
    for path in (path for folder in _CODE for path in (project_root / folder).rglob("*.py")):
        for file, anchor in _CITED.findall(path.read_text(encoding="utf-8")):
            if not is_there(project_root / file, anchor):
                wrong.append(f"{path.relative_to(project_root)}: {file}#{anchor}")

    assert wrong == []


def test_anchors_are_those_of_github() -> None:
    page = "# The `step` (a/b_c.py)\n```\n# no heading\n```\n## [Data](data.md), again\n"

    assert anchors(page) == {"the-step-ab_cpy", "data-again"}
