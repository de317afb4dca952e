"""Writes the table of public sources into docs/tasks/public-sources.md: `python -m tools.generate.sources_table`.

A test fails if it is out of date.
"""

from pathlib import Path

from data_io.sources.catalog import SOURCES
from data_io.sources.source import PublicSource

PAGE = Path(__file__).parents[2] / "docs" / "tasks" / "public-sources.md"
_BEGIN, _END = "<!-- sources -->\n", "<!-- /sources -->\n"
_HEAD = ("source", "kind", "family", "rows", "negatives", "license", "commercial use", "instruction", "from")


def with_table(page: str) -> str:
    """The page with the current table between its two markers."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = [_HEAD, ("---",) * len(_HEAD), *map(_cells, SOURCES)]
    return before + _BEGIN + "".join(f"| {' | '.join(cells)} |\n" for cells in rows) + _END + after


def _cells(source: PublicSource) -> tuple[str, ...]:
    license = source.license
    return (
        f"[{source.name}](https://{source.address})",
        str(source.kind),
        source.family,
        f"{source.expected_rows:,}",
        str(source.negatives),
        license.name + (" *" if license.checked else ""),
        license.status + (f" ({license.why})" if license.why else ""),
        source.instruction.text,
        source.instruction.origin,
    )


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
