"""`f2llm evaluate`: evaluate a model on held-out sets, on tasks and benchmarks of mteb, and on the user's own tasks."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from data_io.wording import counted
from jobs.cli.options import Data, Debug, Json, Model, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import say, say_nothing
from jobs.errors import UsageError
from jobs.extras import needs
from jobs.formatting import duration

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from ray_app.evaluation.tasks import TaskProgress
    from ray_app.run_directory.evaluation_report import EvaluationReport
    from ray_app.run_directory.task_report import Category, TaskReport, TaskScore

_FAILED = 5
"""The exit code if a task has no score: mostly because its data could not be fetched, or its score is not a number."""


@takes(s3_options)
def evaluate(
    s3: "S3Options",
    model: Model,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME|NAME:KIND=FILE",
            help="mteb task or benchmark, your own file, or `held-out` for the held-out sets. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    instruction: Annotated[
        list[str] | None,
        typer.Option(
            "--instruction",
            metavar="TASK=TEXT",
            help="Instruction for the queries of a task. Default: the instruction of the recipe. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    before: Annotated[
        bool, typer.Option("--before", help="Evaluate the model of the run as it was before training.")
    ] = False,
    dimensions: Annotated[
        list[int] | None,
        typer.Option(
            "--dimensions",
            min=1,
            metavar="N",
            help="Use the first N values of each embedding. Can be repeated without --task.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="URI",
            help="Directory or s3:// prefix for results of tasks. Default: RUN/evaluation/mteb.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="ORG/MODEL", help="Name of the model in mteb's results.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Evaluate tasks again that have results.")] = False,
    data: Data = None,
    workers: Annotated[int, typer.Option("--workers", min=1, metavar="N", help="Tasks in parallel, on Ray.")] = 1,
    gpus: Annotated[
        int, typer.Option("--gpus", min=0, metavar="N", help="Number of GPUs, with one task on each. 0: the CPU.")
    ] = 0,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a model on the held-out sets of its run, or on tasks.

    Without --task: evaluate on the held-out sets, compare with BM25, and write evaluation/after.json of the run. The
    metrics are also computed with shortened embeddings: the Matryoshka dimensions of the model, or --dimensions.

    With --task: evaluate with mteb, and write results in mteb's format. KIND is retrieval, reranking, classification,
    clustering, sts or pair-classification. Tasks that have results are skipped. If a task fails, the other tasks are
    still evaluated, and the exit code is 5.
    """
    with needs("data"):
        from jobs.workflows.runs import check_results_place, job_spec_of

    # Wrong options are reported before torch is imported, which takes seconds.
    if not task:
        _refuse_without_task(instruction=instruction, before=before, out=out, name=name, overwrite=overwrite)
    elif dimensions and len(dimensions) > 1:
        raise UsageError(
            "--dimensions is repeated, but --task takes only one",
            remedy="run the command once per value; the results are stored separately",
        )
    else:
        check_results_place(model, s3, out=out, before=before)
    with needs("train"):
        from jobs.workflows import models
    tell = say_nothing if quiet else say
    if not task:
        found = models.evaluate_run(job_spec_of(model, data, s3), model, dims=dimensions or (), say=tell)
        if json:
            print_json(found.model_dump(mode="json"))
        else:
            for line in _held_out_lines(found):
                print(line)
        return
    with needs("benchmark"):
        from jobs.workflows import tasks
    report = tasks.evaluate_tasks(
        model,
        s3,
        task,
        out=out,
        data=data,
        name=name,
        before=before,
        dimensions=dimensions[0] if dimensions else None,
        instructions=_instructions(instruction or ()),
        overwrite=overwrite,
        workers=workers,
        gpus=gpus,
        on_progress=_lines(tell),
    )
    if json:
        print_json(report.model_dump(mode="json") | {"categories": [row.model_dump() for row in report.categories()]})
    else:
        for line in report_lines(report):
            print(line)
    for failed in report.failed:
        say(f"error: {failed.failure}")
    for remedy in dict.fromkeys(failed.remedy for failed in report.failed if failed.remedy):
        say(f"  hint: {remedy}")
    if report.failed:
        raise typer.Exit(_FAILED)


