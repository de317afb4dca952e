"""`f2llm serve`: serve a model with OpenAI's embeddings API."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import MODEL_HELP, Debug, Quiet, s3_options, takes
from jobs.cli.output.text import say, say_nothing
from jobs.errors import UsageError
from jobs.extras import needs

if TYPE_CHECKING:
    from data_io.data_spec import S3Options


@takes(s3_options)
def serve(
    s3: "S3Options",
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=MODEL_HELP,
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Model name for clients. Default: the name of the run.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 means all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Port to listen on.")] = 8000,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas", min=1, metavar="N", help="Number of copies of the model. Default: 1.", show_default=False
        ),
    ] = None,
    gpus: Annotated[
        int,
        typer.Option(
            "--gpus", min=0, metavar="N", help="Number of GPUs, with one copy of the model on each. 0: the CPU."
        ),
    ] = 0,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            "--batch-tokens",
            min=64,
            metavar="N",
            help="Tokens per batch. Default: 16,384 on a GPU, 2,048 on the CPU.",
            show_default=False,
        ),
    ] = None,
    max_inputs: Annotated[int, typer.Option("--max-inputs", min=1, metavar="N", help="Most texts per request.")] = 2048,
    max_body_mib: Annotated[
        int, typer.Option("--max-body-mib", min=1, metavar="N", help="Largest request body in MiB.")
    ] = 8,
    max_requests: Annotated[
        int, typer.Option("--max-requests", min=1, metavar="N", help="Most concurrent requests per copy.")
    ] = 512,
    max_queued_tokens: Annotated[
        int, typer.Option("--max-queued-tokens", min=1, metavar="N", help="Most queued tokens per copy.")
    ] = 262_144,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time limit of a request.")
    ] = 60,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve a model with OpenAI's embeddings API.

    The server runs until Ctrl-C or SIGTERM.

    This process serves one copy. Several copies run on Ray Serve, on this machine or on the Ray cluster of RAY_ADDRESS.
    On shutdown, accepted requests are finished first; the exit code is 130 or 143. If F2LLM_API_KEY is set, clients
    need that key.
    """
    with needs("serve"):
        from jobs.workflows.serving import serve_model
    from ray_app.serving.settings import ServeLimits, ServeSettings

    if gpus and replicas is not None:
        raise UsageError("--gpus N already serves N copies, one per GPU", remedy="remove --replicas")
    copies = gpus or replicas or 1
    settings = ServeSettings(
        model=model,
        name=name,
        replicas=copies,
        cpus=max(1, len(os.sched_getaffinity(0)) // copies),
        gpus=1 if gpus else 0,
        batch_tokens=batch_tokens,
        s3=s3,
        limits=ServeLimits(
            max_inputs=max_inputs,
            max_body_bytes=max_body_mib * 2**20,
            max_requests=max_requests,
            max_queued_tokens=max_queued_tokens,
            timeout_seconds=timeout,
        ),
    )
    number = serve_model(settings, host=host, port=port, say=say_nothing if quiet else say)
    raise typer.Exit(128 + number)
