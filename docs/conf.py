"""The documentation as a site: `make docs` builds it with Sphinx, MyST and the theme Furo into build/docs.

The pages are plain Markdown, so that GitHub shows them as well. `SIDEBAR` is the only list of pages; a page that is
missing in it fails the build, as does a broken link.
"""

import os
import re
from pathlib import Path
from typing import Any

project = "f2llm-ray"
author = "The f2llm-ray authors"
project_copyright = author
html_title = "f2llm-ray"
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
html_theme_options = {
    "source_repository": "https://github.com/f2llm-ray/f2llm-ray/",
    "source_branch": "main",
    "source_directory": "docs/",
}
html_show_sourcelink = False
exclude_patterns = ["studies", "**/*.py"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# A prompt is not copied, and neither is the output below it.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
suppress_warnings = ["misc.highlighting_failure", "myst.header"]

SIDEBAR: dict[str, tuple[str, ...]] = {
    "Getting started": (
        "getting-started/install",
        "getting-started/demo",
        "getting-started/your-own-data",
        "getting-started/one-gpu",
        "getting-started/from-sentence-transformers",
    ),
    "On a cluster": (
        "cluster/before-you-begin",
        "cluster/first-job",
        "cluster/your-data-and-bucket",
        "cluster/scaling",
        "cluster/failures",
        "cluster/teams-and-quotas",
        "cluster/pod-profiles",
        "cluster/operator-settings",
        "cluster/platform",
        "cluster/security",
        "cluster/alerts",
        "cluster/upgrade-and-remove",
    ),
    "Tasks": (
        "tasks/prepare-data",
        "tasks/public-sources",
        "tasks/hard-negatives",
        "tasks/training-options",
        "tasks/evaluate",
        "tasks/ablation-studies",
        "tasks/embed",
        "tasks/serve",
        "tasks/publish",
        "tasks/ray-cluster-and-slurm",
        "tasks/applications/README",
    ),
    "Concepts": (
        "concepts/training-step",
        "concepts/data-order",
        "concepts/elasticity",
        "concepts/checkpoints",
        "concepts/operator",
        "concepts/how-it-is-tested",
    ),
    "Reference": (
        "reference/job-spec",
        "reference/command-line",
        "reference/run-directory",
        "reference/metrics",
        "reference/exit-codes",
        "reference/environment-variables",
        "glossary",
        "faq",
    ),
    "Developers": (
        "developers/architecture",
        "developers/design",
        "developers/testing",
        "developers/debugging",
        "developers/style",
    ),
}
BELOW = {
    "tasks/applications/README": (
        "semantic-search",
        "question-answering",
        "recommendation",
        "classification",
        "clustering",
    )
}
"""Pages that hang below another page of the sidebar."""

_ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"(\]\()((?!https?:|mailto:|#)[^)\s]+)(\))")


def _add_navigation(_app: Any, name: str, source: list[str]) -> None:
    """Give a page its part of the sidebar, and turn links that leave docs/ into links to the repository."""
    if name == "index":
        source[0] += "".join(_toctree(pages, caption=caption) for caption, pages in SIDEBAR.items())
    if name in BELOW:
        source[0] += _toctree(BELOW[name])
    page = _ROOT / "docs" / name
    source[0] = _LINK.sub(lambda link: link[1] + _target(link[2], page.parent) + link[3], source[0])


def _toctree(pages: tuple[str, ...], *, caption: str = "") -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n\n```{toctree}\n" + "\n".join([*options, "", *pages]) + "\n```\n"


def _target(link: str, folder: Path) -> str:
    path, _, anchor = link.partition("#")
    file = Path(os.path.normpath(folder / path))
    if file.is_relative_to(_ROOT / "docs") and file.suffix == ".md":
        return link
    kind = "tree" if file.is_dir() else "blob"
    return f"https://github.com/f2llm-ray/f2llm-ray/{kind}/main/{file.relative_to(_ROOT)}" + (
        f"#{anchor}" if anchor else ""
    )


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_navigation)
