"""The one door from the command line to modules that load torch, Ray, pyarrow or an object store.

Each function imports its target when it is called, so that `f2llm --help` loads none of them, and turns a library that
is not installed into a message that names the extra to install.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from data_io.errors import NotFoundInStore
from jobs.errors import ConfigError

if TYPE_CHECKING:
    from data_io.config import S3Options
    from data_io.contamination_report import ContaminationReport
    from data_io.statistics_report import DatasetStatistics
    from jobs.doctor import Check
    from jobs.k8s_api import KubeApi
    from jobs.plan import DataSize
    from jobs.published import Published
    from jobs.sources_file import SourcesFile
    from jobs.spec import EmbeddingJob
    from ray_app.config import JobSpec
    from ray_app.evaluation_report import EvaluationReport
    from ray_app.exit_record import ExitRecord
    from ray_app.mining_job import OnProgress
    from ray_app.mining_report import MiningReport
    from ray_app.report_record import RunRecord
    from ray_app.run_figures import RunFigures
    from ray_app.status import RunStatus
    from ray_app.task_report import TaskReport

Target = Literal[
    "open_store",
    "probe_store",
    "load_manifest",
    "own_tokenizer",
    "read_tokenizer",
    "dataset_statistics",
    "verify_dataset",
    "prepare_documentation",
    "prepare_files",
    "prepare_recipe",
    "prepare_released",
    "ray_run",
    "is_large",
    "FileInput",
    "Columns",
    "mine_dataset",
    "MiningRule",
    "Workers",
    "quantile",
    "read_status",
    "read_scores",
    "last_heard",
    "read_exit_record",
    "read_text",
    "run",
    "evaluate_exported",
    "evaluate_tasks",
    "find_exported",
    "initial_model",
    "Cut",
    "embed_texts",
    "in_process",
    "open_encoder",
    "build_index",
    "open_index",
    "train",
    "read_probe",
    "predict",
    "cluster_texts",
    "export_run",
    "merge",
    "find_checkpoints",
    "RunCheckpoints",
    "open_models",
    "Measure",
    "upload_folder",
    "connect",
    "write_report",
    "write_data_report",
    "find_contamination",
    "read_evaluations",
    "NearRule",
    "read_runs",
    "figures_of",
    "write_runs_page",
    "read_run",
    "measures_of",
    "study_results",
    "VariantFacts",
    "save_results",
    "render_study",
    "Lease",
    "serve_here",
]
TARGETS: Mapping[Target, str] = {
    "open_store": "data_io.storage",
    "probe_store": "data_io.store_probe",
    "load_manifest": "data_io.manifest",
    "own_tokenizer": "data_io.tokenization",
    "read_tokenizer": "data_io.tokenization",
    "dataset_statistics": "data_io.statistics_report",
    "verify_dataset": "data_io.verify",
    "prepare_documentation": "data_io.prepare",
    "prepare_files": "data_io.prepare",
    "prepare_recipe": "data_io.prepare_public",
    "prepare_released": "data_io.prepare_public",
    "ray_run": "ray_app.prepare_job",
    "is_large": "data_io.prepare",
    "FileInput": "data_io.prepare",
    "Columns": "data_io.sources.convert",
    "mine_dataset": "ray_app.mining_job",
    "MiningRule": "ray_app.mining",
    "Workers": "ray_app.mining_job",
    "quantile": "ray_app.mining_report",
    "read_status": "ray_app.run_directory",
    "read_scores": "ray_app.evaluation_curve",
    "last_heard": "ray_app.lease",
    "read_exit_record": "ray_app.exit_record",
    "read_text": "ray_app.run_directory",
    "run": "ray_app.entrypoint",
    "evaluate_exported": "ray_app.delivery",
    "evaluate_tasks": "ray_app.task_evaluation",
    "find_exported": "ray_app.embedding_model",
    "initial_model": "ray_app.embedding_model",
    "Cut": "ray_app.encoder",
    "embed_texts": "ray_app.embed_job",
    "in_process": "data_io.work",
    "open_encoder": "ray_app.embedding_model",
    "build_index": "applications.index",
    "open_index": "applications.search",
    "train": "applications.classify",
    "read_probe": "applications.classify",
    "predict": "applications.classify",
    "cluster_texts": "applications.cluster",
    "export_run": "ray_app.delivery",
    "merge": "ray_app.merge",
    "find_checkpoints": "ray_app.merge",
    "RunCheckpoints": "ray_app.merge",
    "open_models": "ray_app.merge",
    "Measure": "ray_app.merge",
    "upload_folder": "data_io.folders",
    "connect": "jobs.k8s_api",
    "write_report": "ray_app.report",
    "write_data_report": "ray_app.data_report",
    "find_contamination": "data_io.contamination",
    "read_evaluations": "data_io.evaluation_texts",
    "NearRule": "data_io.contamination_report",
    "read_runs": "ray_app.run_figures",
    "figures_of": "ray_app.run_figures",
    "write_runs_page": "ray_app.runs_page",
    "read_run": "ray_app.report_record",
    "measures_of": "ray_app.study_results",
    "study_results": "ray_app.study_results",
    "VariantFacts": "ray_app.study_results",
    "save_results": "ray_app.study_results",
    "render_study": "ray_app.study_page",
    "Lease": "ray_app.lease",
    "serve_here": "ray_app.serve_here",
}

LONGEST_MEASURED_TOKENS = 32_768
"""Longer texts count as this long in statistics: no backbone reads further."""
RUN_HINT = "give the run directory, <storage.uri>/<metadata.name>, as in runs/demo"
_DATA_LIBRARIES = ("numpy", "obstore", "pyarrow", "tokenizers", "xxhash")
_OURS = ("data_io", "ray_app", "applications", "jobs")
_EXTRAS = {"kubernetes": "cluster", "mteb": "benchmark", "faiss": "applications", "sklearn": "applications"}


def function(target: Target) -> Callable[..., Any]:
    """A function behind the door. Raises ConfigError that names the extra where a library it needs is not installed."""
    try:
        module = import_module(TARGETS[target])
    except ImportError as error:
        library = (error.name or "").partition(".")[0]
        if library in _OURS:
            raise
        extra = "data" if TARGETS[target].startswith("data_io") and library in _DATA_LIBRARIES else "train"
        extra = "serve" if target == "serve_here" else _EXTRAS.get(library, extra)
        raise ConfigError(
            f"{TARGETS[target]} cannot be loaded: {error}",
            remedy=f"{install_hint(extra)} (what is there: `f2llm doctor`)",
        ) from error
    return getattr(module, target)  # type: ignore[no-any-return]


def install_hint(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'f2llm-ray[{extra}]'"


def missing_data_libraries() -> list[str]:
    """Libraries of the extra `data` that are not installed."""
    return [name for name in _DATA_LIBRARIES if find_spec(name) is None]


def data_size(uri: str, s3: "S3Options") -> "DataSize":
    """What the manifest says of a data set. Raises DataError or StorageError where it cannot be read."""
    store = function("open_store")(uri, s3)
    return _size_of(function("load_manifest")(store), store)


def prepare_documentation(uri: str, s3: "S3Options", *, say: Callable[[str], None]) -> "DataSize":
    """Make the demo's data set, or leave it as it is where it was made the same way already."""
    store = function("open_store")(uri, s3)
    return _size_of(function("prepare_documentation")(store, progress=say), store)


