"""`f2llm`: all commands, and how errors are printed.

Modules of this package import the job spec and libraries inside the commands, so that `f2llm --help` is fast.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from data_io.errors import F2LLMError
from jobs.cli import (
    ablate,
    classify,
    cluster,
    demo,
    doctor,
    embed,
    evaluate,
    explain,
    export,
    kubernetes,
    merge,
    plan,
    report,
    run,
    runs,
    schema,
    search,
    serve,
    status,
    validate,
)
from jobs.cli.data import app as data
from jobs.cli.output.error_report import report_error, stopped
from jobs.cli.output.shown_stream import shown_output

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

_SECTIONS = {
    "Train": ("demo", "run", "validate", "plan", "explain", "schema", "data"),
    "Runs and models": ("status", "evaluate", "export", "merge", "ablate", "report", "runs"),
    "Use a model": ("embed", "serve", "index", "search", "classify", "cluster"),
    "On Kubernetes": (
        "submit", "list", "watch", "describe", "logs", "scale", "suspend", "resume", "delete", "render", "dashboard",
    ),
}  # fmt: skip
"""Headings of `f2llm --help` with their commands. Commands without a heading come last."""


class _Commands(TyperGroup):
    """The commands, in sections."""

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        width = max(map(len, self.commands))
        words = {
            name: command.get_short_help_str(formatter.width - width - 6) for name, command in self.commands.items()
        }
        listed = {name for names in _SECTIONS.values() for name in names}
        for heading, names in (*_SECTIONS.items(), ("Other", tuple(name for name in words if name not in listed))):
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), words[name]) for name in names])


app = typer.Typer(
    name="f2llm",
    cls=_Commands,
    help="Fine-tune decoder LLMs into text-embedding models with the F2LLM recipe.",
    epilog="Exit codes: `f2llm explain exit-codes`. Relative paths in a job spec start at the current directory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # importing rich takes twice as long as the rest of --help
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed_version

        print(f"f2llm-ray {installed_version('f2llm-ray')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("validate")(validate.validate)
app.command("plan")(plan.plan)
app.command("explain")(explain.explain)
app.command("schema")(schema.schema)
app.add_typer(data.app, name="data")
app.command("status")(status.status)
app.command("evaluate")(evaluate.evaluate)
app.command("embed")(embed.embed)
app.command("ablate")(ablate.ablate)
app.command("serve")(serve.serve)
app.command("index")(search.index)
app.command("search")(search.search)
app.command("cluster")(cluster.cluster)
app.add_typer(classify.app, name="classify")
app.command("export")(export.export)
app.command("merge")(merge.merge)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("submit")(kubernetes.submit)
app.command("list")(kubernetes.list_jobs)
app.command("watch")(kubernetes.watch)
app.command("describe")(kubernetes.describe)
app.command("logs")(kubernetes.logs)
app.command("scale")(kubernetes.scale)
app.command("suspend")(kubernetes.suspend)
app.command("resume")(kubernetes.resume)
app.command("delete")(kubernetes.delete)
app.command("render")(kubernetes.render)
app.command("dashboard")(kubernetes.dashboard)
app.command("doctor")(doctor.doctor)
app.command("version")(doctor.version)


def call(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are printed, not raised, except a BrokenPipeError, which
    means that the reader of the output closed it.
    """
    try:
        with shown_output():
            app(list(arguments), prog_name="f2llm")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer exits with 1
            raise end.__context__ from None
        # typer turns Ctrl-C into an Exit, and the Exit into a SystemExit.
        by_ctrl_c = end.__context__ is not None and isinstance(end.__context__.__cause__, KeyboardInterrupt)
        return stopped(arguments) if by_ctrl_c else int(end.code or 0)
    except KeyboardInterrupt:
        return stopped(arguments)
    except F2LLMError as error:
        report_error(error, arguments)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        bug = F2LLMError(
            f"{type(error).__name__}: {error}",
            remedy="this is a bug in f2llm; run the command again with --debug and report the output",
        )
        report_error(bug, arguments)
        return bug.exit_code
    return 0
