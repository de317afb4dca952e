"""Binary classification: the positive is the words of the text's label, the negative those of the other label."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_io.sources.source import Counts, Example, Fields, Instruction, License, PublicSource, Table, Tables
from data_io.sources.source import field as value_of
from data_io.sources.source import text as text_of
from data_io.task import Kind


@dataclass(frozen=True)
class Binary:
    """Fields of a record. `words` has the field's value and the words for each label."""

    text: Fields
    label: str
    words: tuple[tuple[str, str], tuple[str, str]]


def binary_examples(shape: Binary, tables: Tables, counts: Counts) -> Iterator[Example]:
    """One example per record. A record with another label gives none."""
    (first, first_words), (second, second_words) = shape.words
    answers = {first: (first_words, second_words), second: (second_words, first_words)}
    for place, record in tables["rows"]:
        label = value_of(record, shape.label, place)
        if label is None or str(label) not in answers:
            counts["unknown label"] += 1
            continue
        positive, negative = answers[str(label)]
        yield Example(text_of(record, shape.text, place), positive, (negative,), place)


def _source(
    name: str, hub_id: str, instruction: Instruction, license: License, rows: int, words: tuple[str, str],
    *, text: str = "text", listed_as: str | None = None, tables: tuple[Table, ...] = (Table(),),
    revision: str | None = None, at_most: int | None = None,
) -> PublicSource:  # fmt: skip
    return PublicSource(
        name, "binary classification", Kind.CLASSIFICATION, listed_as or hub_id, hub_id,
        Binary((text,), "label", (("0", words[0]), ("1", words[1]))),
        instruction, license, rows, tables, negatives=1, revision=revision, at_most=at_most,
    )  # fmt: skip


RECORDS = (
    _source(
        "amazon_counterfactual", "mteb/amazon_counterfactual",
        Instruction(
            "Classify a given Amazon customer review text as either counterfactual or not-counterfactual", "mteb"
        ),
        License("CC-BY-4.0", True, checked=True), 8663, ("not-counterfactual", "counterfactual"),
        tables=(Table(config="en-ext"), Table("validation", config="en-ext")),
        revision="1f7e6a9d6fa6e64c53d146e428565640410c0df1",
    ),
    _source(
        "amazon_polarity", "mteb/amazon_polarity",
        Instruction("Classify Amazon reviews into positive or negative sentiment", "mteb"),
        License("Apache-2.0", None, "the card's license; Amazon's customers wrote the reviews", checked=True),
        100_000, ("negative", "positive"), revision="e2d317d38cd51312af73b3d32a06d1a08b442046", at_most=100_000,
    ),
    _source(
        "imdb", "mteb/imdb",
        Instruction("Classify the sentiment expressed in the given movie review text from the IMDB dataset", "mteb"),
        License("not stated", None, "the card states none", checked=True), 24_904, ("negative", "positive"),
        revision="3d86128a09e091d6018b6d26cad27f2739fc2db7",
    ),
    _source(
        "toxic_conversations", "mteb/toxic_conversations_50k",
        Instruction("Classify the given comments as either toxic or not toxic", "mteb"),
        License("CC-BY-4.0", True, checked=True), 49_900, ("not toxic", "toxic"),
        revision="edfaf9da55d3dd50d43143d90c1ac476895ae6de",
    ),
    _source(
        "cola", "nyu-mll/glue",
        Instruction("Classify the given sentence as linguistically acceptable or unacceptable", "here"),
        License("not stated", None, "sentences quoted from the linguistics literature"), 9571,
        ("unacceptable", "acceptable"), text="sentence", listed_as="gluebenchmark.com",
        tables=(Table(config="cola"), Table("validation", config="cola")),
    ),
)  # fmt: skip