def prepare_files(
    uri: str,
    s3: "S3Options",
    sources: "SourcesFile",
    *,
    exclude: Sequence[str] = (),
    workers: int | None = None,
    memory_mib: int | None = None,
    say: Callable[[str], None],
) -> "DataSize":
    """Make a data set of a user's files, without the rows that have a text of what `exclude` names. Raises DataError
    with file and line for whatever is wrong with them.

    Where the files are large, `workers` processes (None: one a core) work at them on Ray, each with about `memory_mib`
    of texts; one worker needs no Ray.
    """
    store = function("open_store")(uri, s3)
    make_input, make_columns = function("FileInput"), function("Columns")
    inputs = [
        make_input(**(values | {"columns": make_columns(**values["columns"])}))
        for values in sources.sources_as_values()
    ]
    settings = sources.model_dump(exclude={"sources"})
    memory = _memory(memory_mib)
    large = function("is_large")(inputs, **memory)
    with pieces_run(workers if large else 1) as run:
        prepare = function("prepare_files")
        made = prepare(store, inputs, exclude=exclude, s3=s3, **settings, **memory, **run, progress=say)
    return _size_of(made, store)


def _memory(mib: int | None) -> dict[str, int]:
    return {} if mib is None else {"memory_bytes": mib * 2**20}


