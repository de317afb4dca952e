"""The site of the documentation: every page is in its sidebar, every link leads to a page and a heading."""

import subprocess
import sys
from pathlib import Path


def test_the_site_builds_without_a_warning(tmp_path: Path, project_root: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(tmp_path / "cache"),
        "docs",
        str(tmp_path / "site"),
    ]

    built = subprocess.run(command, cwd=project_root, capture_output=True, text=True, timeout=300, check=False)

    assert (built.returncode, built.stderr) == (0, "")
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "Getting started" in index
    # Search works offline: the index is a script next to the pages.
    assert (tmp_path / "site" / "searchindex.js").is_file()
