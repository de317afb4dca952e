"""`f2llm ablate`: train variants of a job spec with several seeds, and compare them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_io.wording import counted
from jobs.cli.options import Debug, Json, Quiet, Set, print_json
from jobs.cli.output.text import aligned, say, say_nothing
from jobs.cli.plan import costs_of, plan_of
from jobs.extras import needs
from jobs.formatting import short_number

if TYPE_CHECKING:
    from jobs.planning.estimate import Plan
    from jobs.spec.job import EmbeddingJob
    from jobs.spec.study import Study
    from ray_app.reporting.study_report import StudyResults, VariantResult


def ablate(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY.yaml", help="Study: a YAML or .json file, or - for standard input.", show_default=False
        ),
    ],
    parallel: Annotated[int, typer.Option("--parallel", min=1, metavar="N", help="Runs in parallel.")] = 1,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the runs with their steps and tokens. Start nothing.")
    ] = False,
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="With --dry-run: prices per GPU hour, as for f2llm plan. Adds hours and cost.",
            show_default=False,
        ),
    ] = None,
    mfu: Annotated[
        float, typer.Option("--mfu", min=0.01, max=1, help="Assumed share of the GPU's peak FLOPS, for the hours.")
    ] = 0.4,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare variants of a job spec, with several seeds.

    Trains the base and each variant with each seed. Each variant is compared with the base, seed by seed.
    --set changes the base.

    Run the same command again to resume an interrupted study: finished runs are kept, the others resume from their
    checkpoints.

    Results: results.json and study.html in <storage.uri of the base>/<name of the study>. If a run fails, the other
    runs continue, and the exit code is that of the first failed run.
    """
    from jobs.errors import UsageError
    from jobs.spec.study import load_study

    if prices is not None and not dry_run:
        raise UsageError("--prices has no effect without --dry-run", remedy="add --dry-run, or remove --prices")
    asked = load_study(study, overrides=set_ or (), sources_of=_sources_of)
    if dry_run:
        _tell_plan(asked, prices, mfu, json=json)
        return
    with needs("train"):
        from jobs.workflows.study import PAGE, run_study

    end = run_study(asked, parallel=parallel, say=say_nothing if quiet else say)
    if json:
        print_json(end.results.model_dump(mode="json"))
    else:
        for line in result_lines(end.results):
            print(line)
        print(f"results: {asked.uri}/results.json")
        print(f"page:    {asked.uri}/{PAGE}")
    for failed, why in end.failed:
        say(f"error: {failed.name} failed: {why}")
    if end.failed:
        say("  hint: fix these errors and run the same command again, which resumes the failed runs")
    if end.signal is not None:
        raise typer.Exit(128 + end.signal)
    if end.failed:
        raise typer.Exit(abs(end.failed[0][0].exit_code))


def result_lines(found: "StudyResults") -> Iterator[str]:
    """A table with one line per variant, the base first."""
    from ray_app.reporting.study_report import MEASURES

    head = ["VARIANT", "SEEDS", MEASURES[found.metric].upper(), "DIFFERENCE", f"{found.confidence:.0%} INTERVAL", "P"]
    yield from aligned([head, *(_cells(variant, found.metric) for variant in found.variants)])
    if found.finished < len(found.runs):
        yield f"{found.finished} of {counted(len(found.runs), 'run')} finished"


def _cells(variant: "VariantResult", metric: str) -> list[str]:
    spread, difference = variant.spreads.get(metric), variant.differences.get(metric)
    value = "-"
    if spread is not None:
        value = f"{spread.mean:.4f}" + ("" if spread.sd is None else f" ± {spread.sd:.4f}")
    interval = "-"
    if difference is not None and difference.low is not None and difference.high is not None:
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return [
        variant.name,
        "0" if spread is None else str(spread.seeds),
        value,
        "-" if difference is None else f"{difference.mean:+.4f}",
        interval,
        "-" if difference is None or difference.p is None else f"{difference.p:.3f}",
    ]


def _sources_of(job: "EmbeddingJob") -> tuple[str, ...]:
    with needs("data"):
        from jobs.workflows.data import data_size
    data = data_size(job.spec.data.uri, job.spec.storage.s3)
    return job.spec.data.choose([source.name for source in data.sources])


def _tell_plan(study: "Study", prices: Path | None, mfu: float, *, json: bool) -> None:
    """Print the steps and tokens of the remaining runs, and their cost, as `f2llm plan` estimates them."""
    with needs("train"):
        from jobs.workflows.study import StudyRecords, study_data

    records = StudyRecords(study)
    records.refuse_others(study_data(study))
    plans = {variant.name: plan_of(variant.job) for variant in study.variants}
    runs: list[dict[str, Any]] = [
        {
            "name": run.name,
            "variant": run.variant,
            "seed": run.seed,
            "steps": plans[run.variant].total_steps,
            "tokens": plans[run.variant].tokens_per_epoch * run.job.spec.train.epochs,
            "state": records.state(run),
        }
        for run in study.runs
    ]
    left = [run for run in runs if run["state"] in ("new", "begun")]
    costs = [] if prices is None else _costs(study, plans, [run["variant"] for run in left], prices, mfu)
    warnings = list(dict.fromkeys(warning for plan in plans.values() for warning in plan.warnings))
    if json:
        print_json({"name": study.name, "uri": study.uri, "runs": runs, "costs": costs, "warnings": warnings})
        return
    rows = [[run["name"], f"{run['steps']:,}", short_number(run["tokens"]), run["state"]] for run in runs]
    for line in aligned([["RUN", "STEPS", "TOKENS", "STATE"], *rows]):
        print(line)
    steps, tokens = (sum(run[what] for run in left) for what in ("steps", "tokens"))
    print(
        f"{len(left)} of {counted(len(runs), 'run')} to train: "
        f"{counted(steps, 'step')}, {short_number(tokens)} tokens; {study.uri}"
    )
    if costs:
        head = ["GPU", "GPU HOURS", "COST", "MEMORY"]
        cells = [
            [
                each["gpu"],
                f"{each['gpu_hours']:,.1f}",
                f"{each['cost']:,.2f}",
                "enough" if each["fits"] else "too small",
            ]
            for each in costs
        ]
        for line in aligned([head, *cells]):
            print(line)
    for warning in warnings:
        print(f"warning: {warning}")
    print("dry run: nothing was started")


def _costs(study: "Study", plans: "dict[str, Plan]", runs: list[str], prices: Path, mfu: float) -> list[dict[str, Any]]:
    """The cost of all runs together on each GPU of the table. `runs` are the names of their variants."""
    of = {each.name: {c.gpu: c for c in costs_of(each.job, plans[each.name], prices, mfu)} for each in study.variants}
    return [
        {
            "gpu": gpu,
            "gpu_hours": sum(of[variant][gpu].gpu_hours for variant in runs),
            "cost": sum(of[variant][gpu].cost for variant in runs),
            "fits": all(each[gpu].fits for each in of.values()),
        }
        for gpu in of[study.variants[0].name]
    ]
