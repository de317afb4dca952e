"""Public sources of one table whose records have a query and its answer. Records only; `pairs` makes the examples."""

from typing import Literal

from data_io.sources.pairs import Answers, Pairs, Passages
from data_io.sources.source import Instruction, License, PublicSource, Table
from data_io.task import Kind

Family = Literal["questions", "duplicates", "triplets", "titles", "summaries"]


def _source(
    family: Family, name: str, hub_id: str, shape: Answers | Pairs | Passages, instruction: Instruction,
    license: License, rows: int, *tables: Table, listed_as: str | None = None,
    host: Literal["hub", "github", "modelscope"] = "hub", negatives: int = 0, at_most: int | None = None,
) -> PublicSource:  # fmt: skip
    return PublicSource(
        name, family, Kind.RETRIEVAL, listed_as or hub_id, hub_id, shape, instruction, license, rows,
        tables or (Table(),), host=host, negatives=negatives, at_most=at_most,
    )  # fmt: skip


_TRIPLET = Pairs(("anchor",), ("positive",), "negative")
_WIKIPEDIA = Instruction("Given a question, retrieve Wikipedia passages that answer the question", "mteb")
_STACKEXCHANGE = License("CC-BY-SA-4.0", True, "Stack Exchange's own license; the card states none")
_S2ORC = "sentence-transformers/s2orc"
_S2ORC_LICENSE = License("ODC-By-1.0", None, "earlier releases of the same texts were CC-BY-NC-4.0")

QUESTIONS = (
    _source(
        "questions", "arguana", "BeIR/arguana-generated-queries", Pairs(("query",), ("title", "text")),
        Instruction("Given a claim, find documents that refute the claim", "mteb"),
        License("CC-BY-SA-4.0", True), 22_848,
    ),
    _source(
        "questions", "paq", "sentence-transformers/paq", Pairs(("query",), ("answer",)), _WIKIPEDIA,
        License("CC-BY-SA-3.0", True, "license of the pairs by their authors; the card states none"), 938_771,
        Table(config="pair"), at_most=2_492_657,
    ),
    _source(
        "questions", "squad", "rajpurkar/squad", Pairs(("question",), ("context",)),
        Instruction("Retrieve Wikipedia passages that answer the question", "e5"),
        License("CC-BY-SA-4.0", True), 89_509, Table(), Table("validation"),
    ),
    _source(
        "questions", "stackexchange", "flax-sentence-embeddings/stackexchange_titlebody_best_voted_answer_jsonl",
        Pairs(("title_body",), ("upvoted_answer",)),
        Instruction("Given a question from Stack Exchange, retrieve the answer with the most votes", "here"),
        License("CC-BY-NC-SA-4.0", None, "the card's license; Stack Exchange's own is CC-BY-SA-4.0"), 754_705,
        Table(files="*.jsonl.gz"), at_most=2_401_305,
    ),
    _source(
        "questions", "natural_questions", "sentence-transformers/natural-questions",
        Pairs(("query",), ("answer",)), _WIKIPEDIA,
        License("CC-BY-SA-3.0", True, "the license of the original"), 97_209,
    ),
    _source(
        "questions", "eli5", "Pavithree/eli5", Answers(("title", "selftext"), "answers", "text", "score"),
        Instruction("Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum", "e5"),
        License("not stated", None, "the card states none; Reddit's users wrote the posts"), 161_345,
    ),
    _source(
        "questions", "bioasq", "BeIR/bioasq-generated-queries", Pairs(("query",), ("title", "text")),
        Instruction("Given a question, retrieve biomedical abstracts that answer the question", "here"),
        License("CC-BY-SA-4.0", None, "the card's license; the abstracts are PubMed's"), 125_248, at_most=149_900,
    ),
    _source(
        "questions", "miracl", "miracl/miracl",
        Passages(("query",), "positive_passages", "negative_passages", ("title", "text")),
        _WIKIPEDIA, License("CC-BY-SA-4.0", True, checked=True), 3379,
        Table(config="en"), Table("dev", config="en"),
    ),
    _source(
        "questions", "pubmedqa", "qiaojin/PubMedQA", Pairs(("question",), ("context.contexts",)),
        Instruction("Given a medical question, retrieve documents that best answer the question", "here"),
        License("MIT", True), 60_227, Table(config="pqa_artificial"),
    ),
    _source(
        "questions", "amazon_qa", "amazonqa/amazonqa", Answers(("questionText",), "answers", "answerText"),
        Instruction("Given a question about a product, retrieve the answer of an Amazon customer", "here"),
        License("not stated", None, "the repository states none; Amazon's customers wrote the posts"), 59_340,
        listed_as="github amazonqa/amazonqa", host="github",
    ),
)  # fmt: skip
"""Questions and their answers."""

