"""Retrieval data in the layout of BEIR: queries, a corpus, and judgments (qrels) that connect them."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_io.sources.source import (
    Counts,
    Example,
    Fields,
    Instruction,
    License,
    PublicSource,
    Table,
    Tables,
    field,
    text,
)
from data_io.task import Kind


@dataclass(frozen=True)
class Judgments:
    """Fields of the three tables. `best_only` keeps only the best document of each query, not every relevant one."""

    id: str = "_id"
    query: Fields = ("text",)
    document: Fields = ("title", "text")
    judgment: tuple[str, str, str] = ("query-id", "corpus-id", "score")
    best_only: bool = False


def examples_of_judgments(shape: Judgments, tables: Tables, counts: Counts) -> Iterator[Example]:
    """One example per relevant document of each query, in the order of the judgments.

    In memory: the judgments, the texts of the judged queries and of their relevant documents, but not the corpus.
    """
    relevant = _relevant(shape, tables)
    queries = _texts(shape, tables, "queries", shape.query, {query for query, _ in relevant})
    documents = _texts(shape, tables, "corpus", shape.document, {document for _, document in relevant})
    for (query, document), place in relevant.items():
        if query not in queries or document not in documents:
            counts["judgment without a text"] += 1
            continue
        yield Example(queries[query], documents[document], (), place)


def _relevant(shape: Judgments, tables: Tables) -> dict[tuple[str, str], str]:
    query_field, document_field, score_field = shape.judgment
    best: dict[str, tuple[float, str]] = {}
    relevant: dict[tuple[str, str], str] = {}
    for place, record in tables["qrels"]:
        score = float(field(record, score_field, place) or 0)
        if score <= 0:
            continue
        query, document = (str(field(record, name, place)) for name in (query_field, document_field))
        if shape.best_only:
            if query in best and best[query][0] >= score:
                continue
            if query in best:
                del relevant[query, best[query][1]]
            best[query] = score, document
        relevant[query, document] = place
    return relevant


def _texts(shape: Judgments, tables: Tables, role: str, fields: Fields, wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for place, record in tables[role]:
        name = str(field(record, shape.id, place))
        if name in wanted and (content := text(record, fields, place)):
            found[name] = content
    return found


def _source(
    name: str, instruction: Instruction, license: License, rows: int, revision: str, *, best_only: bool = False,
    tables: tuple[Table, ...] = (
        Table(role="qrels", config="default"),
        Table("queries", "queries", "queries"),
        Table("corpus", "corpus", "corpus"),
    ),
) -> PublicSource:  # fmt: skip
    hub_id = f"mteb/{name}"
    return PublicSource(
        name, "beir", Kind.RETRIEVAL, hub_id, hub_id, Judgments(best_only=best_only), instruction, license,
        rows, tables, revision=revision,
    )  # fmt: skip


RECORDS = (
    _source(
        "msmarco",
        Instruction("Given a web search query, retrieve relevant passages that answer the query", "mteb"),
        License("msr-la-nc", False, "its terms allow research only", checked=True),
        365_503, "c5a29a104738b98a9e76336939199e264163d4a0",
    ),
    _source(
        "hotpotqa",
        Instruction("Given a multi-hop question, retrieve documents that can help answer the question", "mteb"),
        License("CC-BY-SA-4.0", True, checked=True), 120_528, "ab518f4d6fcca38d87c25209f94beba119d02014",
    ),
    _source(
        "fever",
        Instruction("Given a claim, retrieve documents that support or refute the claim", "mteb"),
        License("CC-BY-NC-SA-3.0", None, "this copy says non-commercial; the original is CC-BY-SA-3.0", checked=True),
        106_605, "bea83ef9e8fb933d90a2f1d5515737465d613e12",
    ),
    _source(
        "fiqa",
        Instruction("Given a financial question, retrieve user replies that best answer the question", "mteb"),
        License("not stated", None, "the card states none", checked=True),
        7452, "27a168819829fe9bcd655c2df245fb19452e8e06",
    ),
    _source(
        "nfcorpus",
        Instruction("Given a question, retrieve relevant documents that best answer the question", "mteb"),
        License("academic use only", False, "as its authors say; the card states none"),
        1283, "ec0fa4fe99da2ff19ca1214b7966684033a58814", best_only=True,
    ),
    _source(
        "mrtidy",
        Instruction("Given a question, retrieve Wikipedia passages that answer the question", "e5"),
        License("CC-BY-SA-3.0", True, checked=True), 3547, "fc24a3ce8f09746410daee3d5cd823ff7a0675b7",
        tables=(
            Table(config="english-qrels", role="qrels"),
            Table(config="english-queries", role="queries"),
            Table(config="english-corpus", role="corpus"),
        ),
    ),
    _source(
        "scifact",
        Instruction("Given a scientific claim, retrieve documents that support or refute the claim", "mteb"),
        License("CC-BY-NC-4.0", False, checked=True), 859, "d56462d0e63a25450459c4f213e49ffdb866f7f9",
    ),
)  # fmt: skip
