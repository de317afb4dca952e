"""Questions and what answers them, one table a data set; records only, `pairs` turns them into examples."""

from data_io.sources.pairs import Answers, Pairs, Passages
from data_io.sources.public import Instruction, Licence, PublicSource, Table
from data_io.task import Kind

_WIKIPEDIA = Instruction("Given a question, retrieve Wikipedia passages that answer the question", "mteb")


def _source(
    name: str, hub_id: str, shape: object, instruction: Instruction, licence: Licence, rows: int,
    tables: tuple[Table, ...] = (Table(),), at_most: int | None = None, **rest: str,
) -> PublicSource:  # fmt: skip
    return PublicSource(
        name, "questions", Kind.RETRIEVAL, rest.get("listed_as", hub_id), hub_id, shape, instruction, licence, rows,
        tables, host="github" if "listed_as" in rest else "hub", at_most=at_most,
    )  # fmt: skip


RECORDS = (
    _source(
        "arguana", "BeIR/arguana-generated-queries", Pairs(("query",), ("title", "text")),
        Instruction("Given a claim, find documents that refute the claim", "mteb"),
        Licence("CC-BY-SA-4.0", True), 22_848,
    ),
    _source(
        "paq", "sentence-transformers/paq", Pairs(("query",), ("answer",)), _WIKIPEDIA,
        Licence("CC-BY-SA-3.0", True, "as its authors release the pairs; the card states none"), 938_771,
        (Table(config="pair"),), 2_492_657,
    ),
    _source(
        "squad", "rajpurkar/squad", Pairs(("question",), ("context",)),
        Instruction("Retrieve Wikipedia passages that answer the question", "e5"),
        Licence("CC-BY-SA-4.0", True), 89_509, (Table(), Table("validation")),
    ),
    _source(
        "stackexchange", "flax-sentence-embeddings/stackexchange_titlebody_best_voted_answer_jsonl",
        Pairs(("title_body",), ("upvoted_answer",)),
        Instruction("Given a question from Stack Exchange, retrieve the answer with the most votes", "here"),
        Licence("CC-BY-NC-SA-4.0", None, "the card's licence; Stack Exchange's own is CC-BY-SA-4.0"), 754_705,
        (Table(files="*.jsonl.gz"),), 2_401_305,
    ),
    _source(
        "natural_questions", "sentence-transformers/natural-questions", Pairs(("query",), ("answer",)), _WIKIPEDIA,
        Licence("CC-BY-SA-3.0", True, "the licence of the original"), 97_209,
    ),
    _source(
        "eli5", "Pavithree/eli5", Answers(("title", "selftext"), "answers", "text", "score"),
        Instruction("Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum", "e5"),
        Licence("not stated", None, "the card states none; the posts are Reddit's users'"), 161_345,
    ),
    _source(
        "bioasq", "BeIR/bioasq-generated-queries", Pairs(("query",), ("title", "text")),
        Instruction("Given a question, retrieve biomedical abstracts that answer the question", "here"),
        Licence("CC-BY-SA-4.0", None, "the card's licence; the abstracts are PubMed's"), 125_248, at_most=149_900,
    ),
    _source(
        "miracl", "miracl/miracl", Passages(("query",), "positive_passages", "negative_passages", ("title", "text")),
        _WIKIPEDIA, Licence("CC-BY-SA-4.0", True, checked=True), 3379,
        (Table(config="en"), Table("dev", config="en")),
    ),
    _source(
        "pubmedqa", "qiaojin/PubMedQA", Pairs(("question",), ("context.contexts",)),
        Instruction("Given a medical question, retrieve documents that best answer the question", "here"),
        Licence("MIT", True), 60_227, (Table(config="pqa_artificial"),),
    ),
    _source(
        "amazon_qa", "amazonqa/amazonqa", Answers(("questionText",), "answers", "answerText"),
        Instruction("Given a question about a product, retrieve the answer of an Amazon customer", "here"),
        Licence("not stated", None, "the repository states none; the posts are Amazon's customers'"), 59_340,
        listed_as="github amazonqa/amazonqa",
    ),
)  # fmt: skip
