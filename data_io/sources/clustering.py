"""Classes and clusters: the positive is another text of the same class, the negatives are texts of other classes.

Records only. `clustering_draws` turns them into examples and needs NumPy.
"""

from dataclasses import dataclass, replace

from data_io.sources.source import FILE_FIELD, LINE_FIELD, Fields, Instruction, License, PublicSource, Table
from data_io.task import Kind

NEGATIVES = 24


@dataclass(frozen=True)
class Clusters:
    """Fields of a record: the text and its class. With `first_word` the class ends at its first blank (arXiv)."""

    text: Fields
    label: str
    first_word: bool = False
    negatives: int = NEGATIVES


def _source(
    name: str, hub_id: str, instruction: str, license: License, rows: int, *, text: Fields = ("text",),
    label: str = "label", first_word: bool = False, config: str | None = None, splits: tuple[str, ...] = ("train",),
    revision: str | None = None, at_most: int | None = None,
) -> PublicSource:  # fmt: skip
    return PublicSource(
        name, "classes and clusters", Kind.CLUSTERING, hub_id, hub_id, Clusters(text, label, first_word),
        Instruction(instruction, "mteb"), license, rows, tuple(Table(split, config) for split in splits),
        negatives=NEGATIVES, revision=revision, at_most=at_most,
    )  # fmt: skip


def _papers(name: str, license: License, rows: int, instruction: str, *, label: str, abstract: bool) -> PublicSource:
    archive, _, _ = name.partition("_")
    return _source(
        name, f"mteb/raw_{archive}", instruction, license, rows,
        text=("title", "abstract") if abstract else ("title",), label=label, first_word=archive == "arxiv",
        at_most=300_000 if archive == "arxiv" else None,
    )  # fmt: skip


def _tweac(name: str, folder: str, instruction: str, rows: int) -> PublicSource:
    source = _source(
        name, "UKPLab/TWEAC-qa-agent-selection", instruction, _NOT_STATED, rows, text=(LINE_FIELD,), label=FILE_FIELD
    )
    return replace(
        source, host="github", listed_as=f"github {source.id}", tables=(Table(files=f"data/{folder}/train/*.txt"),)
    )


_NOT_STATED = License("not stated", None, "the card states none", checked=True)
_MASSIVE = License("Apache-2.0", True, "the original is CC-BY-4.0", checked=True)
_BIORXIV = License("as each paper says", None, "the authors choose the license", checked=True)
_ARXIV = License("CC0-1.0", True, "license of the metadata, which contain title and abstract", checked=True)
_MTOP = License("not stated", None, "the card states none; the original is CC-BY-SA-4.0", checked=True)
_CATEGORY = "Identify the main category of {} papers based on the titles"
_ARXIV_CATEGORY = "Identify the main and secondary category of Arxiv papers based on the titles"
_POSTS = "Identify the topic or theme of {} posts based on the {}"

RECORDS = (
    _source(
        "amazon_reviews", "mteb/amazon_reviews_multi",
        "Classify the given Amazon review into its appropriate rating category",
        License("Amazon's terms", False, "Amazon's terms allow research only", checked=True), 100_000,
        config="en", at_most=100_000,
    ),
    _source(
        "banking77", "mteb/banking77", "Given a online banking query, find the corresponding intents",
        License("MIT", True, checked=True), 9993, revision="0fd18e25b25c072e09e0d92ab615fda904d66300",
    ),
    _source(
        "emotion", "mteb/emotion",
        "Classify the emotion expressed in the given Twitter message into one of the six emotions: anger, fear, joy, "
        "love, sadness, and surprise",
        License("research and education only", False, "as its authors say; the card of this copy states none"),
        17_944, splits=("train", "validation"), revision="4f58c6b202a23cf9a4da393831edf4f9183cad37",
    ),
    _source(
        "mtop_intent", "mteb/mtop_intent", "Classify the intent of the given utterance in task-oriented conversation",
        _MTOP, 17_896, config="en", splits=("train", "validation"),
    ),
    _source(
        "mtop_domain", "mteb/mtop_domain",
        "Classify the intent domain of the given utterance in task-oriented conversation", _MTOP, 17_538,
        config="en", splits=("train", "validation"),
    ),
    _source(
        "massive_scenario", "mteb/amazon_massive_scenario", "Given a user utterance as query, find the user scenarios",
        _MASSIVE, 13_547, config="en", splits=("train", "validation"),
        revision="fad2c6e8459f9e1c45d9315f4953d921437d70f8",
    ),
    _source(
        "massive_intent", "mteb/amazon_massive_intent", "Given a user utterance as query, find the user intents",
        _MASSIVE, 13_547, config="en", splits=("train", "validation"),
        revision="4672e20407010da34463acc759c162ca9734bca6",
    ),
    _source(
        "tweet_sentiment_extraction", "mteb/tweet_sentiment_extraction",
        "Classify the sentiment of a given tweet as either positive, negative, or neutral", _NOT_STATED, 26_732,
        revision="d604517c81ca91fe16a244d1248fc021f9ecee7a",
    ),
    _papers("arxiv_clustering_p2p", _ARXIV, 83_476, f"{_ARXIV_CATEGORY} and abstracts", label="categories",
            abstract=True),
    _papers("arxiv_clustering_s2s", _ARXIV, 83_486, _ARXIV_CATEGORY, label="categories", abstract=False),
    _papers("biorxiv_clustering_p2p", _BIORXIV, 57_296, f"{_CATEGORY.format('Biorxiv')} and abstracts",
            label="category", abstract=True),
    _papers("biorxiv_clustering_s2s", _BIORXIV, 57_296, _CATEGORY.format("Biorxiv"), label="category",
            abstract=False),
    _papers("medrxiv_clustering_p2p", _BIORXIV, 18_659, f"{_CATEGORY.format('Medrxiv')} and abstracts",
            label="category", abstract=True),
    _papers("medrxiv_clustering_s2s", _BIORXIV, 18_659, _CATEGORY.format("Medrxiv"), label="category",
            abstract=False),
    _source(
        "reddit_clustering_p2p", "sentence-transformers/reddit-title-body",
        _POSTS.format("Reddit", "titles and posts"), _NOT_STATED, 80_000, text=("title", "body"), label="subreddit",
        at_most=489_218,
    ),
    _tweac("reddit_clustering_s2s", "reddit", _POSTS.format("Reddit", "titles"), 58_141),
    replace(
        _source(
            "stackexchange_clustering_p2p", "flax-sentence-embeddings/stackexchange_title_body_jsonl",
            _POSTS.format("StackExchange", "given paragraphs"),
            License("CC-BY-NC-SA-4.0", None, "the card's license; Stack Exchange's own is CC-BY-SA-4.0"), 80_000,
            text=("texts",), label=FILE_FIELD, at_most=430_913,
        ),
        tables=(Table(files="*.jsonl.gz"),),
    ),
    _tweac("stackexchange_clustering_s2s", "stackexchange", _POSTS.format("StackExchange", "titles"), 56_731),
    _source(
        "twentynewsgroups", "SetFit/20_newsgroups", "Identify the topic or theme of the given news articles",
        _NOT_STATED, 11_060,
    ),
)  # fmt: skip
