"""What the project knows of a public data set, as a plain record. Standard library only: `f2llm data sources` lists 60.

A record names the data set's own fields; the function of its shape turns the data set's records into examples. Adding
a source is adding a record to its family and its name to the order of `catalog`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from data_io.errors import DataError
from data_io.task import Kind

Placed = tuple[str, Mapping[str, Any]]
"""A record and where it came from, for messages."""
Tables = Mapping[str, Iterable[Placed]]
"""The data set's tables by their role; each may be iterated as often as needed."""
Counts = Counter[str]
"""Records that gave no example, by the reason."""
Fields = tuple[str, ...]
"""Fields whose texts are joined with a line end; a dot goes into a nested field (`context.contexts`)."""

FILE_FIELD = "(file)"
"""Stands for the name of the file that a record lies in, where that is the record's class."""
LINE_FIELD = "(line)"
"""Stands for a line of a file of plain text."""


class Example(NamedTuple):
    """One example before it is a row of a data set; `negatives` are those that the data set itself gives."""

    query: str
    positive: str
    negatives: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Table:
    """One table of a data set: its configuration and split, or a pattern of files where it has no such thing."""

    split: str = "train"
    config: str | None = None
    role: str = "rows"
    files: str | None = None


@dataclass(frozen=True)
class Instruction:
    """What queries are prefixed with, and who says so.

    `mteb` is the prompt that the benchmark publishes for the same data, `e5` the list published with E5-Mistral, `here`
    a wording of this project. The released recipe's own wording is in its published files.
    """

    text: str
    origin: Literal["mteb", "e5", "here"]


@dataclass(frozen=True)
class License:
    """What the data set's card says, as an SPDX name where there is one, and whether it allows commercial use.

    `commercial` is None where the card says nothing, or contradicts where the texts come from; `why` says which.
    `checked` is whether the name was compared with the metadata of the MTEB library.
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
    """A source of the recipe: where it is published, what it is, and how its records become examples."""

    name: str
    family: str
    kind: Kind
    listed_as: str
    """Its place as the recipe's list of sources has it."""
    id: str
    """What to load: an id on the Hugging Face hub, or a repository on `host`."""
    shape: object
    """How a record becomes an example: a small dataclass of the family, `rows.CONVERTERS` has its function."""
    instruction: Instruction
    license: License
    expected_rows: int
    """Queries that the recipe has of it, after mining."""
    tables: tuple[Table, ...] = (Table(),)
    host: Literal["hub", "github", "modelscope"] = "hub"
    negatives: int = 0
    """Negatives that every example is sure to have before any are mined."""
    revision: str | None = None
    at_most: int | None = None
    """Records to read of a data set that is far larger than the recipe's share; the first ones."""

    @property
    def is_unmined(self) -> bool:
        """Whether examples have negatives of their own, some more than others, that mining is to fill up."""
        return not self.negatives and bool(getattr(self.shape, "some_negatives", False))

    @property
    def address(self) -> str:
        """Where a person finds it."""
        return {
            "hub": f"huggingface.co/datasets/{self.id}",
            "github": f"github.com/{self.id}",
            "modelscope": f"modelscope.cn/datasets/{self.id}",
        }[self.host]


def field(record: Mapping[str, Any], path: str, place: str) -> Any:
    """The value of a field, None where a nested one is null. Raises DataError where the record has no such field."""
    value: Any = record
    for name in path.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or name not in value:
            has = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise DataError(
                f"{place}: no field {path!r}; the record has {has or 'no fields'}",
                remedy="the data set's schema is not the one that is known here: pin a revision (--revision), or give "
                "a copy in the known schema (--from)",
            )
        value = value[name]
    return value


def text(record: Mapping[str, Any], fields: Fields, place: str) -> str:
    """The texts of several fields joined; empty where none of them has any."""
    parts: list[str] = []
    for path in fields:
        value = field(record, path, place)
        items = value if isinstance(value, (list, tuple)) else [value]
        parts += [item.strip() for item in items if isinstance(item, str) and item.strip()]
    return "\n".join(parts)


def texts(record: Mapping[str, Any], path: str, place: str) -> list[str]:
    """The texts of a field that holds one or a list of them, without blank ones."""
    value = field(record, path, place)
    found = value if isinstance(value, (list, tuple)) else [value]
    return [item.strip() for item in found if isinstance(item, str) and item.strip()]
