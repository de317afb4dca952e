"""`f2llm submit`, `list`, `watch`, `scale`, ...: jobs on Kubernetes."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_io.wording import counted
from jobs.cli.options import (
    ClusterOptions,
    Debug,
    JobPath,
    Json,
    Set,
    Workers,
    namespace_option,
    print_json,
    takes,
    workers_override,
)
from jobs.cli.output.text import aligned, say
from jobs.extras import needs

if TYPE_CHECKING:
    from jobs.kube.client import JobsClient

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", show_default=False)]


class DryRun(StrEnum):
    """The values of kubectl."""

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
        DryRun,
        typer.Option(
            "--dry-run",
            help="Start nothing. client: check the job spec on this machine. server: let the API server check it.",
        ),
    ] = DryRun.NONE,
    watch_: Annotated[bool, typer.Option("--watch", help="Print changes until the job ends.")] = False,
    debug: Debug = False,
) -> None:
    """Submit a job spec to a cluster, or change the job of that name."""
    from jobs.spec.job import load_job_spec

    job_spec = load_job_spec(job, overrides=[*(set_ or ()), *workers_override(workers)])
    name = job_spec.metadata.name
    if dry_run is DryRun.CLIENT:
        from jobs.spec.volumes import refuse_unmounted_directories

        refuse_unmounted_directories(job_spec)
        print(f"{name}: the job spec is valid; nothing was sent to a cluster")
        return
    jobs = _jobs(options, namespace=job_spec.metadata.namespace)
    jobs.submit(job_spec, dry_run=dry_run is DryRun.SERVER)
    if dry_run is DryRun.SERVER:
        print(f"{name}: the API server accepts the job spec; nothing was started")
    elif watch_:
        _watch(jobs, name)
    else:
        print(
            f"{name}: submitted to namespace {jobs.namespace}; watch it with `f2llm watch {name} -n {jobs.namespace}`"
        )


@takes(ClusterOptions)
def list_jobs(
    options: ClusterOptions,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="List the jobs of all namespaces.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List jobs with phase, step, progress and workers."""
    found = _jobs(options).list_jobs(everywhere=everywhere)
    if json:
        print_json({"jobs": found})
        return
    for line in _table(found, everywhere=everywhere):
        print(line)


@takes(ClusterOptions)
def watch(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Print the changes of a job until it ends. Exit code 0 if it succeeded, else 1."""
    _watch(_jobs(options), name)


@takes(ClusterOptions)
def describe(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Show a job with its failure, conditions, pods and events."""
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
        typer.Option("--worker", min=0, metavar="N", help="Rank of a worker. Default: the driver.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until the process ends.")] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", min=1, metavar="N", help="Print only the last N lines. Default: all.", show_default=False
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print the log of the driver or of a worker.

    If the pods are gone, the log comes from the run directory.
    """
    jobs = _jobs(options)
    found = jobs.pod_log(name, worker=worker, follow=follow, lines=lines)
    for line in _stored_log(jobs, name, worker=worker, lines=lines) if found is None else found:
        print(line, flush=follow)


def _stored_log(jobs: "JobsClient", name: str, *, worker: int | None, lines: int | None) -> list[str]:
    """The log lines in the run directory, which this process must be able to read."""
    from jobs.errors import KubernetesError
    from jobs.kube.resource import job_spec_of
    from jobs.kube.status import status_of

    with needs("data"):
        from jobs.workflows.runs import read_log
    job = jobs.get(name)
    status = status_of(job)
    if not status.run_uri:
        raise KubernetesError(
            f"{name} has not started yet; its phase is {status.phase}", remedy=f"see `f2llm describe {name}`"
        )
    s3, process = job_spec_of(job).spec.storage.s3, "driver" if worker is None else f"worker-{worker}"
    return read_log(status.run_uri, s3, process=process)[-lines if lines else 0 :]


@takes(ClusterOptions)
def scale(
    options: ClusterOptions,
    name: Name,
    workers: Annotated[int, typer.Argument(metavar="N", min=1, help="Number of workers.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Change the number of workers. The losses stay the same."""
    _jobs(options).scale(name, workers)
    print(f"{name}: scaled to {counted(workers, 'worker')}")


