"""Evaluates one task of mteb in an executor. The result is a file in mteb's format.

A task that was evaluated before, with the same weights and the same data, is not evaluated again. The path of a result
contains the fingerprint of the weights; its content contains the revision of the data.
"""

import logging
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import datasets
import mteb
from mteb.cache import ResultCache
from mteb.results import TaskResult

from data_io.dataset.evaluation_sets import RetrievalSet, load_evaluation
from data_io.dataset.manifest import load_manifest
from data_io.errors import DataError, F2LLMError, NotFoundInStore
from data_io.evaluation.mteb import load_task
from data_io.evaluation.own_sets import read_own
from data_io.evaluation.task import OwnTask, TaskKind
from data_io.storage.store import BULK_BYTES, Store
from ray_app.evaluation.mteb_model import MtebModel, model_meta
from ray_app.evaluation.own_tasks import own_task
from ray_app.inference.encoder import Cut
from ray_app.inference.model_source import EmbeddingModel, open_encoder

SETTINGS = "run_settings.jsonl"
META = "model_meta.json"


@dataclass(frozen=True)
class HubTask:
    """A task of mteb, with the splits and subsets that its benchmark uses."""

    name: str
    type: str
    benchmark: str | None
    splits: tuple[str, ...]
    subsets: tuple[str, ...] | None
    """None if the task has no subsets."""


@dataclass(frozen=True)
class HeldOutTask:
    """An evaluation set of a prepared data set."""

    name: str
    instruction: str
    data: Store


AnyTask = HubTask | OwnTask | HeldOutTask


@dataclass(frozen=True)
class MtebTask:
    """A task, with the values that a worker needs to evaluate it. The executor runs one of these at a time."""

    task: AnyTask
    model: EmbeddingModel
    cut: Cut
    results: Store
    instruction: str | None
    """The instruction of the task's queries. None uses mteb's instruction for the task."""
    is_given: bool
    """Whether the user gave the instruction. Its result is kept apart from the result with the usual instruction."""
    overwrite: bool


@dataclass(frozen=True)
class Measured:
    """The result of a task, or `failure` and `remedy`. `settings` are mteb's lines about the settings of the run."""

    name: str
    type: str = ""
    metric: str = ""
    score: float | None = None
    instruction: str = ""
    seconds: float | None = None
    failure: str | None = None
    remedy: str | None = None
    settings: str = ""
    meta: str = ""


def measure_task(mteb_task: MtebTask) -> Measured:
    """Evaluate one task, unless its result exists. An error of the task is returned, not raised."""
    _quiet()
    started = time.monotonic()
    try:
        task = open_task(mteb_task.task)
        return _measure(task, mteb_task, started)
    except F2LLMError as error:
        known = mteb_task.task.type if isinstance(mteb_task.task, HubTask) else ""
        return Measured(mteb_task.task.name, type=known, failure=error.message, remedy=error.remedy)


def open_task(task: AnyTask) -> Any:
    """The task as an mteb object (`AbsTask`). Own data is read at once, Hub data when the task is evaluated."""
    if isinstance(task, HubTask):
        return mteb.get_task(task.name, eval_splits=list(task.splits), hf_subsets=task.subsets and list(task.subsets))
    if isinstance(task, OwnTask):
        return own_task(read_own(task), task.kind, origin=task.address)
    entry = next(entry for entry in load_manifest(task.data).evaluations if entry.name == task.name)
    found = load_evaluation(task.data, entry)
    kind = TaskKind.RETRIEVAL if isinstance(found, RetrievalSet) else TaskKind.STS
    return own_task(found, kind, origin=task.data.uri)


