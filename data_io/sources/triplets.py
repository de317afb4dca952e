"""Triplets: an anchor, a positive and a negative a record; records only, `pairs` turns them into examples."""

from data_io.sources.pairs import Pairs
from data_io.sources.public import Instruction, Licence, PublicSource, Table
from data_io.task import Kind

_SHAPE = Pairs(("anchor",), ("positive",), "negative")

RECORDS = (
    PublicSource(
        "triviaqa", "triplets", Kind.RETRIEVAL, "sentence-transformers/trivia-qa-triplet",
        "sentence-transformers/trivia-qa-triplet", _SHAPE,
        Instruction("Retrieve Wikipedia passages that answer the question", "e5"),
        Licence("not stated", None, "the authors do not own questions and documents"), 60_025,
        (Table(config="triplet"),), negatives=1,
    ),
    PublicSource(
        "coliee", "triplets", Kind.RETRIEVAL, "modelscope sentence-transformers/coliee",
        "sentence-transformers/coliee", _SHAPE,
        Instruction("Given a legal case, retrieve relevant legal cases", "here"),
        Licence("not stated", None, "given out under the competition's own memorandum"), 454,
        host="modelscope", negatives=1,
    ),
    PublicSource(
        "specter", "triplets", Kind.RETRIEVAL, "sentence-transformers/specter", "sentence-transformers/specter",
        _SHAPE, Instruction("Given the title of a scientific paper, retrieve titles of papers related to it", "here"),
        Licence("not stated", None, "the card states none"), 24_717, (Table(config="triplet"),), negatives=1,
        at_most=199_028,
    ),
)  # fmt: skip
