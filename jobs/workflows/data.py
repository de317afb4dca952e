"""Prepare, check and describe data sets. Needs the extra `data`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from data_io.data_spec import S3Options
from data_io.dataset.manifest import Manifest, load_manifest
from data_io.dataset.spill import MEMORY_BYTES
from data_io.dataset.tokenizer import own_tokenizer, read_tokenizer
from data_io.execution import Say
from data_io.inspection import contamination, statistics
from data_io.inspection.contamination_report import ContaminationReport, NearRule
from data_io.inspection.evaluation_texts import read_evaluations
from data_io.inspection.statistics import ROW_GROUPS_PER_SOURCE, DatasetStatistics
from data_io.inspection.verify import verify_dataset
from data_io.preparation import documentation, files, public
from data_io.preparation.attempt import Resources
from data_io.preparation.files import FileOptions
from data_io.preparation.inputs import FileInput, is_large
from data_io.preparation.public import PublicOptions
from data_io.sources.catalog import LicenseRule
from data_io.storage import probe
from data_io.storage.store import Store, open_store
from data_io.user_files.columns import Columns
from jobs.planning.estimate import DataSize, SourceSize
from jobs.spec.job import EmbeddingJob
from jobs.spec.sources_file import SourcesFile
from jobs.workflows.processes import task_executor
from ray_app.reporting.study_report import GIVEN_BY

LONGEST_MEASURED_TOKENS = 32_768
"""Limit of a text in statistics, in tokens. No backbone reads more."""


def data_size(uri: str, s3: S3Options) -> DataSize:
    """Sources, rows and evaluation sets from the manifest. Raises DataError or StorageError if it cannot be read."""
    store = open_store(uri, s3)
    return _size_of(load_manifest(store), store)


def check_tokenizer(job: EmbeddingJob) -> None:
    """Raises DataError if the model needs a tokenizer of the data set, and the data set has none."""
    if job.worker_spec.model.needs_tokenizer_of_data:
        own_tokenizer(open_store(job.spec.data.uri, job.spec.storage.s3))


def prepare_documentation(uri: str, s3: S3Options, *, say: Say) -> DataSize:
    """Prepare the data set of the demo. A data set that was prepared in the same way is not changed."""
    store = open_store(uri, s3)
    with _no_empty_directory(store):
        return _size_of(documentation.prepare_documentation(store, progress=say), store)


def prepare_files(
    uri: str,
    s3: S3Options,
    sources: SourcesFile,
    *,
    exclude: Sequence[str] = (),
    workers: int | None = None,
    memory_mib: int | None = None,
    say: Say,
) -> tuple[DataSize, tuple[str, ...]]:
    """Prepare a data set from the user's files, without the rows that contain an evaluation text of `exclude`.

    Large files are prepared by `workers` processes on Ray (None: one per CPU), each with about `memory_mib` of texts.
    One worker needs no Ray. Also returns the names of the sources that have no instruction. Raises DataError with file
    and line for problems in the files.
    """
    store = open_store(uri, s3)
    inputs = [
        FileInput(**(values | {"columns": Columns(**values["columns"])})) for values in sources.sources_as_values()
    ]
    options = FileOptions(**sources.model_dump(exclude={"sources"}), exclude=exclude, s3=s3)
    memory = _memory_bytes(memory_mib)
    with (
        _no_empty_directory(store),
        task_executor(workers if is_large(inputs, memory_bytes=memory) else 1) as executor,
    ):
        made = files.prepare_files(store, inputs, options, Resources(memory, executor, say))
    return _size_of(made, store), tuple(entry.name for entry in made.sources if not entry.instruction)


def prepare_recipe(
    uri: str,
    s3: S3Options,
    names: Sequence[str],
    *,
    folder: str | None,
    revisions: Mapping[str, str],
    max_rows: int | None,
    license: LicenseRule,
    exclude: Sequence[str],
    workers: int | None,
    memory_mib: int | None,
    say: Say,
) -> DataSize:
    """Prepare a data set from public sources by name, from the Hub or from local copies in `folder`.

    `workers` processes read one source each. None means one, because sources can be small.
    """
    store = open_store(uri, s3)
    options = PublicOptions(max_rows=max_rows, license=license, exclude=exclude, s3=s3)
    with _no_empty_directory(store), task_executor(workers or 1) as executor:
        made = public.prepare_recipe(
            store, names, folder=folder, revisions=revisions, options=options,
            resources=Resources(_memory_bytes(memory_mib), executor, say),
        )  # fmt: skip
    return _size_of(made, store)


def prepare_released(
    uri: str,
    s3: S3Options,
    folder: str,
    *,
    max_rows: int | None,
    license: LicenseRule,
    exclude: Sequence[str],
    workers: int | None,
    memory_mib: int | None,
    say: Say,
) -> DataSize:
    """Prepare a data set from the published files of the recipe. `workers` as in `prepare_recipe`."""
    store = open_store(uri, s3)
    options = PublicOptions(max_rows=max_rows, license=license, exclude=exclude, s3=s3)
    with _no_empty_directory(store), task_executor(workers or 1) as executor:
        resources = Resources(_memory_bytes(memory_mib), executor, say)
        made = public.prepare_released(store, folder, options=options, resources=resources)
    return _size_of(made, store)


def data_statistics(uri: str, s3: S3Options, *, everything: bool, say: Say) -> DatasetStatistics:
    """Rows, text lengths and repeated texts of every source, from a sample of its row groups or from `everything`.

    Lengths are also in tokens if the data set has a tokenizer. Raises DataError or StorageError.
    """
    store = open_store(uri, s3)
    manifest = load_manifest(store)
    tokenizer = read_tokenizer(store)
    return statistics.dataset_statistics(
        store,
        manifest,
        tokenizer=None if tokenizer is None else tokenizer.for_texts(LONGEST_MEASURED_TOKENS),
        row_groups_per_source=None if everything else ROW_GROUPS_PER_SOURCE,
        progress=say,
    )


def find_contamination(
    uri: str,
    s3: S3Options,
    *,
    tasks: Sequence[str],
    texts: Sequence[str],
    threshold: float,
    shingle: int,
    permutations: int,
    rows_per_source: int | None,
    say: Say,
) -> ContaminationReport:
    """Rows of a data set that contain an exact or near copy of a text of the evaluations. Raises DataError."""
    store = open_store(uri, s3)
    evaluations = read_evaluations(store, load_manifest(store), tasks, texts, s3=s3, say=say)
    rule = NearRule(threshold, shingle, permutations)
    return contamination.find_contamination(store, evaluations, rule=rule, rows_per_source=rows_per_source, say=say)


@dataclass(frozen=True)
class DataReport:
    """Counts of the checked parts of a data set, and every problem with its position."""

    version: str | None
    sources: int
    evaluations: int
    shards: int
    rows: int
    bytes: int
    problems: tuple[str, ...]


def verify_data(uri: str, s3: S3Options, *, on_bytes: Callable[[int, int], None]) -> DataReport:
    """Read a data set completely and check it. `on_bytes(done, total)` reports progress."""
    found = verify_dataset(open_store(uri, s3), progress=on_bytes)
    return DataReport(
        version=found.version,
        sources=found.sources,
        evaluations=found.evaluations,
        shards=found.shards,
        rows=found.rows,
        bytes=found.bytes,
        problems=tuple(map(str, found.problems)),
    )


def probe_store(uri: str, s3: S3Options) -> list[str]:
    """Check the operations of a store that a run needs. Raises StorageError if one does not work."""
    return probe.probe_store(open_store(uri, s3))


@contextmanager
def _no_empty_directory(store: Store) -> Iterator[None]:
    """Remove the directory of a local store if the work in it failed and left it empty."""
    is_new = not os.path.exists(store.uri)
    try:
        yield
    except BaseException:
        if store.is_local and is_new:
            with suppress(OSError):  # the directory is not empty, or was not created
                os.rmdir(store.uri)
        raise


def _memory_bytes(mib: int | None) -> int:
    return MEMORY_BYTES if mib is None else mib * 2**20


def _size_of(manifest: Manifest, store: Store) -> DataSize:
    tokenizer = read_tokenizer(store)
    return DataSize(
        version=manifest.version,
        sources=tuple(
            SourceSize(entry.name, entry.kind, entry.rows, negatives=entry.usable_negatives, unmined=entry.unmined)
            for entry in manifest.sources
        ),
        evaluations=tuple(entry.name for entry in manifest.evaluations),
        metrics=tuple(dict.fromkeys(metric for entry in manifest.evaluations for metric in GIVEN_BY[entry.type])),
        vocabulary_size=None if tokenizer is None else tokenizer.for_texts(1).vocabulary_size,
    )
