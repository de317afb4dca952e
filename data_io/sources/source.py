"""The description of a public data set as a plain record. Standard library only: `f2llm data sources` lists 60 of them.

A record names the data set's own fields. The function of its shape turns the data set's records into examples. To add a
source, add a record to its family and its name to the order in `catalog`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from data_io.errors import DataError
from data_io.task import Kind

Placed = tuple[str, Mapping[str, Any]]
"""A record and its position, for messages."""
Tables = Mapping[str, Iterable[Placed]]
"""The data set's tables by role. Each may be iterated several times."""
Counts = Counter[str]
"""Numbers of records that gave no example, by reason."""
Fields = tuple[str, ...]
"""Fields whose texts are joined with a line break. A dot selects a nested field (`context.contexts`)."""

FILE_FIELD = "(file)"
"""Stands for the name of a record's file, if that is the record's class."""
LINE_FIELD = "(line)"
"""Stands for a line of a plain text file."""


class Example(NamedTuple):
    """One example before it becomes a row of a data set. `negatives` are the data set's own."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Table:
    """One table of a data set: its configuration and split, or a glob of files if it has neither."""

    split: str = "train"
    config: str | None = None
    role: str = "rows"
    files: str | None = None


@dataclass(frozen=True)
class Instruction:
    """The query prefix and its origin.

    `mteb`: the prompt that the benchmark publishes for the same data. `e5`: the list published with E5-Mistral. `here`:
    worded by this project. The released recipe's own wording is in its published files.
    """

    text: str
    origin: Literal["mteb", "e5", "here"]


@dataclass(frozen=True)
class License:
    """The license on the data set's card, as an SPDX id if there is one, and whether it allows commercial use.

    `commercial` is None if the card says nothing, or contradicts the origin of the texts; `why` says which. `checked`:
    whether the name was compared with the metadata of the MTEB library.
    """

    name: str
    commercial: bool | None
    why: str = ""
    checked: bool = False

    @property
    def status(self) -> str:
        return {True: "yes", False: "no", None: "unclear"}[self.commercial]


@dataclass(frozen=True)
class PublicSource:
    """A source of the recipe: its publisher, its kind, and how its records become examples."""

    name: str
    family: str
    kind: Kind
    listed_as: str
    """Its name in the recipe's list of sources."""
    id: str
    """What to load: an id on the Hugging Face Hub, or a repository on `host`."""
    shape: object
    """How a record becomes an example: a small dataclass of the family, whose function is in `rows.CONVERTERS`."""
    instruction: Instruction
    license: License
    expected_rows: int
    """Number of its queries in the recipe, after mining."""
    tables: tuple[Table, ...] = (Table(),)
    host: Literal["hub", "github", "modelscope"] = "hub"
    negatives: int = 0
    """Number of negatives that every example has before mining."""
    revision: str | None = None
    at_most: int | None = None
    """Number of records to read from the start of a data set that is much larger than the recipe's share."""

    @property
    def is_unmined(self) -> bool:
        """Whether examples have own negatives in different numbers, so that mining has to add the missing ones."""
        return not self.negatives and bool(getattr(self.shape, "some_negatives", False))

    @property
    def address(self) -> str:
        """URL of the source, for people."""
        return {
            "hub": f"huggingface.co/datasets/{self.id}",
            "github": f"github.com/{self.id}",
            "modelscope": f"modelscope.cn/datasets/{self.id}",
        }[self.host]


def field(record: Mapping[str, Any], path: str, place: str) -> Any:
    """The value of a field, None if a nested one is null. Raises DataError if the record has no such field."""
    value: Any = record
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or name not in value:
            has = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise DataError(
                f"{place}: no field {path!r}; the record has {has or 'no fields'}",
                remedy="the data set's schema has changed: pin a revision (--revision), or give "
                "a copy in the known schema (--from)",
            )
        value = value[name]
    return value


def text(record: Mapping[str, Any], fields: Fields, place: str) -> str:
    """The texts of several fields, joined. Empty if all are empty."""
    parts: list[str] = []
    for path in fields:
        value = field(record, path, place)
        items = value if isinstance(value, (list, tuple)) else [value]
        parts += [item.strip() for item in items if isinstance(item, str) and item.strip()]
    return "\n".join(parts)


def texts(record: Mapping[str, Any], path: str, place: str) -> list[str]:
    """The texts of a field with one text or a list of texts, without blank ones."""
    value = field(record, path, place)
    found = value if isinstance(value, (list, tuple)) else [value]
    return [item.strip() for item in found if isinstance(item, str) and item.strip()]
