"""Six custom tasks, one per task type, as Parquet files, from documentation that the demo does not train on.

python -m tests.support.own_tasks FOLDER
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_io.curation.held_out import choose_held_out
from data_io.curation.lexical_negatives import mine_negatives
from data_io.dataset.rows import Row
from data_io.demo.dataset import PACKAGES, DemoSizes, read_documentation
from data_io.demo.docstrings import Docstring
from data_io.demo.examples import relatedness_set
from data_io.demo.packages import installed_packages
from data_io.evaluation.task import TaskKind

Columns = dict[str, list[object]]
NAMES = {
    TaskKind.RETRIEVAL: "docs_retrieval",
    TaskKind.RERANKING: "docs_reranking",
    TaskKind.CLASSIFICATION: "kind_classification",
    TaskKind.CLUSTERING: "package_clustering",
    TaskKind.STS: "docs_sts",
    TaskKind.PAIR_CLASSIFICATION: "docs_pairs",
}
"""Three have the names of the demo's sources, so that the instructions of the model are used."""
_CANDIDATES = 9


def held_out_documentation() -> list[Docstring]:
    """The held-out part of `build_demo`: none of its queries, answers or texts is in the demo's training rows."""
    sizes = DemoSizes()
    docstrings = read_documentation(installed_packages(PACKAGES), sizes)
    share = sizes.evaluation_documents / (sizes.retrieval_rows + sizes.evaluation_documents)
    rows = (Row(d.summary, d.body) for d in docstrings)
    held = choose_held_out(rows, fraction=share, max_queries=sizes.evaluation_documents)
    queries = {row.query for row in held.rows}
    return [d for d in docstrings if d.summary in queries]


def task_columns(docs: Sequence[Docstring]) -> dict[TaskKind, Columns]:
    """The rows of each task type."""
    with_kind = [d for d in docs if d.kind != "topic"]
    summaries, bodies = [d.summary for d in docs], [d.body for d in docs]
    wrong = mine_negatives(summaries, bodies, negatives=_CANDIDATES)
    judged = [i for i, texts in enumerate(wrong) if len(texts) == _CANDIDATES]
    graded = relatedness_set("graded", docs, count=400, seed=1, license="", origin="")
    return {
        TaskKind.RETRIEVAL: {"query": [*summaries], "positive": [*bodies]},
        TaskKind.RERANKING: {
            "query": [summaries[i] for i in judged],
            "positive": [[bodies[i]] for i in judged],
            "negatives": [list(wrong[i]) for i in judged],
        },
        TaskKind.CLASSIFICATION: {"text": [d.text for d in with_kind], "label": [d.kind for d in with_kind]},
        TaskKind.CLUSTERING: {"text": [d.text for d in docs], "label": [d.package for d in docs]},
        TaskKind.STS: {
            "sentence1": [*graded.text_a],
            "sentence2": [*graded.text_b],
            "score": [*graded.scores],
        },
        TaskKind.PAIR_CLASSIFICATION: {
            "sentence1": [summaries[i] for i in judged] * 2,
            "sentence2": [bodies[i] for i in judged] + [wrong[i][0] for i in judged],
            "label": [1] * len(judged) + [0] * len(judged),
        },
    }


def write_tasks(docs: Sequence[Docstring], folder: Path) -> list[str]:
    """Write one Parquet file per task type; returns the value of `f2llm evaluate --task` for each."""
    folder.mkdir(parents=True, exist_ok=True)
    named = []
    for kind, columns in task_columns(docs).items():
        path = folder / f"{NAMES[kind]}.parquet"
        pq.write_table(pa.table(columns), path)
        named.append(f"{NAMES[kind]}:{kind}={path}")
    return named


if __name__ == "__main__":
    print("\n".join(write_tasks(held_out_documentation(), Path(sys.argv[1]))))  # noqa: T201
