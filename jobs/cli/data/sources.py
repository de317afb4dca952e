"""`f2llm data sources`: the public sources of the recipe."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.cli.options import Debug, Json, print_json

if TYPE_CHECKING:
    from data_io.sources.source import PublicSource

LicenseRule = Literal["any", "commercial", "commercial-or-unclear"]


def sources(
    license: Annotated[
        LicenseRule, typer.Option("--license", help="List only sources whose licenses allow this use.")
    ] = "any",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the public sources of the recipe with their licenses.

    Row counts are those of the recipe, after mining. `yes`, `no` and `unclear` tell whether the license allows
    commercial use.
    """
    from data_io.sources.catalog import SOURCES, allowed

    shown = [source for source in SOURCES if allowed(source, license)]
    if json:
        print_json({"sources": [describe(source) for source in shown]})
        return
    names, families, kinds, licenses = (
        max(map(len, column))
        for column in zip(*((s.name, s.family, str(s.kind), s.license.name) for s in shown), strict=True)
    )
    for source in shown:
        print(
            f"{source.name:<{names}}  {source.kind:<{kinds}}  {source.family:<{families}}  "
            f"{source.expected_rows:>9,}  {source.license.name:<{licenses}}  {source.license.status:<7}  "
            f"{source.address}"
        )
    by_status = {status: sum(s.license.status == status for s in shown) for status in ("yes", "no", "unclear")}
    print(
        f"{len(shown)} sources, {sum(s.expected_rows for s in shown):,} rows; commercial use: "
        + ", ".join(f"{count} {status}" for status, count in by_status.items())
    )


def describe(source: "PublicSource") -> Mapping[str, object]:
    """A source as plain values, for --json."""
    return {
        "name": source.name,
        "family": source.family,
        "kind": str(source.kind),
        "host": source.host,
        "id": source.id,
        "listed_as": source.listed_as,
        "address": source.address,
        "tables": [vars(table) for table in source.tables],
        "revision": source.revision,
        "expected_rows": source.expected_rows,
        "negatives": source.negatives,
        "instruction": source.instruction.text,
        "instruction_origin": source.instruction.origin,
        "license": source.license.name,
        "commercial": source.license.commercial,
        "license_note": source.license.why,
        "license_checked": source.license.checked,
    }