@takes(ClusterOptions)
def suspend(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Stop a job after a checkpoint, and delete its pods."""
    _jobs(options).suspend(name)
    print(f"{name}: suspended; resume it with `f2llm resume {name}`")


@takes(ClusterOptions)
def resume(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Resume a suspended job from its checkpoint."""
    _jobs(options).resume(name)
    print(f"{name}: resumed")


@takes(ClusterOptions)
def delete(options: ClusterOptions, name: Name, debug: Debug = False) -> None:
    """Delete a job and its pods. The run directory stays.

    If you submit the same job spec again, its run resumes.
    """
    jobs = _jobs(options)
    uri = jobs.get(name).get("status", {}).get("runUri")
    jobs.delete(name)
    print(f"{name}: deleted" + (f"; its run directory stays: {uri}" if uri else ""))


def render(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB.yaml",
            help="Job spec: a YAML or .json file, or - for standard input. Optional with --serve.",
            show_default=False,
        ),
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            metavar="MODEL",
            help="Print a RayService that serves this model, in pods like the workers of the job spec.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Name of the RayService and its model.", show_default=False),
    ] = None,
    replicas: Annotated[int, typer.Option("--replicas", min=1, metavar="N", help="Number of serving pods.")] = 1,
    namespace: Annotated[
        str | None, namespace_option("Namespace of the objects. Default: metadata.namespace of the job spec.")
    ] = None,
    set_: Set = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Configuration file of the operator. Default: built in."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Print the Kubernetes objects of a job spec, as YAML.

    These are the objects that the operator would create. No cluster is needed.

    To apply them, give a namespace: without one the RoleBinding names no account, and the API server refuses it.

    With --serve: print a RayService that serves embeddings; apply it with kubectl. Its image, Secrets, GPUs, CPUs and
    nodes come from spec.cluster and spec.workers, or from --set.
    """
    from jobs.errors import UsageError
    from jobs.manifests.job import render as objects_of
    from jobs.manifests.operator_config import load_operator_config
    from jobs.manifests.serving import job_spec_for, render_service
    from jobs.spec.job import load_job_spec
    from jobs.spec.yaml12 import write_yaml

    settings, chosen = load_operator_config(config), [] if namespace is None else [f"metadata.namespace={namespace}"]
    overrides = [*(set_ or ()), *chosen]
    if serve is not None:
        job_spec = load_job_spec(job, overrides=overrides) if job else job_spec_for(name, overrides)
        objects = render_service(serve, job_spec, settings, name=name or job_spec.metadata.name, replicas=replicas)
    elif job is None:
        raise UsageError("the job spec is missing", remedy="pass JOB.yaml, or a model: --serve MODEL")
    else:
        objects = objects_of(load_job_spec(job, overrides=overrides), settings)
    print("---\n".join(write_yaml(each) for each in objects), end="")


@takes(ClusterOptions)
def dashboard(
    options: ClusterOptions,
    name: Name,
    port: Annotated[int, typer.Option("--port", min=1, help="Local port.")] = 8265,
    debug: Debug = False,
) -> None:
    """Forward the Ray dashboard of a job to a local port.

    Runs until Ctrl-C. Needs kubectl.
    """
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
    say(f"dashboard: http://127.0.0.1:{port}")
    say(f"its token: {token}")
    head = f"service/{cluster}-head-svc"
    try:
        # The user's own kubectl, from PATH as in a shell.
        subprocess.run(["kubectl", *where, "port-forward", head, f"{port}:8265"], check=False)  # nosec B607
    except FileNotFoundError:
        raise ConfigError("kubectl is not on PATH", remedy="install kubectl, or add its directory to PATH") from None
    except KeyboardInterrupt:
        say("closed")


def _jobs(options: ClusterOptions, *, namespace: str | None = None) -> "JobsClient":
    """`namespace` is used if the options have none."""
    from jobs.kube.client import JobsClient

    with needs("cluster"):
        from jobs.kube.api import connect
    return JobsClient(connect(options.kubeconfig, options.context, options.namespace or namespace))


def _watch(jobs: "JobsClient", name: str) -> None:
    """Print a line for each change of the job that `JobsClient.watch` reports."""
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
        say(f"{name} continues to run; watch it again with `f2llm watch {name}`")
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
        return ["no jobs; start one with `f2llm submit JOB.yaml`"]
    return aligned(rows)
