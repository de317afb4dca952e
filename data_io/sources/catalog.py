"""All public sources in the order of the recipe's list, and the lookup by name."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

from data_io.errors import ConfigError
from data_io.sources import beir, classification, clustering, nli, pair_tables, sts
from data_io.sources.source import PublicSource
from data_io.wording import counted

LicenseRule = Literal["any", "commercial", "commercial-or-unclear"]

_FAMILIES = (
    classification.RECORDS,
    clustering.RECORDS,
    pair_tables.QUESTIONS,
    beir.RECORDS,
    nli.RECORDS,
    sts.RECORDS,
    pair_tables.DUPLICATES,
    pair_tables.TRIPLETS,
    pair_tables.TITLES,
    pair_tables.SUMMARIES,
)
_ORDER = [
    "amazon_counterfactual",
    "amazon_polarity",
    "imdb",
    "toxic_conversations",
    "cola",
    "amazon_reviews",
    "banking77",
    "emotion",
    "mtop_intent",
    "mtop_domain",
    "massive_scenario",
    "massive_intent",
    "tweet_sentiment_extraction",
    "arxiv_clustering_p2p",
    "arxiv_clustering_s2s",
    "biorxiv_clustering_p2p",
    "biorxiv_clustering_s2s",
    "medrxiv_clustering_p2p",
    "medrxiv_clustering_s2s",
    "reddit_clustering_p2p",
    "reddit_clustering_s2s",
    "stackexchange_clustering_p2p",
    "stackexchange_clustering_s2s",
    "twentynewsgroups",
    "arguana",
    "snli",
    "mnli",
    "anli",
    "paq",
    "squad",
    "stackexchange",
    "msmarco",
    "natural_questions",
    "hotpotqa",
    "fever",
    "eli5",
    "fiqa",
    "bioasq",
    "nfcorpus",
    "miracl",
    "mrtidy",
    "scifact",
    "triviaqa",
    "coliee",
    "pubmedqa",
    "s2orc_title_abstract",
    "s2orc_title_citation",
    "s2orc_abstract_citation",
    "amazon_qa",
    "specter",
    "xsum",
    "cnn_dm",
    "sentence_compression",
    "stackexchangedupquestions_s2s",
    "stackexchangedupquestions_p2p",
    "qqp",
    "stackoverflowdupquestions",
    "sts12",
    "sts22",
    "stsbenchmark",
]

_BY_NAME: dict[str, PublicSource] = {record.name: record for family in _FAMILIES for record in family}
SOURCES: tuple[PublicSource, ...] = tuple(_BY_NAME[name] for name in _ORDER)


def public_source(name: str) -> PublicSource:
    """The source of that name. Raises ConfigError with the most similar name if there is none."""
    if name not in _BY_NAME:
        close = get_close_matches(name, _ORDER, n=1, cutoff=0.6)
        raise ConfigError(
            f"{name!r} is not one of the recipe's {len(_ORDER)} sources",
            remedy=f"did you mean {close[0]!r}?" if close else "list the sources with `f2llm data sources`",
        )
    return _BY_NAME[name]


def choose(names: Iterable[str]) -> tuple[PublicSource, ...]:
    """The sources of these names, `all` for every one; each once, in the order of the recipe's list."""
    wanted = {known.name for name in names for known in (SOURCES if name == "all" else (public_source(name),))}
    return tuple(source for source in SOURCES if source.name in wanted)


def allowed(source: PublicSource, rule: LicenseRule) -> bool:
    """Whether the rule allows the source's license."""
    commercial = source.license.commercial
    return rule == "any" or commercial is True or (rule == "commercial-or-unclear" and commercial is None)


def check_licenses(sources: Iterable[PublicSource], rule: LicenseRule) -> None:
    """Raises ConfigError with every source whose license the rule does not allow."""
    refused = [source for source in sources if not allowed(source, rule)]
    if refused:
        lines = "".join(
            f"\n  {source.name}: {source.license.name} (commercial use: {source.license.status}"
            f"{', ' + source.license.why if source.license.why else ''})"
            for source in refused
        )
        unclear = rule == "commercial" and any(source.license.commercial is None for source in refused)
        raise ConfigError(
            f"--license {rule} does not allow {counted(len(refused), 'source')}:{lines}",
            remedy="leave them out"
            + (", or use --license commercial-or-unclear after you have checked the unclear ones" * unclear),
        )
