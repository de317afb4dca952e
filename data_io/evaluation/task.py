"""Tasks to evaluate a model on, as the user writes them: NAME:KIND=PATH is an own task, other names are mteb's.

Standard library only.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from data_io.errors import ConfigError
from data_io.storage.address import without_credentials

HELD_OUT = "held-out"
"""Name of the evaluation sets of a prepared data set."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TaskKind(StrEnum):
    """How an own task is evaluated; each kind has a task type in mteb."""

    RETRIEVAL = "retrieval"
    RERANKING = "reranking"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"
    STS = "sts"
    PAIR_CLASSIFICATION = "pair-classification"


@dataclass(frozen=True)
class OwnTask:
    """A user's file, directory or glob, and the kind of its rows."""

    name: str
    kind: TaskKind
    address: str


def parse_task(text: str) -> OwnTask | str:
    """The user's own task, or the name unchanged. Raises ConfigError for an incorrect own task."""
    what, equals, address = text.partition("=")
    if not equals:
        return text
    name, _, kind = what.partition(":")
    if not _NAME.fullmatch(name) or kind not in list(TaskKind) or not address:
        raise ConfigError(
            f"task {without_credentials(text)!r}: expected NAME:KIND=PATH, a name of letters, digits, dots, dashes "
            f"and underscores and a kind of {', '.join(TaskKind)}",
            remedy="for example faq:retrieval=faq.parquet",
        )
    return OwnTask(name, TaskKind(kind), address)
