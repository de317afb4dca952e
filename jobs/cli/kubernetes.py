"""`f2llm submit`, `list`, `watch`, `scale`, ...: jobs on Kubernetes."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.options import ClusterOptions, Debug, JobPath, Json, Set, Workers, print_json, takes, workers_override
from jobs.cli.output.text import aligned, say
from jobs.extras import needs

if TYPE_CHECKING:
    from jobs.kube.client import JobsClient

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", show_default=False)]


class DryRun(StrEnum):
    """kubectl's words."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


@takes(ClusterOptions)
def submit(
    options: ClusterOptions,
    job: JobPath,
    set_: Set = None,
    workers: Workers = None,
    dry_run: Annotated[
        DryRun, typer.Option("--dry-run", help="Start nothing: check the document here, or let the API server do it.")
    ] = DryRun.NONE,
    watch_: Annotated[bool, typer.Option("--watch", help="Show the job until it has ended.")] = False,
    debug: Debug = False,
) -> None:
    """Train a document on a cluster, or change the job that has its name."""
    from jobs.spec.job import load_job_spec

    job_spec = load_job_spec(job, overrides=[*(set_ or ()), *workers_override(workers)])
    name = job_spec.metadata.name
    if dry_run is DryRun.CLIENT:
        print(f"{name}: a valid document; nothing was sent to a cluster")
        return
    jobs = _jobs(options, namespace=job_spec.metadata.namespace)
    jobs.submit(job_spec, dry_run=dry_run is DryRun.SERVER)
    if dry_run is DryRun.SERVER:
        print(f"{name}: the API server would take it; nothing was started")
    elif watch_:
        _watch(jobs, name)
    else:
        print(f"{name}: submitted to namespace {jobs.namespace}; see it with `f2llm watch {name} -n {jobs.namespace}`")


