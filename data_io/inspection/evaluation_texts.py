"""Evaluation texts that should not be in the training data: of mteb's tasks, of a user's own tasks, of files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_io.curation.exclusion import benchmark_texts
from data_io.data_spec import S3Options
from data_io.dataset.evaluation_sets import RetrievalSet, StsSet, load_evaluation
from data_io.dataset.manifest import Manifest
from data_io.errors import DataError
from data_io.evaluation.mteb import load_task, named_tasks, task_texts
from data_io.evaluation.own_sets import LabeledSet, OwnSet, PairSet, RerankingSet, read_own
from data_io.evaluation.task import HELD_OUT, OwnTask, parse_task
from data_io.execution import Say
from data_io.storage.store import Store


@dataclass(frozen=True)
class EvaluationTexts:
    """An evaluation's name and the texts that should not be in the training data."""

    name: str
    texts: Sequence[str]


def read_evaluations(
    store: Store, manifest: Manifest, tasks: Sequence[str], texts: Sequence[str], *, s3: S3Options, say: Say
) -> list[EvaluationTexts]:
    """The texts of the given evaluations. `tasks` are mteb's tasks or benchmarks, NAME:KIND=PATH, or `held-out` for
    the data set's own sets; `texts` are files, data sets or `mteb`, as for `--exclude-benchmark`.

    For a retrieval set these are the queries and the documents that answer them. The other documents are a corpus that
    may be in the training data. Raises ConfigError for an unknown name, StorageError if texts cannot be read, DataError
    if there are none.
    """
    given = [parse_task(name) for name in tasks]
    known = {name: named_tasks(name) for name in given if isinstance(name, str) and name != HELD_OUT}
    found = [each for task in given for each in _task(store, manifest, task, known, say)]
    for address in texts:
        say(f"reading the texts of {address}")
        found.append(EvaluationTexts(address, list(benchmark_texts(address, s3))))
    empty = next((each.name for each in found if not any(text.strip() for text in each.texts)), None)
    if empty is not None or not found:
        raise DataError(f"{empty or 'the data set'} has no text to look for", remedy="give a file or a task with texts")
    return found


def _task(
    store: Store, manifest: Manifest, task: OwnTask | str, known: Mapping[str, Sequence[Any]], say: Say
) -> Iterator[EvaluationTexts]:
    if isinstance(task, OwnTask):
        say(f"reading the texts of {task.name}")
        yield EvaluationTexts(task.name, list(_own_texts(read_own(task))))
    elif task == HELD_OUT:
        for entry in manifest.evaluations:
            yield EvaluationTexts(entry.name, list(_own_texts(load_evaluation(store, entry))))
    else:
        for each in known[task]:
            say(f"reading the texts of {each.metadata.name}")
            load_task(each)
            yield EvaluationTexts(each.metadata.name, list(task_texts(each.dataset, set(each.metadata.eval_splits))))
            each.unload_data()


def _own_texts(own: OwnSet) -> Iterator[str]:
    match own:
        case RetrievalSet():
            answers = {document for judged in own.qrels.values() for document, grade in judged.items() if grade > 0}
            yield from own.queries
            yield from (text for id_, text in zip(own.corpus_ids, own.corpus, strict=True) if id_ in answers)
        case RerankingSet():
            yield from own.queries
            yield from (text for texts in own.positives for text in texts)
        case LabeledSet():
            yield from own.texts
        case StsSet() | PairSet():
            yield from own.text_a
            yield from own.text_b
