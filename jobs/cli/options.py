"""Arguments and options that several commands share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from jobs.errors import UsageError

if TYPE_CHECKING:
    from data_io.data_spec import S3Options

Value = TypeVar("Value")
Own = ParamSpec("Own")


def _complete_field(incomplete: str) -> list[str]:
    from jobs.spec.job import SPEC_FIELDS

    names = (name.removeprefix("spec.") for name, field in SPEC_FIELDS.items() if field.section is None)
    return [f"{name}=" for name in names if name.startswith(incomplete)]


JobPath = Annotated[
    str,
    typer.Argument(
        metavar="JOB.yaml", help="Document to use: YAML, .json, or - for standard input.", show_default=False
    ),
]
RunUri = Annotated[
    str, typer.Argument(metavar="RUN", help="Run directory: a directory or s3://bucket/prefix.", show_default=False)
]
DataUri = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Prepared data set: a directory or s3://bucket/prefix.", show_default=False),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Run directory or model directory (a path or s3://), or a Hugging Face Hub id: ORG/NAME or ORG/NAME@REVISION.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="URI", help="Where the data set is now; otherwise data.uri of the run.", show_default=False
    ),
]
Texts = Annotated[
    str,
    typer.Argument(
        metavar="TEXTS", help="Parquet or JSON lines: a file, directory or pattern, here or s3://.", show_default=False
    ),
]
WithModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Run directory or model directory (a path or s3://), or a Hugging Face Hub id: ORG/NAME or ORG/NAME@REVISION.",
        show_default=False,
    ),
]
Column = Annotated[
    str | None,
    typer.Option("--column", metavar="NAME", help="Column of the texts; else by its usual names.", show_default=False),
]
Dimensions = Annotated[
    int | None,
    typer.Option("--dimensions", min=1, metavar="N", help="Keep the first N values of a vector.", show_default=False),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        "--prompt", metavar="NAME", help="Put this prompt of the model's before each text.", show_default=False
    ),
]
Instruction = Annotated[
    str | None,
    typer.Option("--instruction", metavar="TEXT", help="Put this instruction before each text.", show_default=False),
]
Processes = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Processes at once; else one a core.", show_default=False),
]
Gpus = Annotated[int, typer.Option("--gpus", min=0, metavar="N", help="Embed on N GPUs.")]
BatchTokens = Annotated[
    int,
    typer.Option("--batch-tokens", min=64, metavar="N", help="Tokens that are embedded at once; on CPU at most 2,048."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a field of the document, as in --set train.epochs=1. The value is YAML. May be repeated.",
        autocompletion=_complete_field,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Use N workers: sets workers.replicas.", show_default=False),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        metavar="N",
        help="Stop once N steps are done in all, with a checkpoint. Run again without it to go on.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for programs.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")]


def takes(
    make: Callable[..., Value],
) -> Callable[[Callable[Concatenate[Value, Own], None]], Callable[Own, None]]:
    """Give a command the options that `make` has as parameters, and its result as the first argument.

    `make` is a function or a dataclass. Its options come last in the command's --help.
    """
    shared = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in signature(make).parameters.values()]

    def decorate(command: Callable[Concatenate[Value, Own], None]) -> Callable[Own, None]:
        @wraps(command)
        def call(*args: Own.args, **options: Own.kwargs) -> None:
            value = make(**{each.name: options.pop(each.name) for each in shared})
            command(value, *args, **options)

        own = list(signature(command).parameters.values())[1:]
        # typer reads both.
        call.__signature__ = Signature([*own, *shared])  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in (*own, *shared)}
        return call

    return decorate


def s3_options(
    endpoint_url: Annotated[
        str | None,
        typer.Option(
            "--endpoint-url",
            metavar="URL",
            help="S3 service; otherwise AWS_ENDPOINT_URL or AWS itself.",
            show_default=False,
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="NAME", help="S3 region; otherwise AWS_REGION.", show_default=False),
    ] = None,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Allow an S3 service without TLS.")] = False,
) -> "S3Options":
    """The S3 options of commands that have no document to take them from."""
    from data_io.data_spec import S3Options

    return S3Options(endpoint_url=endpoint_url, region=region, allow_http=allow_http)


@dataclass(frozen=True)
class ClusterOptions:
    """The Kubernetes cluster to use, and the namespace."""

    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", metavar="NAME", help="Otherwise the context's.", show_default=False),
    ] = None
    context: Annotated[
        str | None,
        typer.Option(
            "--context", metavar="NAME", help="Context of the kubeconfig; otherwise its own.", show_default=False
        ),
    ] = None
    kubeconfig: Annotated[
        str | None,
        typer.Option(
            "--kubeconfig",
            metavar="FILE",
            help="Otherwise $KUBECONFIG, ~/.kube/config or the pod's.",
            show_default=False,
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of the options is given."""
        return bool(self.namespace or self.context or self.kubeconfig)


def refuse_both(prompt: str | None, instruction: str | None) -> None:
    """Raises UsageError where --prompt and --instruction are both given."""
    if prompt is not None and instruction is not None:
        raise UsageError("--prompt and --instruction are both given", remedy="leave one of them out")


def workers_override(workers: int | None) -> list[str]:
    """What `--workers N` means to the document: N, and no bound that N breaks."""
    return [] if workers is None else [f"workers.replicas={workers}"]


def print_json(value: Any) -> None:
    """One JSON object on standard output. A number that is not finite is null: JSON has none."""
    import json

    finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
    print(json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False))
