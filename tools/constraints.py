"""Write constraints.txt: the versions that are installed, of everything the project and its extras need.

Run by `make constraints` with the environment's Python, after the tests have passed with these versions.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "f2llm-ray"
EXTRAS = (
    "data",
    "train",
    "eval",
    "benchmark",
    "applications",
    "operator",
    "dev",
)  # not flash-attn: it is compiled where there is a GPU
HEADER = "# What was tested: names and versions. Written by `make constraints`; do not edit.\n"


def closure(project: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Name -> installed version of everything `project[extras]` needs, itself left out.

    Raises PackageNotFoundError for a requirement that is not installed.
    """
    seen: set[tuple[str, str]] = set()
    versions: dict[str, str] = {}
    todo = [(canonicalize_name(project), extra) for extra in ("", *extras)]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        found = distribution(name)
        versions[name] = found.version
        for line in found.requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(requirement.name), wanted) for wanted in ("", *requirement.extras)]
    del versions[canonicalize_name(project)]
    return versions


def main() -> None:
    try:
        versions = closure(PROJECT, EXTRAS)
    except PackageNotFoundError as error:
        sys.exit(f"{error.name} is not installed; run `make constraints`, which installs every extra first")
    lines = [f"{name}=={version}\n" for name, version in sorted(versions.items())]
    Path(__file__).parent.parent.joinpath("constraints.txt").write_text(HEADER + "".join(lines))
    sys.stdout.write(f"constraints.txt: {len(lines)} packages\n")


if __name__ == "__main__":
    main()
