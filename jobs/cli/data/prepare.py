"""`f2llm data prepare`: prepare a data set, with one command per kind of input."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from data_io.wording import counted
from jobs.cli.data.sources import LicenseRule
from jobs.cli.options import Debug, Json, Quiet, print_json, s3_options, takes
from jobs.cli.output.text import say, say_nothing
from jobs.errors import UsageError
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options
    from jobs.planning.estimate import DataSize

app = typer.Typer(
    help="Prepare a data set for training.",
    epilog="A data set that was already prepared in the same way is not changed. To resume an interrupted preparation, "
    "run the same command again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DataOut = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Data set to write: a directory or s3://bucket/prefix.", show_default=False),
]
ExcludeBenchmark = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-benchmark",
        metavar="mteb|FILE|DATA",
        help="Drop rows whose query or positive is one of these evaluation texts. Can be repeated.",
        show_default=False,
    ),
]
MaxRows = Annotated[
    int | None,
    typer.Option(
        "--max-rows", min=1, metavar="N", help="Keep only the first N rows of each source.", show_default=False
    ),
]
License = Annotated[LicenseRule, typer.Option("--license", help="Allow only sources whose licenses permit this use.")]
SourceWorkers = Annotated[
    int, typer.Option("--workers", min=1, metavar="N", help="Processes that run in parallel, one per source.")
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory", min=1, metavar="MIB", help="Most memory for texts, per process. Default: 256.", show_default=False
    ),
]


@app.command("files", epilog="Example: f2llm data prepare files my-data --source faq:retrieval=faq.jsonl")
@takes(s3_options)
def prepare_files(
    s3: "S3Options",
    data: DataOut,
    sources_file: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCES.yaml",
            help="The sources, their files and task types: see `f2llm explain --kind Sources`.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="NAME:KIND=PATH",
            help="A source, instead of SOURCES.yaml: a file, directory or glob. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction", metavar="TEXT", help="Instruction for the queries of each --source.", show_default=False
        ),
    ] = None,
    source_license: Annotated[
        str, typer.Option("--source-license", metavar="NAME", help="License of each --source, as an SPDX id.")
    ] = "",
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            metavar="X",
            help="Train on the pairs of a scored --source with at least this score. Default: 4.",
            show_default=False,
        ),
    ] = None,
    mine_lexical: Annotated[
        int,
        typer.Option(
            "--mine-lexical",
            min=0,
            metavar="N",
            help="Mine hard negatives with BM25 for retrieval and scored sources, up to N per row.",
        ),
    ] = 0,
    tokenizer_vocabulary: Annotated[
        int | None,
        typer.Option(
            "--tokenizer-vocabulary",
            min=300,
            metavar="N",
            help="Also train a tokenizer with N ids.",
            show_default=False,
        ),
    ] = None,
    exclude_benchmark: ExcludeBenchmark = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            metavar="N",
            help="Processes for large files. Default: one per CPU.",
            show_default=False,
        ),
    ] = None,
    memory: Memory = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prepare a data set from your own files.

    The files contain pairs, triplets or lists of negatives. KIND is the task type: retrieval, clustering,
    classification, sts (scored pairs for evaluation) or scored (scored pairs for training). Columns are detected by
    their names; SOURCES.yaml can set other names.
    """
    from jobs.spec.sources_file import SourcesFile, load_sources_file, parse_source

    if (sources_file is None) == (not source):
        raise UsageError(
            f"found {'both' if source else 'neither'} of SOURCES.yaml and --source, expected exactly one",
            remedy="for example: f2llm data prepare files my-data --source faq:retrieval=faq.jsonl",
        )
    if sources_file is not None:
        _refuse_with_sources_file(
            {
                "--instruction": instruction is not None,
                "--source-license": bool(source_license),
                "--min-score": min_score is not None,
                "--mine-lexical": bool(mine_lexical),
            }
        )
        described = load_sources_file(sources_file)
    else:
        described = SourcesFile(
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
        if min_score is not None and not any(each.kind == "scored" for each in described.sources):
            raise UsageError(
                "--min-score needs a scored --source", remedy="add --source NAME:scored=PATH, or remove --min-score"
            )
    if tokenizer_vocabulary is not None:
        described = described.model_copy(update={"tokenizer_vocabulary": tokenizer_vocabulary})
    with needs("data"):
        from jobs.workflows import data as workflows
    made, bare = workflows.prepare_files(
        data, s3, described, exclude=exclude_benchmark or (), workers=workers, memory_mib=memory,
        say=say_nothing if quiet else say,
    )  # fmt: skip
    if bare:
        give = "--instruction TEXT" if sources_file is None else f"`instruction: TEXT` in {sources_file}"
        say(
            f"warning: no instruction for {', '.join(bare)}; set one with {give}. "
            'The recipe puts "Instruct: TEXT\\nQuery: " before each query.'
        )
    _print_contents(data, made, json=json)


@app.command("recipe", epilog="Example: f2llm data prepare recipe my-data squad,imdb --max-rows 10000")
@takes(s3_options)
def prepare_recipe(
    s3: "S3Options",
    data: DataOut,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME[,NAME...]", help="Names of sources from `f2llm data sources`, or all.", show_default=False
        ),
    ],
    folder: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="DIR",
            help="Read the sources from local copies in DIR/<source>/, not from the Hub.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        list[str] | None,
        typer.Option(
            "--revision",
            metavar="NAME=REVISION",
            help="Hub commit to load a source at. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    max_rows: MaxRows = None,
    license: License = "any",
    exclude_benchmark: ExcludeBenchmark = None,
    workers: SourceWorkers = 1,
    memory: Memory = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prepare a data set from public sources of the recipe, by name.

    They are read from the Hugging Face Hub, or from local copies.
    """
    with needs("data"):
        from jobs.workflows import data as workflows
    made = workflows.prepare_recipe(
        data, s3, [name for text in names for name in text.replace(",", " ").split()],
        folder=folder, revisions=_revisions(revision or ()), max_rows=max_rows, license=license,
        exclude=exclude_benchmark or (), workers=workers, memory_mib=memory, say=say_nothing if quiet else say,
    )  # fmt: skip
    _print_contents(data, made, json=json)


@app.command("released", epilog="Example: f2llm data prepare released my-data released")
@takes(s3_options)
def prepare_released(
    s3: "S3Options",
    data: DataOut,
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="Directory with files named <source>.parquet.", show_default=False)
    ],
    max_rows: MaxRows = None,
    license: License = "any",
    exclude_benchmark: ExcludeBenchmark = None,
    workers: SourceWorkers = 1,
    memory: Memory = None,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Prepare a data set from the published files of the recipe.

    These Parquet files contain instructions and mined hard negatives.
    """
    with needs("data"):
        from jobs.workflows import data as workflows
    made = workflows.prepare_released(
        data, s3, folder, max_rows=max_rows, license=license, exclude=exclude_benchmark or (), workers=workers,
        memory_mib=memory, say=say_nothing if quiet else say,
    )  # fmt: skip
    _print_contents(data, made, json=json)


@app.command("demo", epilog="Example: f2llm data prepare demo my-data")
@takes(s3_options)
def prepare_demo(
    s3: "S3Options", data: DataOut, quiet: Quiet = False, json: Json = False, debug: Debug = False
) -> None:
    """Prepare the data set of the demo.

    Its texts are the documentation that is installed on this machine.
    """
    with needs("data"):
        from jobs.workflows import data as workflows
    made = workflows.prepare_documentation(data, s3, say=say_nothing if quiet else say)
    _print_contents(data, made, json=json)


def _refuse_with_sources_file(given: Mapping[str, bool]) -> None:
    """Raises UsageError for an option that SOURCES.yaml contains as a field of each source."""
    for option, is_given in given.items():
        if is_given:
            field = option.removeprefix("--").removeprefix("source-").replace("-", "_")
            raise UsageError(
                f"{option} has no effect with SOURCES.yaml",
                remedy=f"set `{field}` of the source in SOURCES.yaml",
            )


def _revisions(given: Iterable[str]) -> dict[str, str]:
    revisions = {}
    for text in given:
        name, equals, revision = text.partition("=")
        if not (name and equals and revision):
            raise UsageError(f"--revision {text}: expected NAME=REVISION", remedy="for example --revision imdb=3d86128")
        revisions[name] = revision
    return revisions


def _print_contents(uri: str, data: "DataSize", *, json: bool) -> None:
    if json:
        print_json({"uri": uri, **data.to_dict()})
        return
    print(f"{uri}: version {data.version}")
    width = max((len(source.name) for source in data.sources), default=0)
    for source in data.sources:
        negatives = (
            "own hard negatives, to be mined"
            if source.unmined
            else f"{counted(source.negatives, 'hard negative')} per row"
        )
        counts = f"{source.rows:>12,} {'row' if source.rows == 1 else 'rows'}, {negatives}"
        print(f"  {source.name:<{width}}  {source.kind:<14} {counts}")
    for evaluation in data.evaluations:
        print(f"  {evaluation}  (for evaluation)")
    if data.vocabulary_size is not None:
        print(f"  tokenizer with {data.vocabulary_size:,} ids")
