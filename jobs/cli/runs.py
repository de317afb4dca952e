"""`f2llm status`, `evaluate`, `export`, `report`: commands on a run directory."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import backend
from jobs.cli import failure_text
from jobs.cli.options import (
    AllowHttp,
    Context,
    Debug,
    EndpointUrl,
    Json,
    Kubeconfig,
    Namespace,
    Quiet,
    Region,
    RunUri,
    print_json,
    s3_options,
)
from jobs.cli.text import say, say_nothing
from jobs.progress import duration, numbers

if TYPE_CHECKING:
    from data_io.config import S3Options
    from jobs.k8s_api import KubeApi
    from jobs.spec import EmbeddingJob
    from ray_app.evaluation_report import EvaluationReport
    from ray_app.status import RunStatus


Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="URI", help="Where the data set is now; otherwise data.uri of the run.", show_default=False
    ),
]


def status(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Run directory, a folder or s3://bucket/prefix; or the name of a job on a cluster.",
            show_default=False,
        ),
    ],
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Print where a run, or a job on a cluster, stands."""
    from jobs.errors import ConfigError
    from jobs.fields import JOB_NAME_PATTERN

    if re.fullmatch(JOB_NAME_PATTERN, run) and not Path(run).exists():
        try:
            api = backend.connect(kubeconfig, context, namespace)
        except ConfigError:  # no cluster: then a run directory was meant
            if kubeconfig or context or namespace:
                raise
        else:
            _status_of_job(api, run, json=json)
            return
    s3 = s3_options(endpoint_url, region, allow_http)
    found, failure = backend.read_status(run, s3), backend.read_exit_record(run, s3)
    if json:
        print_json({**found.model_dump(mode="json"), "exit": failure and failure.model_dump(mode="json")})
        return
    for label, text in [*_status_lines(found), *(failure_text.status_lines(failure) if failure else [])]:
        print(f"{label:<12}{text}")
    for line in failure_text.log_lines(failure) if failure else []:
        print(line)


def evaluate(
    run: RunUri,
    data: Data = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a run's model again, on the held-out sets.

    Writes evaluation/after.json of the run.
    """
    job = _document_of(run, data, s3_options(endpoint_url, region, allow_http))
    report = backend.evaluate_run(job, run, say=say_nothing if quiet else say)
    if json:
        print_json(report.model_dump(mode="json"))
    else:
        for line in _evaluation_lines(report):
            print(line)


def export(
    run: RunUri,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Where to write the model; otherwise RUN/model.", show_default=False
        ),
    ] = None,
    data: Data = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    debug: Debug = False,
) -> None:
    """Write a model folder from a run's newest checkpoint.

    sentence-transformers and transformers load it.
    """
    job = _document_of(run, data, s3_options(endpoint_url, region, allow_http))
    print(backend.export_run(job, run, out=out))


def report(
    run: RunUri,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    debug: Debug = False,
) -> None:
    """Write report.html of a run again."""
    print(backend.report_run(run, s3_options(endpoint_url, region, allow_http)))


def _status_of_job(api: "KubeApi", name: str, *, json: bool) -> None:
    from jobs.cli.cluster_text import summary
    from jobs.client import JobsClient

    job = JobsClient(api).get(name)
    if json:
        print_json(job.get("status", {}))
        return
    for line in summary(job):
        print(line)


def _document_of(run: str, data: str | None, s3: "S3Options") -> "EmbeddingJob":
    """The document of a run, with the data set where it is now."""
    from data_io.errors import NotFoundInStore
    from jobs.spec import apply_overrides, parse_document
    from jobs.yaml_text import read_yaml

    frozen = backend.read_frozen_document(run, s3)
    if not frozen:
        raise NotFoundInStore(f"no run at {run}: it has no job.yaml", remedy=backend.RUN_HINT)
    moved = [f"data.uri={data}"] if data else []
    given = {name: value for name, value in s3.model_dump().items() if value}
    reached = [f"storage.s3.{name}={value}" for name, value in given.items()]
    return parse_document(apply_overrides(read_yaml(frozen, f"{run}/job.yaml"), [*moved, *reached]))


def _status_lines(found: "RunStatus") -> list[tuple[str, str]]:
    lines = [
        ("run", found.name),
        ("phase", f"{found.phase.value}{f': {found.message}' if found.message else ''}"),
        ("progress", "  ".join(numbers(found)) if found.total_steps else "not started"),
        ("workers", f"{found.workers}; attempt {found.attempt}, {found.steps_lost} steps repeated"),
    ]
    if found.worker_slowness and (most := max(found.worker_slowness)) > 1.2:
        lines.append(("slowest", f"worker {found.worker_slowness.index(most)}, {most:.1f} times the median a token"))
    if found.restarts_by_reason:
        lines.append(("restarts", ", ".join(f"{n} {reason}" for reason, n in found.restarts_by_reason.items())))
    if found.goodput is not None:
        lines.append(("goodput", f"{found.goodput:.0%} of {duration(found.training_seconds)} of training"))
    lines.append(("checkpoint", _checkpoint_text(found)))
    if found.seconds:
        lines.append(("time", ", ".join(f"{phase} {duration(spent)}" for phase, spent in found.seconds.items())))
    return [*lines, ("updated", f"{found.updated:%Y-%m-%d %H:%M:%S} UTC")]


def _checkpoint_text(found: "RunStatus") -> str:
    if found.last_checkpoint_step is None:
        return "none yet"
    pieces = [f"step {found.last_checkpoint_step}"]
    if found.last_checkpoint_time is not None:
        age = max(0.0, (found.updated - found.last_checkpoint_time).total_seconds())
        pieces.append(f"{duration(age)} old")
    if found.checkpoint_save_seconds is not None and found.checkpoint_stall_seconds is not None:
        pieces += [
            f"written in {found.checkpoint_save_seconds:.1f} s",
            f"training held up for {found.checkpoint_stall_seconds:.2f} s",
        ]
    return ", ".join(pieces)


def _evaluation_lines(report: "EvaluationReport") -> list[str]:
    lines = []
    for result in report.retrieval:
        bm25 = "" if result.bm25 is None else f"  (BM25: {result.bm25.ndcg_at_10:.3f}, {result.bm25.recall_at_10:.3f})"
        lines.append(
            f"{result.name}: nDCG@10 {result.model.ndcg_at_10:.3f}, recall@10 {result.model.recall_at_10:.3f}{bm25}, "
            f"{result.queries} queries over {result.documents} documents"
        )
    for pairs in report.sts:
        spearman = "undefined" if pairs.spearman is None else f"{pairs.spearman:.3f}"
        lines.append(f"{pairs.name}: Spearman {spearman}, {pairs.pairs} pairs")
    return lines