@contextmanager
def pieces_run(workers: int | None, *, gpus: int = 0) -> Iterator[dict[str, Any]]:
    """How pieces of work are run: by `workers` processes (None: one a core) on Ray, by this one if by one; with `gpus`
    by as many, each on a GPU of its own.
    """
    count = workers or (os.cpu_count() or 1 if find_spec("ray") else 1)
    if count == 1 and gpus == 0:
        yield {}
        return
    with function("ray_run")(count, gpus=gpus) as run:
        yield {"run": run}


def prepare_public(
    uri: str,
    s3: "S3Options",
    what: Sequence[str] | str,
    *,
    workers: int | None = None,
    memory_mib: int | None = None,
    say: Callable[[str], None],
    **options: Any,
) -> "DataSize":
    """Make a data set of public sources by their names, or of the folder of the recipe's published files.

    `options` are those of data_io.prepare_public. Ray does `workers` sources at once; without a number one process
    does one after the other, as they may be small.
    """
    store = function("open_store")(uri, s3)
    prepare = function("prepare_released" if isinstance(what, str) else "prepare_recipe")
    with pieces_run(workers or 1) as run:
        made = prepare(store, what, s3=s3, progress=say, **_memory(memory_mib), **run, **options)
    return _size_of(made, store)


def data_statistics(uri: str, s3: "S3Options", *, everything: bool, say: Callable[[str], None]) -> "DatasetStatistics":
    """Rows, lengths and repeated texts of every source: of a sample of its row groups, or of `everything`.

    Lengths in tokens are there where the data set has a tokenizer. Raises DataError or StorageError.
    """
    store = function("open_store")(uri, s3)
    manifest = function("load_manifest")(store)
    tokenizer = function("read_tokenizer")(store)
    measure = function("dataset_statistics")
    options = {"row_groups_per_source": None} if everything else {}
    found: DatasetStatistics = measure(
        store, manifest, tokenizer=tokenizer and tokenizer.for_texts(LONGEST_MEASURED_TOKENS), progress=say, **options
    )
    return found


def report_data(found: "DatasetStatistics", page: str) -> None:
    """Write a page that shows statistics to the local file `page`."""
    function("write_data_report")(found, Path(page))


def find_contamination(
    uri: str,
    s3: "S3Options",
    *,
    tasks: Sequence[str],
    texts: Sequence[str],
    threshold: float,
    shingle: int,
    permutations: int,
    rows_per_source: int | None,
    say: Callable[[str], None],
) -> "ContaminationReport":
    """Which rows of a data set have a text of the named evaluations, exactly or nearly. Raises DataError."""
    quiet_libraries()
    store = function("open_store")(uri, s3)
    evaluations = function("read_evaluations")(store, function("load_manifest")(store), tasks, texts, s3=s3, say=say)
    rule = function("NearRule")(threshold, shingle, permutations)
    found: ContaminationReport = function("find_contamination")(
        store, evaluations, rule=rule, rows_per_source=rows_per_source, say=say
    )
    return found


def mine_data(
    data_uri: str,
    out_uri: str,
    s3: "S3Options",
    *,
    rule: Mapping[str, object],
    workers: int | None,
    gpus: int,
    on_progress: "OnProgress",
    **options: Any,
) -> "MiningReport":
    """Mine hard negatives into a new data set. Raises ConfigError for a rule that cannot be met."""
    from pydantic import ValidationError

    quiet_libraries()
    try:
        checked = function("MiningRule")(**rule)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: " if first["loc"] else ""
        raise ConfigError(
            f"{where}{first['msg'].removeprefix('Value error, ')}",
            remedy="the recipe's: --negatives 24 --top-k 100 --skip 5 --max-score 0.8 --max-ratio 0.95",
        ) from error
    report: MiningReport = function("mine_dataset")(
        function("open_store")(data_uri, s3),
        function("open_store")(out_uri, s3),
        rule=checked,
        workers=function("Workers")(workers or len(os.sched_getaffinity(0)), gpus),
        on_progress=on_progress,
        **options,
    )
    return report


