"""Arguments and options of several commands."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from data_io.wording import shown_json
from jobs.errors import UsageError

if TYPE_CHECKING:
    from data_io.data_spec import S3Options

Value = TypeVar("Value")
Own = ParamSpec("Own")


def _complete_field(incomplete: str) -> list[str]:
    from jobs.spec.job import SPEC_FIELDS

    names = (name.removeprefix("spec.") for name, field in SPEC_FIELDS.items() if field.section is None)
    return [f"{name}=" for name in names if name.startswith(incomplete)]


MODEL_HELP = (
    "Run directory or model directory (a path or s3:// URI), or a Hugging Face Hub id: ORG/NAME or ORG/NAME@REVISION."
)
TEXTS_HELP = "Parquet or JSON Lines: a file, directory or glob, local or under s3://."
JobPath = Annotated[
    str,
    typer.Argument(
        metavar="JOB.yaml", help="Job spec: a YAML or .json file, or - for standard input.", show_default=False
    ),
]
RunUri = Annotated[
    str, typer.Argument(metavar="RUN", help="Run directory: a path or s3://bucket/prefix.", show_default=False)
]
DataUri = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Prepared data set: a directory or s3://bucket/prefix.", show_default=False),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=MODEL_HELP,
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="URI", help="Data set, if it was moved. Default: data.uri of the run.", show_default=False
    ),
]
Texts = Annotated[
    str,
    typer.Argument(metavar="TEXTS", help=TEXTS_HELP, show_default=False),
]
WithModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="MODEL",
        help=MODEL_HELP,
        show_default=False,
    ),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        help="Text column. Default: detected by name (text, passage, ...).",
        show_default=False,
    ),
]
Dimensions = Annotated[
    int | None,
    typer.Option(
        "--dimensions",
        min=1,
        metavar="N",
        help="Keep the first N values of each embedding. Default: all.",
        show_default=False,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", metavar="NAME", help="Prompt of the model to put before each text.", show_default=False),
]
Instruction = Annotated[
    str | None,
    typer.Option("--instruction", metavar="TEXT", help="Instruction to put before each text.", show_default=False),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Processes that run in parallel. Default: one per CPU.",
        show_default=False,
    ),
]
Gpus = Annotated[int, typer.Option("--gpus", min=0, metavar="N", help="Number of GPUs to use. 0: the CPU.")]
BatchTokens = Annotated[
    int,
    typer.Option("--batch-tokens", min=64, metavar="N", help="Tokens per batch. On the CPU at most 2,048."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a field of the job spec: --set train.epochs=1. The value is YAML. Can be repeated.",
        autocompletion=_complete_field,
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Number of workers; sets workers.replicas.", show_default=False),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        metavar="N",
        help="Write a checkpoint and stop after step N of the run. Run again without --steps to resume.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not print progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback if an error occurs.")]


def takes(
    make: Callable[..., Value],
) -> Callable[[Callable[Concatenate[Value, Own], None]], Callable[Own, None]]:
    """Add the parameters of `make` to a command as options, and pass the result of `make` as its first argument.

    `make` is a function or a dataclass. Its options come last in the command's --help.
    """
    shared = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in signature(make).parameters.values()]

    def decorate(command: Callable[Concatenate[Value, Own], None]) -> Callable[Own, None]:
        @wraps(command)
        def call(*args: Own.args, **options: Own.kwargs) -> None:
            value = make(**{each.name: options.pop(each.name) for each in shared})
            command(value, *args, **options)

        own = list(signature(command).parameters.values())[1:]
        # typer reads both attributes.
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
            help="URL of the S3 service. Default: AWS_ENDPOINT_URL, or AWS.",
            show_default=False,
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="NAME", help="S3 region. Default: AWS_REGION.", show_default=False),
    ] = None,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Allow an http:// endpoint, without TLS.")] = False,
) -> "S3Options":
    """The S3 options of commands that read no job spec."""
    from data_io.data_spec import S3Options

    return S3Options(endpoint_url=endpoint_url, region=region, allow_http=allow_http)


def namespace_option(text: str) -> Any:
    """`--namespace`, with this help text."""
    return typer.Option("--namespace", "-n", metavar="NAME", help=text, show_default=False)


@dataclass(frozen=True)
class ClusterOptions:
    """The Kubernetes cluster to use, and the namespace."""

    namespace: Annotated[str | None, namespace_option("Namespace. Default: that of the current context.")] = None
    context: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="Context of the kubeconfig. Default: its current context.",
            show_default=False,
        ),
    ] = None
    kubeconfig: Annotated[
        str | None,
        typer.Option(
            "--kubeconfig",
            metavar="FILE",
            help="Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the ServiceAccount of this pod.",
            show_default=False,
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether any of these options is set."""
        return bool(self.namespace or self.context or self.kubeconfig)


def refuse_both(prompt: str | None, instruction: str | None) -> None:
    """Raises UsageError if --prompt and --instruction are both given."""
    if prompt is not None and instruction is not None:
        raise UsageError("--prompt and --instruction exclude each other", remedy="remove one of them")


def workers_override(workers: int | None) -> list[str]:
    """`--workers N` as a value of `--set`."""
    return [] if workers is None else [f"workers.replicas={workers}"]


def print_json(value: Any) -> None:
    """Print one JSON object on standard output. NaN and infinity, which JSON does not have, become null."""
    import json

    finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
    print(shown_json(json.dumps(finite, indent=2, ensure_ascii=False, allow_nan=False)))
