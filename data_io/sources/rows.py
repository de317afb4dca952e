"""The rows of a public source: loaded, converted to examples, checked, each row once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from data_io.dataset.manifest import SourceInfo
from data_io.dataset.rows import MAX_TEXT_BYTES, Row
from data_io.dataset.schema import text_key
from data_io.errors import StorageError
from data_io.keyed_hash import mix
from data_io.sources.beir import Judgments, examples_of_judgments
from data_io.sources.classification import Binary, binary_examples
from data_io.sources.clustering import Clusters
from data_io.sources.clustering_draws import cluster_examples
from data_io.sources.hub import hub_records
from data_io.sources.local_copy import files_of, local_records
from data_io.sources.nli import Nli, nli_examples
from data_io.sources.pairs import Answers, Pairs, Passages, answer_examples, pair_examples, passage_examples
from data_io.sources.source import Counts, Example, Placed, PublicSource
from data_io.sources.sts import ScoredPairs, scored_examples
from data_io.user_files.records import fingerprint as file_fingerprint

CONVERTERS: Mapping[type, Callable[[Any, Any, Counts], Iterator[Example]]] = {
    Answers: answer_examples,
    Binary: binary_examples,
    Clusters: cluster_examples,
    Judgments: examples_of_judgments,
    Nli: nli_examples,
    Pairs: pair_examples,
    Passages: passage_examples,
    ScoredPairs: scored_examples,
}
"""The function for each shape. Not in the catalog, which must load without NumPy."""


@dataclass(frozen=True)
class PublicRows:
    """The rows of a source. May be iterated again, which reads the source again, and sent to another process.

    `folder` has local copies (DIR/<name>/); None loads from the hub. Rows that the user cannot fix are left out:
    blank texts, texts too long to store, a positive equal to its query, a repeated pair.
    """

    source: PublicSource
    folder: str | None = None
    revision: str | None = None
    max_rows: int | None = None

    def __iter__(self) -> Iterator[Row]:
        return self.rows(Counts())

    def rows(self, counts: Counts) -> Iterator[Row]:
        """The rows. While they are drawn, `counts` counts the rows that are left out."""
        if self.folder is None and self.source.host != "hub":
            raise StorageError(
                f"source {self.source.name!r} is not on the Hugging Face Hub but at {self.source.address}",
                remedy=f"download it, put its files into DIR/{self.source.name}/ and give --from DIR",
            )
        convert = CONVERTERS[type(self.source.shape)]
        tables = {role: _Table(self, role) for role in self._roles}
        left = self.max_rows
        seen: set[int] = set()
        for example in convert(self.source.shape, tables, counts):
            if left == 0:
                return
            if (row := _clean(example, seen, counts)) is not None:
                left = None if left is None else left - 1
                yield row

    @property
    def _roles(self) -> list[str]:
        return list(dict.fromkeys(table.role for table in self.source.tables))

    def info(self) -> SourceInfo:
        """The manifest's entry for the source before negatives are mined."""
        source = self.source
        return SourceInfo(
            name=source.name,
            kind=source.kind,
            negatives=source.kind.recipe_negatives if source.is_unmined else source.negatives,
            unmined=source.is_unmined,
            instruction=source.instruction.text,
            license=source.license.name,
            origin=source.address if self.folder is None else f"{source.address} (a local copy)",
        )

    def fingerprint(self) -> dict[str, object]:
        """Values that determine the rows, for recipe.json: the catalog's record, and files or revision."""
        addresses = (
            set()
            if self.folder is None
            else {file.address for role in self._roles for file in files_of(self.folder, self.source, role)}
        )
        return {
            "source": asdict(self.source),
            "shape": type(self.source.shape).__name__,
            "revision": self.revision or self.source.revision,
            "max_rows": self.max_rows,
            "folder": self.folder,
            "files": [[address, file_fingerprint(address)] for address in sorted(addresses)],
        }


@dataclass(frozen=True)
class _Table:
    """All tables of one role, one after another. A family may iterate over them several times."""

    rows: PublicRows
    role: str

    def __iter__(self) -> Iterator[Placed]:
        return islice(self._all(), self.rows.source.at_most)

    def _all(self) -> Iterator[Placed]:
        source, folder = self.rows.source, self.rows.folder
        if folder is not None:
            yield from local_records(folder, source, self.role)
            return
        for table in source.tables:
            if table.role == self.role:
                yield from hub_records(source, table, revision=self.rows.revision or source.revision)


def _clean(example: Example, seen: set[int], counts: Counts) -> Row | None:
    """The row of an example. None if a text is blank or too long, or the row adds nothing new."""
    for content in (example.query, example.positive):
        if not content.strip():
            counts["blank text"] += 1
            return None
        if not _fits(content):
            counts["text too long to store, or not Unicode"] += 1
            return None
    query, positive = text_key(example.query), text_key(example.positive)
    if query == positive:
        counts["positive equals the query"] += 1
        return None
    pair = mix(query, positive)
    if pair in seen:
        counts["repeated"] += 1
        return None
    seen.add(pair)
    negatives = {text_key(n): n for n in reversed(example.negatives) if n.strip() and _fits(n)}
    kept = tuple(n for key, n in reversed(negatives.items()) if key not in (positive, query))
    return Row(example.query, example.positive, kept, example.place)


def _fits(content: str) -> bool:
    try:
        return len(content.encode()) <= MAX_TEXT_BYTES
    except UnicodeEncodeError:
        return False
