"""`f2llm doctor` and `f2llm version`: what is installed here and what works."""

from pathlib import Path
from typing import Annotated

import typer

from jobs import backend
from jobs.cli.options import AllowHttp, Debug, EndpointUrl, Json, Region, print_json, s3_options

_LIBRARIES = ("torch", "ray", "deepspeed", "transformers", "sentence-transformers", "pyarrow", "obstore", "flash-attn")
_STYLES = {"ok": "green", "warn": "yellow", "missing": "red"}


def doctor(
    uri: Annotated[
        str | None,
        typer.Option("--uri", metavar="URI", help="Also try to write to and read from this store.", show_default=False),
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Where runs will be written.")] = Path("runs"),
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, lacks, and how to get it.

    Exit code 0: a run on CPU can work; 5: the store cannot be used; 10: something that is needed is missing.
    """
    from rich.console import Console

    from jobs.doctor import can_run, examine

    s3 = s3_options(endpoint_url, region, allow_http)
    checks = examine(
        folder=directory, uri=uri, store_check=None if uri is None else lambda: backend.probe_store(uri, s3)
    )
    if json:
        print_json({"can_run": can_run(checks), "checks": [check.to_dict() for check in checks]})
    else:
        console = Console(highlight=False, soft_wrap=True)
        for check in checks:
            console.print(f"[{_STYLES[check.status]}]{check.status:<8}[/]", end="")
            console.print(f"{check.name:<17} {check.found}", markup=False)
            if check.mend:
                console.print(f"{'':<26}to mend it: {check.mend}", markup=False)
    if not can_run(checks):
        only_store = [check.name for check in checks if check.status == "missing"] == ["store"]
        raise typer.Exit(5 if only_store else 10)


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
