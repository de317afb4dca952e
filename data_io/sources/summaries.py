"""Summaries: the summary is the query, the text that it sums up the positive; `pairs` turns records into examples."""

from data_io.sources.pairs import Pairs
from data_io.sources.public import Instruction, Licence, PublicSource, Table
from data_io.task import Kind


def _source(
    name: str,
    hub_id: str,
    shape: Pairs,
    instruction: Instruction,
    licence: Licence,
    rows: int,
    config: str | None = None,
) -> PublicSource:
    return PublicSource(
        name, "summaries", Kind.RETRIEVAL, hub_id, hub_id, shape, instruction, licence, rows, (Table(config=config),)
    )


RECORDS = (
    _source(
        "xsum", "EdinburghNLP/xsum", Pairs(("summary",), ("document",)),
        Instruction("Given a news summary, retrieve the news article that it sums up", "here"),
        Licence("not stated", None, "the articles are the BBC's"), 184_383,
    ),
    _source(
        "cnn_dm", "abisee/cnn_dailymail", Pairs(("highlights",), ("article",)),
        Instruction("Given highlights of a news article, retrieve the article", "here"),
        Licence("Apache-2.0", None, "the card's licence; the articles are the newspapers'"), 100_000, "3.0.0",
    ),
    _source(
        "sentence_compression", "sentence-transformers/sentence-compression", Pairs(("simplified",), ("text",)),
        Instruction("Given a short sentence, retrieve the longer sentence that it compresses", "here"),
        Licence("not stated", None, "the card states none; sentences from news"), 175_477,
    ),
)  # fmt: skip
