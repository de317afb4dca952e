"""`f2llm`: the commands put together, and what a user sees of an error.

Modules of this package import documents and models inside the commands, so that `f2llm --help` answers at once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from data_io.errors import F2LLMError
from jobs.cli import ablate, classify, document, embed, evaluate, merge, run, search, serve
from jobs.cli import cluster as text_clusters
from jobs.cli import doctor as machine
from jobs.cli import kubernetes as cluster
from jobs.cli import run_directory as runs
from jobs.cli import runs as overview
from jobs.cli.data import app as data
from jobs.cli.output.errors import report_error, stopped

if TYPE_CHECKING:
    from typer._click.core import Context
    from typer._click.formatting import HelpFormatter

_SECTIONS = {
    "Train": ("demo", "run", "validate", "plan", "schema", "data"),
    "Runs and models": ("status", "evaluate", "export", "merge", "ablate", "report", "runs"),
    "Use a model": ("embed", "serve", "index", "search", "classify", "cluster"),
    "On Kubernetes": (
        "submit", "list", "watch", "describe", "logs", "scale", "suspend", "resume", "delete", "render", "dashboard",
    ),
}  # fmt: skip
"""Headings of `f2llm --help` with their commands; what is in none comes last."""


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
    epilog="Exit codes: docs/reference/exit-codes.md. Paths in a document are relative to the current folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # loading rich takes twice as long as all the rest of --help
    context_settings={"help_option_names": ["-h", "--help"]},
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


app.command("demo")(run.demo)
app.command("run")(run.run)
app.command("validate")(document.validate)
app.command("plan")(document.plan)
app.command("schema")(document.schema)
app.add_typer(data.app, name="data")
app.command("status")(runs.status)
app.command("evaluate")(evaluate.evaluate)
app.command("embed")(embed.embed)
app.command("ablate")(ablate.ablate)
app.command("serve")(serve.serve)
app.command("index")(search.index)
app.command("search")(search.search)
app.command("cluster")(text_clusters.cluster)
app.add_typer(classify.app, name="classify")
app.command("export")(runs.export)
app.command("merge")(merge.merge)
app.command("report")(runs.report)
app.command("runs")(overview.runs)
app.command("submit")(cluster.submit)
app.command("list")(cluster.list_jobs)
app.command("watch")(cluster.watch)
app.command("describe")(cluster.describe)
app.command("logs")(cluster.logs)
app.command("scale")(cluster.scale)
app.command("suspend")(cluster.suspend)
app.command("resume")(cluster.resume)
app.command("delete")(cluster.delete)
app.command("render")(cluster.render)
app.command("dashboard")(cluster.dashboard)
app.command("doctor")(machine.doctor)
app.command("version")(machine.version)


def call(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Errors are printed, never raised, but for the BrokenPipeError of
    a reader that has gone.
    """
    try:
        app(list(arguments), prog_name="f2llm")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer exits with 1
            raise end.__context__ from None
        # typer makes an Exit of Ctrl-C, and a SystemExit of that.
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
            remedy="this is not meant to happen; run it again with --debug and report what it prints",
        )
        report_error(bug, arguments)
        return bug.exit_code
    return 0
