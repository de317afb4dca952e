"""`f2llm data`: prepare, check and describe data sets."""

import typer

from jobs.cli.data import contamination, mine, prepare, sources, stats, validate

app = typer.Typer(help="Prepare, check and describe data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(prepare.app, name="prepare")
app.command("sources")(sources.sources)
app.command("mine")(mine.mine)
app.command("contamination")(contamination.contamination)
app.command("validate")(validate.validate)
app.command("stats")(stats.stats)
