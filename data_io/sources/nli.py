"""Natural language inference: a premise, a hypothesis that it entails, and hypotheses that it does not entail."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_io.sources.source import Counts, Example, Instruction, License, PublicSource, Table, Tables, field, text
from data_io.task import Kind


@dataclass(frozen=True)
class Nli:
    """Fields of a record, and the label for entailment."""

    premise: str = "premise"
    hypothesis: str = "hypothesis"
    label: str = "label"
    entailed: str = "0"
    others: tuple[str, ...] = ("1", "2")
    some_negatives = True


def nli_examples(shape: Nli, tables: Tables, counts: Counts) -> Iterator[Example]:
    """One example per premise that has an entailed hypothesis. Its first entailed hypothesis is the positive; neutral
    and contradicting ones are the negatives.

    The records of a premise may be anywhere in a table, so the table is held in memory. The label -1 (annotators did
    not agree) counts as unknown.
    """
    premises: dict[str, tuple[str, list[str], list[str]]] = {}
    for place, record in tables["rows"]:
        label = str(field(record, shape.label, place))
        premise, hypothesis = (text(record, (name,), place) for name in (shape.premise, shape.hypothesis))
        if label != shape.entailed and label not in shape.others:
            counts["unknown label"] += 1
            continue
        if not premise or not hypothesis:
            counts["blank text"] += 1
            continue
        _, entailed, others = premises.setdefault(premise, (place, [], []))
        mine = entailed if label == shape.entailed else others
        if hypothesis not in mine:
            mine.append(hypothesis)
    for premise, (place, entailed, others) in premises.items():
        if not entailed:
            counts["no entailed hypothesis"] += 1
            continue
        yield Example(premise, entailed[0], tuple(other for other in others if other not in entailed), place)


_INSTRUCTION = Instruction("Given a premise, retrieve a hypothesis that is entailed by the premise", "e5")


def _source(name: str, hub_id: str, license: License, rows: int, *splits: str) -> PublicSource:
    tables = tuple(Table(split) for split in splits)
    return PublicSource(name, "inference", Kind.RETRIEVAL, hub_id, hub_id, Nli(), _INSTRUCTION, license, rows, tables)


RECORDS = (
    _source("snli", "stanfordnlp/snli", License("CC-BY-SA-4.0", True), 54_585, "train"),
    _source(
        "mnli", "nyu-mll/multi_nli", License("CC-BY-3.0, CC-BY-SA-3.0, MIT, OANC", True, "by genre"), 112_075, "train"
    ),
    _source("anli", "facebook/anli", License("CC-BY-NC-4.0", False), 18_801, "train_r1", "train_r2", "train_r3"),
)
