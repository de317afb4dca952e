"""Papers by their parts: title, abstract, and titles or abstracts of what they cite; `pairs` makes the examples."""

from data_io.sources.pairs import Pairs
from data_io.sources.public import Instruction, Licence, PublicSource, Table
from data_io.task import Kind

_LICENCE = Licence("ODC-By-1.0", None, "earlier releases of the same texts were CC-BY-NC-4.0")


def _source(
    name: str, config: str, query: str, positive: str, instruction: str, rows: int, at_most: int
) -> PublicSource:
    hub_id = "sentence-transformers/s2orc"
    return PublicSource(
        name, "titles", Kind.RETRIEVAL, hub_id, hub_id, Pairs((query,), (positive,)), Instruction(instruction, "here"),
        _LICENCE, rows, (Table(config=config),), at_most=at_most,
    )  # fmt: skip


RECORDS = (
    _source(
        "s2orc_title_abstract", "title-abstract-pair", "title", "abstract",
        "Given the title of a scientific paper, retrieve the abstract of the paper", 250_000, 2_476_989,
    ),
    _source(
        "s2orc_title_citation", "title-citation-pair", "title", "citation",
        "Given the title of a scientific paper, retrieve titles of papers that it cites", 132_879, 1_619_105,
    ),
    _source(
        "s2orc_abstract_citation", "abstract-citation-pair", "abstract", "citation",
        "Given the abstract of a scientific paper, retrieve abstracts of papers that it cites", 231_587, 1_615_793,
    ),
)  # fmt: skip