def quantile_of_scores(bins: Sequence[int], share: float) -> float:
    """The score below which `share` of a report's histogram lies."""
    return float(function("quantile")(bins, share))


def _size_of(manifest: Any, store: Any) -> "DataSize":
    from jobs.plan import DataSize, SourceSize
    from ray_app.study_report import GIVEN_BY

    return DataSize(
        version=manifest.version,
        sources=tuple(
            SourceSize(entry.name, entry.kind, entry.rows, negatives=entry.usable_negatives, unmined=entry.unmined)
            for entry in manifest.sources
        ),
        evaluations=tuple(entry.name for entry in manifest.evaluations),
        metrics=tuple(dict.fromkeys(metric for entry in manifest.evaluations for metric in GIVEN_BY[entry.type])),
        vocabulary_size=_vocabulary_size(store),
    )


class RunResult(Protocol):
    """How a run ended: `signal` is the one that stopped it, None where it ended by itself or by its step limit."""

    @property
    def status(self) -> "RunStatus": ...

    @property
    def signal(self) -> int | None: ...


def run_job(
    job: "EmbeddingJob", *, stop_after_steps: int | None, on_status: "Callable[[RunStatus], None]"
) -> RunResult:
    """Train a document here, or go on with its run. Raises an F2LLMError; the run directory says so too."""
    from jobs.differences import changes_from, differences_from

    result: RunResult = function("run")(
        job.metadata.name,
        job.job_spec,
        document_yaml=job.to_yaml(),
        differences=lambda frozen: [str(found) for found in differences_from(frozen, job)],
        changes=lambda frozen: [str(found) for found in changes_from(frozen, job)],
        stop_after_steps=stop_after_steps,
        on_status=on_status,
    )
    return result


def check_tokenizer(job: "EmbeddingJob") -> None:
    """Raises DataError where the run would be refused because the data set brings no tokenizer along."""
    if job.job_spec.model.needs_tokenizer_of_data:
        function("own_tokenizer")(_data_store(job.job_spec))


def evaluate_run(
    job: "EmbeddingJob", run_uri: str, *, dims: Sequence[int], say: Callable[[str], None]
) -> "EvaluationReport":
    """Measure model/ of a run again, into evaluation/after.json. `job` is the run's document; `dims` are numbers of
    first values of the embeddings to measure with too.
    """
    spec = job.job_spec
    run = function("open_store")(run_uri, spec.storage.s3)
    if not run.exists("model/config.json"):
        raise NotFoundInStore(f"{run_uri} has no model", remedy=f"write it first: `f2llm export {run_uri}`")
    device = quiet_device()
    report: EvaluationReport = function("evaluate_exported")(
        spec, data=_data_store(spec), run=run, device=device, say=say, dims=dims
    )
    return report


def export_run(job: "EmbeddingJob", run_uri: str, *, out: str | None) -> str:
    """Write a run's newest checkpoint as a model folder: `out`, or model/ of the run. Returns where it is.

    Raises ConfigError where `out` holds something that is no model.
    """
    spec, name = job.job_spec, job.metadata.name
    run = function("open_store")(run_uri, spec.storage.s3)
    target = run.child("model") if out is None else function("open_store")(out, spec.storage.s3)
    if out is not None:
        _refuse_what_is_no_model(target)
    quiet_device()
    if target.is_local:
        function("export_run")(name, spec, data=_data_store(spec), run=run, out=Path(target.uri))
        return out or str(target.uri)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        function("export_run")(name, spec, data=_data_store(spec), run=run, out=folder)
        function("upload_folder")(folder, target)
    return str(target.uri)


