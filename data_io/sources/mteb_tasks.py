"""The one door to `mteb`: the test texts of the benchmark that the recipe is measured on."""

from collections.abc import Iterator, Mapping
from typing import Any

from data_io.errors import ConfigError, StorageError

MTEB = "mteb"
BENCHMARK = "MTEB(eng, v2)"
_LABEL_COLUMNS = ("label", "labels", "label_text", "id", "lang")
"""Columns of words that are no test texts; a training text may well be called so."""


def mteb_texts() -> Iterator[str]:
    """Texts of every task's test splits: of a retrieval task the queries and the documents that answer them.

    A whole corpus is not excluded: it is Wikipedia, and training reads it too. Raises ConfigError where `mteb` is not
    installed, StorageError that names the task where its data cannot be loaded.
    """
    try:
        import mteb
    except ImportError as error:
        raise ConfigError(
            "--exclude-benchmark mteb needs the package mteb, which is not installed",
            remedy="pip install 'f2llm-ray[benchmark]'",
        ) from error
    for task in mteb.get_benchmark(BENCHMARK).tasks:
        name = task.metadata.name
        try:
            task.load_data()
        except Exception as error:
            # Whatever it raises, a benchmark that is not complete must not pass for an exclusion.
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StorageError(
                f"the benchmark's task {name} cannot be loaded: {said}",
                remedy="see that this machine reaches the Hugging Face hub, or name a mirror in HF_ENDPOINT; without "
                "it, give the texts in a file: --exclude-benchmark FILE",
            ) from error
        yield from task_texts(task.dataset, set(task.metadata.eval_splits))
        task.unload_data()


def task_texts(dataset: Any, splits: set[str]) -> Iterator[str]:
    """Texts of a loaded task: of its test splits, wherever in its mappings of subsets and splits they lie."""
    if not isinstance(dataset, Mapping):
        return
    for name, part in dataset.items():
        if isinstance(part, Mapping) and "relevant_docs" in part:
            if name in splits:
                yield from _retrieval(part)
        elif isinstance(part, Mapping):
            yield from task_texts(part, splits)
        elif name in splits:
            yield from _rows(part)


def _retrieval(part: Mapping[str, Any]) -> Iterator[str]:
    answers = {document for judged in part["relevant_docs"].values() for document, grade in judged.items() if grade > 0}
    for row in part["queries"]:
        yield from _strings(row.get("text"))
    for row in part["corpus"]:
        if row["id"] in answers:
            yield row["text"]
            if row.get("title"):
                yield f"{row['title']}\n{row['text']}"


def _rows(rows: Any) -> Iterator[str]:
    for row in rows:
        for column, value in row.items():
            if column not in _LABEL_COLUMNS:
                yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
