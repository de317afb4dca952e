"""`f2llm data sources`, and the options of `f2llm data prepare` for the recipe's public sources."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.cli.options import Debug, Json, print_json
from jobs.errors import UsageError
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.config import S3Options
    from data_io.sources.source import PublicSource
    from jobs.planning.estimate import DataSize

LicenseRule = Literal["any", "commercial", "commercial-or-unclear"]
Recipe = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe",
        metavar="NAME[,NAME...]",
        help="Instead of files: public sources by name, or all (see `f2llm data sources`). May be repeated.",
        show_default=False,
    ),
]
Released = Annotated[
    str | None,
    typer.Option(
        "--released",
        metavar="FOLDER",
        help="Instead of files: the recipe's published Parquet, files named <source>.parquet.",
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="Read --recipe from copies in FOLDER/<source>/, not from the hub.",
        show_default=False,
    ),
]
Revision = Annotated[
    list[str] | None,
    typer.Option(
        "--revision",
        metavar="NAME=REVISION",
        help="Load a --recipe source at this commit of the hub. May be repeated.",
        show_default=False,
    ),
]
MaxRows = Annotated[
    int | None,
    typer.Option(
        "--max-rows", min=1, metavar="N", help="Keep the first N rows of each public source.", show_default=False
    ),
]
Rule = Annotated[LicenseRule, typer.Option("--license", help="Which public sources are allowed by their licenses.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-benchmark",
        metavar="mteb|FILE|DATA",
        help="Drop rows whose query or positive is one of these evaluation texts. May be repeated.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class PublicOptions:
    """The options of `f2llm data prepare` that belong to public sources."""

    recipe: list[str] | None
    released: str | None
    folder: str | None
    revision: list[str] | None
    max_rows: int | None
    license: LicenseRule
    exclude: list[str] | None

    def prepare(
        self, data: str, s3: "S3Options", *, workers: int | None, memory_mib: int | None, say: Callable[[str], None]
    ) -> "DataSize":
        """Make the data set."""
        with needs("data"):
            from jobs.workflows.data import prepare_recipe, prepare_released
        if self.released is not None:
            return prepare_released(
                data, s3, self.released, max_rows=self.max_rows, license=self.license, exclude=self.exclude or (),
                workers=workers, memory_mib=memory_mib, say=say,
            )  # fmt: skip
        names = [name for text in self.recipe or () for name in text.replace(",", " ").split()]
        return prepare_recipe(
            data, s3, names, folder=self.folder, revisions=_revisions(self.revision or ()), max_rows=self.max_rows,
            license=self.license, exclude=self.exclude or (), workers=workers, memory_mib=memory_mib, say=say,
        )  # fmt: skip


def sources(
    license: Annotated[LicenseRule, typer.Option("--license", help="Only sources whose licenses allow this.")] = "any",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the public sources of the recipe with their licenses.

    Rows are the recipe's, after mining. `yes`, `no` and `unclear` say whether the license allows commercial use.
    """
    from data_io.sources.catalogue import SOURCES, allowed

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
    """A source for programs."""
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


def _revisions(given: Iterable[str]) -> dict[str, str]:
    revisions = {}
    for text in given:
        name, equals, revision = text.partition("=")
        if not (name and equals and revision):
            raise UsageError(f"--revision {text}: expected NAME=REVISION", remedy="for example --revision imdb=3d86128")
        revisions[name] = revision
    return revisions
