"""TODO."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.data import sources
from jobs.cli.options import AllowHttp, DataUri, Debug, EndpointUrl, Json, Quiet, Region, print_json, s3_options
from jobs.cli.output.text import say, say_nothing
from jobs.errors import UsageError
from jobs.extras import needs

if TYPE_CHECKING:
    from jobs.planning.estimate import DataSize


def prepare(
    data: DataUri,
    sources_file: Annotated[
        str | None,
        typer.Argument(metavar="SOURCES.yaml", help="Which files make the data set.", show_default=False),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME:KIND=ADDRESS",
            help="Instead of SOURCES.yaml: a source in a file, folder or pattern. May be repeated.",
            show_default=False,
        ),
    ] = None,
    documentation: Annotated[
        bool,
        typer.Option("--documentation", help="Instead of files: the documentation on this machine, as the demo does."),
    ] = False,
    instruction: Annotated[
        str | None,
        typer.Option("--instruction", metavar="TEXT", help="Instruction of every --source.", show_default=False),
    ] = None,
    source_license: Annotated[
        str, typer.Option("--source-license", metavar="NAME", help="License of every --source.")
    ] = "",
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score", metavar="X", help="Of a scored --source: train on pairs of X and above.", show_default=False
        ),
    ] = None,
    mine_lexical: Annotated[
        int,
        typer.Option(
            "--mine-lexical", min=0, metavar="N", help="Mine hard negatives for a retrieval --source until a row has N."
        ),
    ] = 0,
    tokenizer_vocabulary: Annotated[
        int | None,
        typer.Option(
            "--tokenizer-vocabulary", min=300, metavar="N", help="Also train a tokenizer of N ids.", show_default=False
        ),
    ] = None,
    recipe: sources.Recipe = None,
    released: sources.Released = None,
    folder: sources.From = None,
    revision: sources.Revision = None,
    max_rows: sources.MaxRows = None,
    license: sources.Rule = "any",
    exclude_benchmark: sources.Exclude = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Processes for large files; by default one a core.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory", min=1, metavar="MIB", help="Texts a process holds at most; by default 256.", show_default=False
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    allow_http: AllowHttp = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a data set, from files, the recipe's public sources or local documentation.

    Files hold pairs, triplets or lists of negatives. KIND is retrieval, clustering, classification, sts (scored pairs
    to evaluate on) or scored (scored pairs to train on). Columns are recognized by their usual names; SOURCES.yaml can
    name them. A data set that was made the same way already is left as it is, and one that was being made when the
    command was killed is finished.
    """
    from jobs.document.sources_file import SourcesFile, load_sources_file, parse_source

    way = _way(
        {
            "SOURCES.yaml": sources_file is not None,
            "--source": bool(source),
            "--recipe": bool(recipe),
            "--released": released is not None,
            "--documentation": documentation,
        }
    )
    _refuse_idle(
        way,
        {
            "--instruction": instruction is not None,
            "--source-license": bool(source_license),
            "--min-score": min_score is not None,
            "--mine-lexical": bool(mine_lexical),
            "--tokenizer-vocabulary": tokenizer_vocabulary is not None,
            "--from": folder is not None,
            "--revision": bool(revision),
            "--max-rows": max_rows is not None,
            "--license": license != "any",
            "--exclude-benchmark": bool(exclude_benchmark),
            "--workers": workers is not None,
            "--memory": memory is not None,
        },
    )
    s3, tell = s3_options(endpoint_url, region, allow_http), say_nothing if quiet else say
    if way == "--documentation":
        with needs("data"):
            from jobs.workflows.data import prepare_documentation
        made = prepare_documentation(data, s3, say=tell)
    elif way in ("--recipe", "--released"):
        public = sources.PublicOptions(recipe, released, folder, revision, max_rows, license, exclude_benchmark)
        made = public.prepare(data, s3, workers=workers, memory_mib=memory, say=tell)
    else:
        if sources_file is not None:
            files = load_sources_file(sources_file)
        else:
            files = SourcesFile(
                sources=tuple(
                    parse_source(
                        text,
                        instruction=instruction,
                        license=source_license,
                        mine_lexical=mine_lexical,
                        min_score=min_score,
                    )
                    for text in source or ()
                )
            )
        if min_score is not None and not any(each.kind == "scored" for each in files.sources):
            raise UsageError(
                "--min-score needs a scored --source", remedy="add --source NAME:scored=ADDRESS, or leave it out"
            )
        if tokenizer_vocabulary is not None:
            files = files.model_copy(update={"tokenizer_vocabulary": tokenizer_vocabulary})
        with needs("data"):
            from jobs.workflows.data import prepare_files
        made = prepare_files(
            data, s3, files, exclude=exclude_benchmark or (), workers=workers, memory_mib=memory, say=tell
        )
    _print_contents(data, made, json=json)


_FILES = ("SOURCES.yaml", "--source")
_PUBLIC = ("--recipe", "--released")
_ACTS_ON = {
    "--instruction": ("--source",),
    "--source-license": ("--source",),
    "--min-score": ("--source",),
    "--mine-lexical": ("--source",),
    "--tokenizer-vocabulary": _FILES,
    "--from": ("--recipe",),
    "--revision": ("--recipe",),
    "--max-rows": _PUBLIC,
    "--license": _PUBLIC,
    "--exclude-benchmark": _FILES + _PUBLIC,
    "--workers": _FILES + _PUBLIC,
    "--memory": _FILES + _PUBLIC,
}


def _way(ways: Mapping[str, bool]) -> str:
    """The one way of making a data set that is asked for."""
    asked = [way for way, given in ways.items() if given]
    if len(asked) != 1:
        raise UsageError(
            f"expected exactly one of SOURCES.yaml, --source, --recipe, --released and --documentation, "
            f"found {' and '.join(asked) or 'none'}",
            remedy="for example: f2llm data prepare my-data --source faq:retrieval=faq.jsonl",
        )
    return asked[0]


def _refuse_idle(way: str, options: Mapping[str, bool]) -> None:
    """An option that would change nothing is a misunderstanding: the data set would not be the one that was meant."""
    for option, given in options.items():
        if not given or way in _ACTS_ON[option]:
            continue
        remedy = f"leave {option} out"
        if way == "SOURCES.yaml" and option in ("--instruction", "--source-license", "--min-score", "--mine-lexical"):
            field = {"--source-license": "license"}.get(option, option.strip("-").replace("-", "_"))
            remedy = f"write {field} beside the source in SOURCES.yaml"
        if way in _FILES and option == "--license":
            remedy = "give the license of a --source with --source-license, or leave --license out"
        raise UsageError(f"{option} has no effect on {way}; it needs {' or '.join(_ACTS_ON[option])}", remedy=remedy)


def _print_contents(uri: str, data: "DataSize", *, json: bool) -> None:
    if json:
        print_json({"uri": uri, **data.to_dict()})
        return
    print(f"{uri}: version {data.version}")
    width = max((len(source.name) for source in data.sources), default=0)
    for source in data.sources:
        negatives = (
            "its own hard negatives, to be mined" if source.unmined else f"{source.negatives} hard negatives a row"
        )
        counts = f"{source.rows:>12,} rows, {negatives}"
        print(f"  {source.name:<{width}}  {source.kind:<14} {counts}")
    for evaluation in data.evaluations:
        print(f"  {evaluation}  (held out, to evaluate on)")
    if data.vocabulary_size is not None:
        print(f"  tokenizer of {data.vocabulary_size} ids")
