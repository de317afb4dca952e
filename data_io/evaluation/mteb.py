"""The only module that imports `mteb`: tasks by name, their data, and the test texts of the recipe's benchmark."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_io.errors import ConfigError, StorageError
from data_io.sources.hub import offline_where_unreachable

MTEB = "mteb"
BENCHMARK = "MTEB(eng, v2)"
_LABEL_COLUMNS = ("label", "labels", "label_text", "id", "lang")
"""Columns with words that are not test texts: training texts may be equal to them."""


def named_tasks(name: str) -> list[Any]:
    """The tasks of a benchmark, or the task of that name (`mteb.AbsTask`). Their data is not loaded.

    Raises ConfigError for an unknown name, with a similar name if there is one, and if `mteb` is not installed.
    """
    mteb = _mteb()
    try:
        return list(mteb.get_benchmark(name).tasks)
    except KeyError as no_benchmark:
        try:
            return [mteb.get_task(name)]
        except KeyError as no_task:
            close = [_close_name(error) for error in (no_task, no_benchmark)]
            hint = ", or ".join(f"`{found}`" for found in close if found)
            raise ConfigError(
                f"mteb has no task or benchmark {name!r}",
                remedy=f"did you mean {hint}? For your own task write NAME:KIND=PATH"
                if hint
                else "see mteb.get_tasks() and mteb.get_benchmarks(); for your own task write NAME:KIND=PATH",
            ) from no_task


def load_task(task: Any) -> None:
    """Load a task's data from the hub or from the local cache. Raises StorageError that names the missing data."""
    offline = offline_where_unreachable()
    for part in getattr(task.metadata, "tasks", None) or [task]:
        try:
            part.load_data()
        except Exception as error:
            # Catch every error: a task whose data is incomplete must not count as evaluated or excluded.
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            needed = f"{part.metadata.dataset['path']} at revision {part.metadata.dataset['revision'][:12]}"
            raise StorageError(
                f"the benchmark's task {part.metadata.name} cannot be loaded: it needs {needed}, and "
                f"{'the Hugging Face Hub is unreachable' if offline else said}",
                remedy="check that this machine can reach the Hugging Face Hub, or set HF_ENDPOINT to a mirror; data "
                "that was downloaded once needs no hub",
            ) from error


def mteb_texts() -> Iterator[str]:
    """Texts of the test splits of every task. For a retrieval task: the queries and the documents that answer them.

    A whole corpus is not excluded: it is Wikipedia, which is also in the training data. Raises ConfigError if `mteb` is
    not installed, and StorageError that names the task if its data cannot be loaded.
    """
    for task in named_tasks(BENCHMARK):
        try:
            load_task(task)
        except StorageError as error:
            raise StorageError(
                error.message, remedy=f"{error.remedy}; or give the texts in a file: --exclude-benchmark FILE"
            ) from error
        yield from task_texts(task.dataset, set(task.metadata.eval_splits))
        task.unload_data()


def _mteb() -> Any:
    try:
        import mteb
    except ImportError as error:
        raise ConfigError(
            "the benchmark's tasks need the package mteb, which is not installed",
            remedy="pip install 'f2llm-ray[benchmark]'",
        ) from error
    return mteb


def _close_name(error: KeyError) -> str | None:
    """The name that mteb suggests in its message."""
    found = re.search(r"Did you mean: '?(.+?)'?\?", str(error))
    return found[1] if found else None


def task_texts(dataset: Any, splits: set[str]) -> Iterator[str]:
    """Texts of the test splits of a loaded task, in any nesting of subsets and splits."""
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