def _refuse_what_is_no_model(place: Any) -> None:
    """An earlier export is replaced; anything else is somebody's work."""
    level = place.list_level()
    found = {*level.keys, *level.folders}
    if found and (not {"config.json", "modules.json", "1_Pooling"} <= found or "job.yaml" in found):
        raise ConfigError(
            f"{place.uri} holds something that is no exported model ({min(found)})",
            remedy="give a folder that is empty or not there, or an earlier export",
        )


def report_run(run_uri: str, s3: "S3Options") -> str:
    """Write report.html of a run; returns where it is."""
    run = function("open_store")(run_uri, s3)
    if not run.exists("job.yaml"):
        raise NotFoundInStore(f"no run at {run_uri}: it has no job.yaml", remedy=RUN_HINT)
    function("write_report")(run)
    return f"{run.uri}/report.html"


def runs_below(uri: str, s3: "S3Options", *, gpu_price: float | None) -> "list[tuple[RunFigures, RunRecord]]":
    """Every run at `uri` or below it. Raises NotFoundInStore where there is none."""
    found = function("read_runs")(function("open_store")(uri, s3))
    if not found:
        raise NotFoundInStore(f"no run at {uri} or below it", remedy="give storage.uri of your documents")
    now = datetime.now(UTC)
    return [(function("figures_of")(name, record, gpu_price=gpu_price, now=now), record) for name, record in found]


def write_runs_page(
    uri: str,
    runs: "Sequence[tuple[RunFigures, RunRecord]]",
    differences: Sequence[tuple[str, Mapping[str, str]]],
    page: str,
    *,
    price: str,
) -> None:
    """Write a page that shows runs side by side to the local file `page`."""
    function("write_runs_page")(uri, runs, differences, Path(page), price=price)


@dataclass(frozen=True)
class DataReport:
    """What was looked at in a data set, and every problem with its place; none means that it is whole."""

    version: str | None
    sources: int
    evaluations: int
    shards: int
    rows: int
    bytes: int
    problems: tuple[str, ...]


def verify_data(uri: str, s3: "S3Options", *, on_bytes: Callable[[int, int], None]) -> DataReport:
    """Read a whole data set; `on_bytes(done, total)` is called as it goes."""
    found = function("verify_dataset")(function("open_store")(uri, s3), progress=on_bytes)
    return DataReport(
        version=found.version,
        sources=found.sources,
        evaluations=found.evaluations,
        shards=found.shards,
        rows=found.rows,
        bytes=found.bytes,
        problems=tuple(map(str, found.problems)),
    )


def connect(kubeconfig: str | None, context: str | None, namespace: str | None) -> "KubeApi":
    """A cluster, found as kubectl finds it. Raises ConfigError where there is none."""
    api: KubeApi = function("connect")(kubeconfig=kubeconfig, context=context, namespace=namespace)
    return api


def examine_cluster(
    kubeconfig: str | None, context: str | None, namespace: str | None, path: str | None
) -> "list[Check]":
    """What a cluster has for training, and for the document at `path`. One that does not answer is a finding too.

    Raises ConfigError where no cluster is named anywhere, or the document is none.
    """
    from jobs.cluster_doctor import judge_cluster
    from jobs.cluster_facts import read_cluster
    from jobs.crd import schema
    from jobs.doctor import Check
    from jobs.document_doctor import judge_document
    from jobs.errors import KubernetesError
    from jobs.spec import load_document

    job = None if path is None else load_document(path)
    api = connect(kubeconfig, context, namespace or (None if job is None else job.metadata.namespace))
    try:
        facts = read_cluster(api, job)
    except KubernetesError as error:
        return [Check("API server", "missing", error.message, error.remedy)]
    checks = judge_cluster(facts, schema()["properties"]["spec"])
    return checks if job is None else [*checks, *judge_document(job, facts)]


def progress_door(config_map: str) -> "Callable[[Published], str]":
    """What writes a driver's words into its ConfigMap, from inside a pod; it answers the operator's wish."""
    from jobs.published import PUBLISHED_KEY, STOP_KEY

    api = connect(None, None, None)

    def send(words: "Published") -> str:
        answer = api.patch("ConfigMap", config_map, {"data": {PUBLISHED_KEY: words.model_dump_json()}})
        return str(answer.get("data", {}).get(STOP_KEY, ""))

    return send


