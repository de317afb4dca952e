"""`f2llm doctor` and `f2llm version`: checks of this machine or a cluster, and installed versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import ClusterOptions, Debug, Json, print_json, s3_options, takes
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from jobs.doctor.check import Check

_LIBRARIES = ("torch", "ray", "deepspeed", "transformers", "sentence-transformers", "pyarrow", "obstore", "flash-attn")
_STYLES = {"ok": "green", "warn": "yellow", "missing": "red", "absent": "dim", "unknown": "dim"}


@takes(s3_options)
@takes(ClusterOptions)
def doctor(
    options: ClusterOptions,
    s3: "S3Options",
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB.yaml", help="With --cluster: also check the requirements of this job spec.", show_default=False
        ),
    ] = None,
    uri: Annotated[
        str | None,
        typer.Option(
            "--uri",
            metavar="URI",
            help="Also check that this directory or s3:// prefix can be written and read.",
            show_default=False,
        ),
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Directory for runs, to check its disk.")] = Path("runs"),
    cluster: Annotated[bool, typer.Option("--cluster", help="Check a Kubernetes cluster, not this machine.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check this machine or a cluster, and print how to fix problems.

    Exit codes: 0: a run on the CPU, or a job on the cluster, can work. 5: the object store cannot be used. 10: a
    requirement is missing. 11: the cluster is unreachable.
    """
    from jobs.doctor.machine import can_run, examine
    from jobs.errors import UsageError

    if cluster:
        from jobs.doctor.examine import examine_cluster

        checks = examine_cluster(options.kubeconfig, options.context, options.namespace, job)
    elif job or options.given:
        raise UsageError(
            "a job spec and cluster options need --cluster", remedy="for example: f2llm doctor --cluster JOB.yaml"
        )
    else:
        checks = examine(
            directory=directory, uri=uri, store_check=None if uri is None else lambda: _probe_store(uri, s3)
        )
    if json:
        print_json({"can_run": can_run(checks), "checks": [check.to_dict() for check in checks]})
    else:
        _print(checks)
    if not can_run(checks):
        only = [check.name for check in checks if check.status == "missing"]
        raise typer.Exit({"store": 5, "API server": 11}.get(only[0], 10) if len(only) == 1 else 10)


def _probe_store(uri: str, s3: "S3Options") -> list[str]:
    with needs("data"):
        from jobs.workflows.data import probe_store
    return probe_store(uri, s3)


def _print(checks: "list[Check]") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        console.print(f"[{_STYLES[check.status]}]{check.status:<8}[/]", end="")
        console.print(f"{check.name:<17} {check.found}", markup=False)
        if check.remedy:
            console.print(f"{'':<26}hint: {check.remedy}", markup=False)


def version(json: Json = False, debug: Debug = False) -> None:
    """Print the versions of f2llm-ray and its libraries."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    versions = {"f2llm-ray": installed_version("f2llm-ray"), "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = installed_version(name)
        except PackageNotFoundError:
            continue
    if json:
        print_json(versions)
    else:
        for name, number in versions.items():
            print(f"{name:<22}{number}")
