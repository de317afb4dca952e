"""`f2llm validate`: check a job spec."""

from typing import Annotated

import typer

from jobs.cli.options import Debug, JobPath, Json, Set, print_json


def validate(
    job: JobPath,
    set_: Set = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the effective job spec, with preset and defaults filled in.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a job spec. Nothing is started."""
    from jobs.spec.job import load_job_spec

    job_spec = load_job_spec(job, overrides=set_ or ())
    if json:
        print_json({"valid": True, "job_spec": job_spec.to_dict()})
    elif show:
        print(job_spec.to_yaml(), end="")
    else:
        print(f"{job}: valid; run directory: {job_spec.run_uri}")
