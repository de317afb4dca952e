"""What to measure a model on, as a user says it: `NAME:KIND=ADDRESS` is a task of their own, all else a name of mteb's.

Standard library only.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from data_io.errors import ConfigError
from data_io.storage.address import without_credentials

HELD_OUT = "held-out"
"""Stands for the evaluation sets of a prepared data set."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class TaskKind(StrEnum):
    """How a task of one's own is measured; mteb has a task type for each."""

    RETRIEVAL = "retrieval"
    RERANKING = "reranking"
    CLASSIFICATION = "classification"
    CLUSTERING = "clustering"
    STS = "sts"
    PAIR_CLASSIFICATION = "pair-classification"


@dataclass(frozen=True)
class OwnTask:
    """A file, directory or pattern of a user's, and what its rows are."""

    name: str
    kind: TaskKind
    address: str


def parse_task(text: str) -> OwnTask | str:
    """A task of the user's own, or the name as it is. Raises ConfigError for what looks like the first and is not."""
    what, equals, address = text.partition("=")
    if not equals:
        return text
    name, _, kind = what.partition(":")
    if not _NAME.fullmatch(name) or kind not in list(TaskKind) or not address:
        raise ConfigError(
            f"task {without_credentials(text)!r}: expected NAME:KIND=ADDRESS, a name of letters, digits, dots, dashes "
            f"and underscores and a kind of {', '.join(TaskKind)}",
            remedy="for example faq:retrieval=faq.parquet",
        )
    return OwnTask(name, TaskKind(kind), address)