DUPLICATES = (
    _source(
        "duplicates", "stackexchangedupquestions_s2s", "sentence-transformers/stackexchange-duplicates",
        Pairs(("title1",), ("title2",)),
        Instruction("Given a question title from Stack Exchange, retrieve titles of duplicate questions", "here"),
        _STACKEXCHANGE, 183_559, Table(config="title-title-pair"),
    ),
    _source(
        "duplicates", "stackexchangedupquestions_p2p", "sentence-transformers/stackexchange-duplicates",
        Pairs(("post1",), ("post2",)),
        Instruction("Given a Stack Exchange post, retrieve posts that are duplicates of it", "here"),
        _STACKEXCHANGE, 203_060, Table(config="post-post-pair"),
    ),
    _source(
        "duplicates", "qqp", "nyu-mll/glue",
        Pairs(("question1",), ("question2",), only=("label", "1"), both_directions=True),
        Instruction(
            "Given a question, retrieve questions that are semantically equivalent to the given question", "e5"
        ),
        License("Quora's terms", False, "Quora's terms allow non-commercial use only"), 243_598,
        Table(config="qqp"), listed_as="gluebenchmark.com",
    ),
    _source(
        "duplicates", "stackoverflowdupquestions", "mteb/stackoverflowdupquestions-reranking",
        Pairs(("query",), ("positive",), "negative", alternatives=True),
        Instruction("Retrieve duplicate questions from StackOverflow forum", "mteb"),
        License("CC-BY-NC-SA-4.0", False, checked=True), 19_847,
    ),
)  # fmt: skip
"""Duplicates and paraphrases: two texts that ask the same."""

TRIPLETS = (
    _source(
        "triplets", "triviaqa", "sentence-transformers/trivia-qa-triplet", _TRIPLET,
        Instruction("Retrieve Wikipedia passages that answer the question", "e5"),
        License("not stated", None, "the authors do not own questions and documents"), 60_025,
        Table(config="triplet"), negatives=1,
    ),
    _source(
        "triplets", "coliee", "sentence-transformers/coliee", _TRIPLET,
        Instruction("Given a legal case, retrieve relevant legal cases", "here"),
        License("not stated", None, "distributed under the competition's own memorandum"), 454,
        listed_as="modelscope sentence-transformers/coliee", host="modelscope", negatives=1,
    ),
    _source(
        "triplets", "specter", "sentence-transformers/specter", _TRIPLET,
        Instruction("Given the title of a scientific paper, retrieve titles of papers related to it", "here"),
        License("not stated", None, "the card states none"), 24_717, Table(config="triplet"), negatives=1,
        at_most=199_028,
    ),
)  # fmt: skip
"""An anchor, a positive and a negative per record."""

TITLES = (
    _source(
        "titles", "s2orc_title_abstract", _S2ORC, Pairs(("title",), ("abstract",)),
        Instruction("Given the title of a scientific paper, retrieve the abstract of the paper", "here"),
        _S2ORC_LICENSE, 250_000, Table(config="title-abstract-pair"), at_most=2_476_989,
    ),
    _source(
        "titles", "s2orc_title_citation", _S2ORC, Pairs(("title",), ("citation",)),
        Instruction("Given the title of a scientific paper, retrieve titles of papers that it cites", "here"),
        _S2ORC_LICENSE, 132_879, Table(config="title-citation-pair"), at_most=1_619_105,
    ),
    _source(
        "titles", "s2orc_abstract_citation", _S2ORC, Pairs(("abstract",), ("citation",)),
        Instruction("Given the abstract of a scientific paper, retrieve abstracts of papers that it cites", "here"),
        _S2ORC_LICENSE, 231_587, Table(config="abstract-citation-pair"), at_most=1_615_793,
    ),
)  # fmt: skip
"""Papers by their parts: title, abstract, and titles or abstracts of cited papers."""

SUMMARIES = (
    _source(
        "summaries", "xsum", "EdinburghNLP/xsum", Pairs(("summary",), ("document",)),
        Instruction("Given a news summary, retrieve the news article that it sums up", "here"),
        License("not stated", None, "the BBC owns the articles"), 184_383,
    ),
    _source(
        "summaries", "cnn_dm", "abisee/cnn_dailymail", Pairs(("highlights",), ("article",)),
        Instruction("Given highlights of a news article, retrieve the article", "here"),
        License("Apache-2.0", None, "the card's license; the newspapers own the articles"), 100_000,
        Table(config="3.0.0"),
    ),
    _source(
        "summaries", "sentence_compression", "sentence-transformers/sentence-compression",
        Pairs(("simplified",), ("text",)),
        Instruction("Given a short sentence, retrieve the longer sentence that it compresses", "here"),
        License("not stated", None, "the card states none; sentences from news"), 175_477,
    ),
)  # fmt: skip
"""The summary is the query; the text that it summarizes is the positive."""