def _measure(task: Any, mteb_task: MtebTask, started: float) -> Measured:
    name = task.metadata.name
    meta = model_meta_of(mteb_task)
    instructions = {} if mteb_task.instruction is None else {name: mteb_task.instruction}
    model = MtebModel(meta, partial(open_encoder, mteb_task.model, mteb_task.cut), instructions)
    with tempfile.TemporaryDirectory() as temporary:
        cache = ResultCache(temporary)
        key = f"{result_folder(mteb_task)}/{name}.json"
        path = Path(temporary) / key
        if not mteb_task.overwrite:
            _fetch(mteb_task.results, key, path)
        known = cache.load_task_result(name, meta)
        if known is not None and not (known.is_mergeable(task) and isfinite(known.get_score())):
            path.unlink()  # it is of other data or has no score, but mteb would use it for this task
            known = None
        if known is not None and not known.get_missing_evaluations(task):
            result, settings, described = known, "", ""
        else:
            if not task.data_loaded:
                load_task(task)
            (result,) = mteb.evaluate(
                model, task, cache=cache, overwrite_strategy="only-missing", co2_tracker=False, show_progress_bar=False,
                encode_kwargs={"batch_size": _TEXTS_AT_ONCE, "show_progress_bar": False},
            ).task_results  # fmt: skip
            if not isfinite(result.get_score()):
                raise _no_score(task, float(result.get_score()))
            mteb_task.results.put(key, path.read_bytes())
            settings, described = (path.with_name(file).read_text("utf-8") for file in (SETTINGS, META))
            result = TaskResult.from_disk(path)  # rounded, as later readers see it
    return Measured(
        name,
        type=task.metadata.type,
        metric=task.metadata.main_score,
        score=float(result.get_score()),
        instruction=model.query_instruction(task.metadata),
        seconds=time.monotonic() - started,
        settings=settings,
        meta=described,
    )


def _no_score(task: Any, score: float) -> DataError:
    """For example, a correlation is undefined if one of its sides is constant."""
    return DataError(
        f"task {task.metadata.name}: {task.metadata.main_score} is {score}, which is not a score: all embeddings are "
        "equal, or all judgments are",
        remedy="give texts and judgments that differ. If the texts differ only after the model's max_seq_length "
        "tokens, which include the instruction, give a shorter instruction",
    )


_TEXTS_AT_ONCE = 1024
"""The size of mteb's batches. They only pass texts to the encoder, which makes its own batches by tokens."""


def _fetch(store: Store, key: str, path: Path) -> None:
    try:
        content = store.get(key, most=BULK_BYTES)
    except NotFoundInStore:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def result_folder(mteb_task: MtebTask) -> str:
    """The directory in `results` where mteb keeps the results of this model with these settings."""
    root = Path("results")
    meta = model_meta_of(mteb_task)
    folder = root / meta.model_name_as_path() / meta.revision
    kept: Path = folder / "experiments" / meta.experiment_name if meta.experiment_name else folder
    return kept.as_posix()


def known_score(mteb_task: MtebTask, model: EmbeddingModel) -> float | None:
    """The score of another model on the same task, from the same results. None if it is missing or not finite."""
    try:
        content = mteb_task.results.get(f"{result_folder(replace(mteb_task, model=model))}/{mteb_task.task.name}.json")
    except NotFoundInStore:
        return None
    score = float(TaskResult.model_validate_json(content).get_score())
    return score if isfinite(score) else None


def model_meta_of(mteb_task: MtebTask) -> Any:
    """mteb's description of the model with the settings of this task. It decides the directory of the result."""
    experiment: dict[str, object] = {}
    if mteb_task.cut.dimensions is not None:
        experiment["embed_dim"] = mteb_task.cut.dimensions
    if mteb_task.is_given:
        experiment["instruction"] = mteb_task.instruction
    return model_meta(mteb_task.model.name, mteb_task.model.fingerprint, experiment=experiment)


def _quiet() -> None:
    """Disable messages of mteb and its libraries that repeat for every task and do not help the user."""
    warnings.filterwarnings("ignore", module=r"(mteb|datasets|sklearn|torch|transformers)\.")
    for library in ("mteb", "datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
