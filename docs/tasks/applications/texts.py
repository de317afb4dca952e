"""Real texts to try the applications on, out of installed packages. Nothing is fetched.

    python docs/tasks/applications/texts.py

functions.jsonl: documented classes and functions; id (the full name), package, text.
passages.jsonl: paragraphs about scikit-learn's data sets; id, text.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_io.demo.docstrings import Deduplicator, Limits, read_package
from data_io.demo.packages import installed_packages

PACKAGES = ("networkx", "pandas", "scipy", "sklearn")
PER_PACKAGE = 100
SECTION = re.compile(r"^[A-Z][A-Za-z ]+\n-{3,}", re.MULTILINE)
"""The heading after which a docstring in the style of numpy lists its parameters."""
WORDS = 15


def functions() -> Iterator[dict[str, str]]:
    seen, limits = Deduplicator(), Limits(per_package=4 * PER_PACKAGE, per_module=12, body_max=240)
    for package in installed_packages(PACKAGES):
        found = read_package(package.name, package.root, limits=limits, seen=seen)
        public = {f"{d.module}.{d.name}": d for d in found if not any(part[0] == "_" for part in d.name.split("."))}
        for name, d in list(public.items())[:PER_PACKAGE]:
            prose = SECTION.split(d.body)[0].strip()
            yield {"id": name, "package": d.package, "text": f"{d.summary} {prose}".strip()}


def passages() -> Iterator[dict[str, str]]:
    (sklearn,) = installed_packages(("sklearn",))
    for path in sorted((sklearn.root / "datasets" / "descr").glob("*.rst")):
        paragraphs = (" ".join(part.split()) for part in path.read_text(encoding="utf-8").split("\n\n"))
        prose = [p for p in paragraphs if p[:1].isalpha() and p.endswith(".") and len(p.split()) >= WORDS]
        for number, text in enumerate(prose, start=1):
            yield {"id": f"{path.stem}-{number}", "text": text}


def write(out: Path, rows: Sequence[dict[str, str]]) -> None:
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    sys.stdout.write(f"{out}: {len(rows)} texts\n")


if __name__ == "__main__":
    write(Path("functions.jsonl"), list(functions()))
    write(Path("passages.jsonl"), list(passages()))
