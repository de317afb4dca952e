"""`f2llm serve`: a model behind OpenAI's API."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.options import Debug, Quiet, s3_options, takes
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
            help="Run directory or model directory (a path or s3://), or a Hugging Face Hub id: ORG/NAME or ORG/NAME@REVISION.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="What clients give as model; else the run's name.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is all of them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, metavar="N", help="Port to listen on.")] = 8000,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, metavar="N", help="Copies of the model; else one.", show_default=False),
    ] = None,
    gpus: Annotated[
        int, typer.Option("--gpus", min=0, metavar="N", help="Serve on N GPUs, a copy of the model on each.")
    ] = 0,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            "--batch-tokens",
            min=64,
            metavar="N",
            help="Tokens that are embedded at once; else 16384 on a GPU and 2048 on cores.",
            show_default=False,
        ),
    ] = None,
    max_inputs: Annotated[int, typer.Option("--max-inputs", min=1, metavar="N", help="Texts of a request.")] = 2048,
    max_body_mib: Annotated[
        int, typer.Option("--max-body-mib", min=1, metavar="N", help="Size of a request's body.")
    ] = 8,
    max_requests: Annotated[
        int, typer.Option("--max-requests", min=1, metavar="N", help="Requests at once, on each copy.")
    ] = 512,
    max_queued_tokens: Annotated[
        int, typer.Option("--max-queued-tokens", min=1, metavar="N", help="Tokens that may wait, on each copy.")
    ] = 262_144,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Time that a request may take.")
    ] = 60,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Answer requests for embeddings as OpenAI's API does, with a trained model, until Ctrl-C or SIGTERM.

    One copy is served by this process, several by Ray Serve, here or on the cluster that RAY_ADDRESS names. What was
    accepted is answered before it ends, with exit code 130 or 143. With F2LLM_API_KEY in the environment clients need
    that key.
    """
    with needs("serve"):
        from jobs.workflows.serving import serve_model
    from ray_app.serving.settings import ServeLimits, ServeSettings

    if gpus and replicas is not None:
        raise UsageError("--gpus N serves N copies, a GPU each", remedy="leave --replicas out")
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