def report_lines(report: "TaskReport") -> list[str]:
    """A table of the tasks and a table of the categories, with published scores if they are for the same tasks."""
    lines = []
    if report.measured:
        lines += _table(["task", "type", "metric", "before", "score"], [_task_cells(t) for t in report.measured])
        categories = report.categories()
        for benchmark in dict.fromkeys(row.benchmark for row in categories):
            lines += ["", *_category_lines(benchmark, [row for row in categories if row.benchmark == benchmark])]
        lines.append("")
    return [
        *lines,
        f"{len(report.measured)} of {counted(len(report.tasks), 'task')} evaluated; results: {report.results}",
    ]


def _category_lines(benchmark: str | None, rows: list["Category"]) -> list[str]:
    from ray_app.run_directory.task_report import PUBLISHED_SOURCE

    published = list(dict.fromkeys(model for row in rows for model in row.published))
    head = [benchmark or "category", "tasks", "before", "score", *published]
    source = [f"published scores: {PUBLISHED_SOURCE}"] if published else []
    return [*_table(head, [_category_cells(row, published) for row in rows]), *source]


def _task_cells(task: "TaskScore") -> list[str]:
    return [task.name, task.type, task.metric, _figure(task.before, 100), _figure(task.score, 100)]


def _category_cells(row: "Category", published: Sequence[str]) -> list[str]:
    others = [_figure(row.published.get(model)) for model in published]
    return [row.name, str(row.tasks), _figure(row.before), _figure(row.score), *others]


def _figure(value: float | None, times: float = 1) -> str:
    return "" if value is None else f"{value * times:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned columns, without the columns that are empty in all rows."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    widths = {i: max(len(line[i]) for line in (head, *rows)) for i in kept}
    numbers = {i for i in kept if all(not row[i] or row[i].replace(".", "").replace("-", "").isdigit() for row in rows)}
    return [
        "  ".join(line[i].rjust(widths[i]) if i in numbers else line[i].ljust(widths[i]) for i in kept).rstrip()
        for line in (head, *rows)
    ]


def _lines(tell: Callable[[str], None]) -> "Callable[[TaskProgress], None]":
    def show(progress: "TaskProgress") -> None:
        found = progress.task
        eta = "" if progress.eta_seconds is None else f", ETA {duration(progress.eta_seconds)}"
        what = "failed" if found.score is None else f"{found.metric} {found.score:.4f}"
        tell(f"{found.name}: {what} ({progress.done}/{progress.total}{eta})")

    return show


def _instructions(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, instruction = text.partition("=")
        if not (name and equals):
            raise UsageError(
                f"--instruction {text!r} is not TASK=TEXT", remedy="for example: --instruction 'faq=Find the answer.'"
            )
        found[name] = instruction
    return found


def _refuse_without_task(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise UsageError(f"--{name} has no effect without --task", remedy=f"add --task, or remove --{name}")


def _held_out_lines(report: "EvaluationReport") -> list[str]:
    lines = []
    for result in report.retrieval:
        bm25 = "" if result.bm25 is None else f"  (BM25: {result.bm25.ndcg_at_10:.3f}, {result.bm25.recall_at_10:.3f})"
        lines.append(
            f"{result.name}: nDCG@10 {result.model.ndcg_at_10:.3f}, recall@10 {result.model.recall_at_10:.3f}{bm25}, "
            f"{counted(result.queries, 'query')} over {counted(result.documents, 'document')}"
        )
        for dims, cut in sorted(result.by_dims.items()):
            share = f", {cut.ndcg_at_10 / whole:.0%} of all dimensions" if (whole := result.model.ndcg_at_10) else ""
            lines.append(f"  {dims} dimensions: nDCG@10 {cut.ndcg_at_10:.3f}, recall@10 {cut.recall_at_10:.3f}{share}")
    for pairs in report.sts:
        lines.append(f"{pairs.name}: Spearman {_spearman(pairs.spearman)}, {counted(pairs.pairs, 'pair')}")
        lines += [f"  {dims} dimensions: Spearman {_spearman(cut)}" for dims, cut in sorted(pairs.by_dims.items())]
    return lines


def _spearman(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