def read_status(run_uri: str, s3: "S3Options") -> "RunStatus":
    """Where a run stands. Raises NotFoundInStore where no run is, or its status is damaged."""
    run = function("open_store")(run_uri, s3)
    status: RunStatus | None = function("read_status")(run)
    if status is None and run.exists("status.json"):
        raise NotFoundInStore(
            f"{run_uri}/status.json is damaged: it does not hold a run's status",
            remedy="run its document again with `f2llm run`, which writes it anew and loses nothing",
        )
    if status is None:
        raise NotFoundInStore(f"no run at {run_uri}: it has no status.json", remedy=RUN_HINT)
    # While a run trains, its workers write the status, and checkpoints are measured elsewhere.
    return status.model_copy(update=function("read_scores")(run))


def last_heard(run_uri: str, s3: "S3Options") -> datetime | None:
    """When the driver of a run last wrote its lease, which it does every few seconds; None where none ever did."""
    heard: datetime | None = function("last_heard")(function("open_store")(run_uri, s3))
    return heard


def read_exit_record(run_uri: str, s3: "S3Options") -> "ExitRecord | None":
    """Why a run failed; None where it has not."""
    record: ExitRecord | None = function("read_exit_record")(function("open_store")(run_uri, s3))
    return record


def read_log(run_uri: str, s3: "S3Options", *, process: str) -> list[str]:
    """Lines that `driver` or `worker-<rank>` logged in the run's last start that has a log of it.

    Raises NotFoundInStore where there is none, naming the processes that have one.
    """
    run = function("open_store")(run_uri, s3)
    logs = [info.key for info in run.list("logs") if info.key.endswith(".log")]  # logs/<start>/<process>.log
    newest = max((key for key in logs if key.endswith(f"/{process}.log")), default=None)
    if newest is None:
        known = sorted({key.rpartition("/")[2].removesuffix(".log") for key in logs})
        found = f"there are logs of {', '.join(known)}" if known else "a process that was killed leaves no log"
        raise NotFoundInStore(f"{run_uri}/logs has no log of {process}", remedy=found)
    lines: list[str] = run.get(newest).decode("utf-8", "replace").splitlines()
    return lines


def read_frozen_document(run_uri: str, s3: "S3Options") -> str:
    """job.yaml of a run directory, empty where no run is."""
    return str(function("read_text")(function("open_store")(run_uri, s3), "job.yaml"))


def read_evaluation(run_uri: str, s3: "S3Options", *, moment: Literal["before", "after"]) -> "EvaluationReport | None":
    """What was measured before or after training; None where that was not done."""
    from ray_app.evaluation_report import EvaluationReport

    text = function("read_text")(function("open_store")(run_uri, s3), f"evaluation/{moment}.json")
    return EvaluationReport.model_validate_json(text) if text else None


def read_task_report(run_uri: str, s3: "S3Options") -> "TaskReport | None":
    """The last evaluation on tasks, None where there was none."""
    from ray_app.task_report import RESULTS, SUMMARY, TaskReport

    text = function("read_text")(function("open_store")(run_uri, s3), f"{RESULTS}/{SUMMARY}")
    return TaskReport.model_validate_json(text) if text else None


def _data_store(spec: "JobSpec") -> Any:
    return function("open_store")(spec.data.uri, spec.storage.s3)


def quiet_device() -> Any:
    """Where to compute in this process."""
    quiet_libraries()
    torch = import_module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    os.environ.setdefault("DS_ACCELERATOR", device)
    return torch.device(device)


def quiet_libraries() -> None:
    """Libraries are told not to speak before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"torch\.")


def _vocabulary_size(data: Any) -> int | None:
    """Ids of the tokenizer in a data set, None where it has none."""
    tokenizer = function("read_tokenizer")(data)
    return None if tokenizer is None else tokenizer.for_texts(1).vocabulary_size


def probe_store(uri: str, s3: "S3Options") -> list[str]:
    """What the store can do. Raises StorageError for what a run needs and it does not do."""
    found: list[str] = function("probe_store")(function("open_store")(uri, s3))
    return found