@takes(ClusterOptions)
def list_jobs(
    options: ClusterOptions,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List jobs with where they stand."""
    found = _jobs(options).list_jobs(everywhere=everywhere)
    if json:
        print_json({"jobs": found})
        return
    for line in _table(found, everywhere=everywhere):
        print(line)


@takes(ClusterOptions)
def watch(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Show a job until it has ended; exit code 0 where it succeeded."""
    _watch(_jobs(options), name)


@takes(ClusterOptions)
def describe(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Show all about a job in one screen: where it stands, why it failed, what to do."""
    from jobs.cli.output.kubernetes import description

    jobs = _jobs(options)
    job = jobs.get(name)
    for line in description(job, jobs.pods(name), jobs.events(name)):
        print(line)


@takes(ClusterOptions)
def logs(
    options: ClusterOptions,
    name: Name,
    worker: Annotated[
        int | None,
        typer.Option(
            "--worker", min=0, metavar="N", help="Of this worker; otherwise of the driver.", show_default=False
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", min=1, metavar="N", help="Only the last N.", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Print the log of a job's driver or of a worker; once its pods are gone, what the run directory has of it."""
    jobs = _jobs(options)
    found = jobs.pod_log(name, worker=worker, follow=follow, lines=lines)
    for line in _stored_log(jobs, name, worker=worker, lines=lines) if found is None else found:
        print(line, flush=follow)


def _stored_log(jobs: "JobsClient", name: str, *, worker: int | None, lines: int | None) -> list[str]:
    """What the run directory has, for which this process needs access to it."""
    from jobs.errors import KubernetesError
    from jobs.kube.resource import job_spec_of
    from jobs.kube.status import status_of

    with needs("data"):
        from jobs.workflows.runs import read_log
    job = jobs.get(name)
    status = status_of(job)
    if not status.run_uri:
        raise KubernetesError(f"{name} has not run yet; it is {status.phase}", remedy=f"see `f2llm describe {name}`")
    s3, process = job_spec_of(job).spec.storage.s3, "driver" if worker is None else f"worker-{worker}"
    return read_log(status.run_uri, s3, process=process)[-lines if lines else 0 :]


@takes(ClusterOptions)
def scale(
    options: ClusterOptions,
    name: Name,
    workers: Annotated[int, typer.Argument(metavar="N", min=1, help="Workers to train with.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Train with another number of workers; the losses stay the same."""
    _jobs(options).scale(name, workers)
    print(f"{name}: {workers} workers wanted")


@takes(ClusterOptions)
def suspend(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Stop a job behind a checkpoint and free its pods."""
    _jobs(options).suspend(name)
    print(f"{name}: suspended; go on with `f2llm resume {name}`")


@takes(ClusterOptions)
def resume(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Go on with a suspended job where it stopped."""
    _jobs(options).resume(name)
    print(f"{name}: resumed")


@takes(ClusterOptions)
def delete(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Delete a job and its pods; its run directory stays, and submitting it again goes on from there."""
    jobs = _jobs(options)
    uri = jobs.get(name).get("status", {}).get("runUri")
    jobs.delete(name)
    print(f"{name}: deleted" + (f"; its run stays in {uri}" if uri else ""))


def render(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB.yaml",
            help="Document to use: YAML, .json, or - for standard input; with --serve it may be left out.",
            show_default=False,
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            metavar="MODEL",
            help="Print a RayService that serves this model instead, in pods as the document's workers.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the RayService and its model.", show_default=False),
    ] = None,
    replicas: Annotated[int, typer.Option("--replicas", min=1, metavar="N", help="Pods that serve.")] = 1,
    set_: Set = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings of the operator; otherwise the built-in ones."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print what the operator would make of a document, as YAML; no cluster is needed.

    With --serve: a service that answers requests for embeddings, to be applied with kubectl. Image, Secrets, GPUs,
    cores and nodes of its pods are those that the document's cluster and workers say, or --set.
    """
    from jobs.errors import UsageError
    from jobs.manifests.job import render as objects_of
    from jobs.manifests.operator_config import load_operator_config
    from jobs.manifests.serving import job_spec_for, render_service
    from jobs.spec.job import load_job_spec
    from jobs.spec.yaml12 import write_yaml

    settings = load_operator_config(config)
    if serve is not None:
        job_spec = load_job_spec(job, overrides=set_ or ()) if job else job_spec_for(name, set_ or ())
        objects = render_service(serve, job_spec, settings, name=name or job_spec.metadata.name, replicas=replicas)
    elif job is None:
        raise UsageError("there is no document", remedy="give JOB.yaml, or a model: --serve MODEL")
    else:
        objects = objects_of(load_job_spec(job, overrides=set_ or ()), settings)
    print("---\n".join(write_yaml(each) for each in objects), end="")


@takes(ClusterOptions)
def dashboard(
    options: ClusterOptions,
    name: Name,
    port: Annotated[int, typer.Option("--port", min=1, help="Port of this machine.")] = 8265,
    debug: Debug = False,
) -> None:
    """Open a way to Ray's dashboard of a job, until Ctrl-C. Needs kubectl."""
    from jobs.errors import ConfigError, KubernetesError
    from jobs.kube.status import status_of

    jobs = _jobs(options)
    cluster = status_of(jobs.get(name)).ray_cluster
    if not cluster:
        raise KubernetesError(f"{name} has no Ray cluster now", remedy=f"see `f2llm describe {name}`")
    where = [f"--namespace={jobs.namespace}"]
    where += [f"--context={options.context}"] if options.context else []
    where += [f"--kubeconfig={options.kubeconfig}"] if options.kubeconfig else []
    token = f"kubectl {' '.join(where)} get secret {cluster} -o jsonpath='{{.data.auth_token}}' | base64 -d"
    say(f"http://127.0.0.1:{port}; it asks for a token, which this prints: {token}")
    head = f"service/{cluster}-head-svc"
    try:
        subprocess.run(["kubectl", *where, "port-forward", head, f"{port}:8265"], check=False)
    except FileNotFoundError:
        raise ConfigError("kubectl is not on PATH", remedy="install kubectl, or put its directory on PATH") from None
    except KeyboardInterrupt:
        say("closed")


def _jobs(options: ClusterOptions, *, namespace: str | None = None) -> "JobsClient":
    """`namespace` is the one to use when the options have none."""
    from jobs.kube.client import JobsClient

    with needs("cluster"):
        from jobs.kube.api import connect
    return JobsClient(connect(options.kubeconfig, options.context, options.namespace or namespace))


def _watch(jobs: "JobsClient", name: str) -> None:
    """A line for every change of phase or message, and of step where that is not too often."""
    from jobs.cli.output.kubernetes import remark
    from jobs.kube.status import JobPhase, JobStatus, status_of

    last, status = "", JobStatus()
    try:
        for job in jobs.watch(name):
            status = status_of(job)
            if (line := remark(status)) != last:
                print(line, flush=True)
            last = line
    except KeyboardInterrupt:
        say(f"{name} goes on; `f2llm watch {name}` shows it again")
        raise typer.Exit(130) from None
    if status.phase is not JobPhase.SUCCEEDED:
        print(f"see `f2llm describe {name}`", file=sys.stderr)
        raise typer.Exit(1)


def _table(jobs: Sequence[Mapping[str, Any]], *, everywhere: bool) -> list[str]:
    from jobs.cli.output.kubernetes import row

    head = ["NAMESPACE"] if everywhere else []
    rows = [[*head, "NAME", "PHASE", "STEP", "PROGRESS", "LOSS", "WORKERS", "ETA", "ATTEMPT"]]
    rows += [[*([job["metadata"]["namespace"]] if everywhere else []), *row(job)] for job in jobs]
    if len(rows) == 1:
        return ["no jobs; `f2llm submit JOB.yaml` starts one"]
    return aligned(rows)
