"""Duplicates and paraphrases: two ways to ask the same; records only, `pairs` turns them into examples."""

from data_io.sources.pairs import Pairs
from data_io.sources.public import Instruction, Licence, PublicSource, Table
from data_io.task import Kind


def _source(
    name: str, hub_id: str, shape: Pairs, instruction: Instruction, licence: Licence, rows: int,
    config: str | None = None, listed_as: str | None = None, revision: str | None = None,
) -> PublicSource:  # fmt: skip
    return PublicSource(
        name, "duplicates", Kind.RETRIEVAL, listed_as or hub_id, hub_id, shape, instruction, licence, rows,
        (Table(config=config),), revision=revision,
    )  # fmt: skip


_STACKEXCHANGE = Licence("CC-BY-SA-4.0", True, "Stack Exchange's own licence; the card states none")

RECORDS = (
    _source(
        "stackexchangedupquestions_s2s", "sentence-transformers/stackexchange-duplicates",
        Pairs(("title1",), ("title2",)),
        Instruction("Given a question title from Stack Exchange, retrieve titles of duplicate questions", "here"),
        _STACKEXCHANGE, 183_559, "title-title-pair",
    ),
    _source(
        "stackexchangedupquestions_p2p", "sentence-transformers/stackexchange-duplicates",
        Pairs(("post1",), ("post2",)),
        Instruction("Given a Stack Exchange post, retrieve posts that are duplicates of it", "here"),
        _STACKEXCHANGE, 203_060, "post-post-pair",
    ),
    _source(
        "qqp", "nyu-mll/glue", Pairs(("question1",), ("question2",), only=("label", "1"), both_directions=True),
        Instruction(
            "Given a question, retrieve questions that are semantically equivalent to the given question", "e5"
        ),
        Licence("Quora's terms", False, "for non-commercial use, in Quora's words"), 243_598, "qqp",
        listed_as="gluebenchmark.com",
    ),
    _source(
        "stackoverflowdupquestions", "mteb/stackoverflowdupquestions-reranking",
        Pairs(("query",), ("positive",), "negative", alternatives=True),
        Instruction("Retrieve duplicate questions from StackOverflow forum", "mteb"),
        Licence("CC-BY-NC-SA-4.0", False, checked=True), 19_847,
    ),
)  # fmt: skip
