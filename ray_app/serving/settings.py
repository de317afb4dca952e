"""The settings of `f2llm serve`: the model, its limits and its resources. Standard library and pydantic only."""

from typing import Annotated

from pydantic import Field

from data_io.data_spec import S3Options, Section

PositiveInt = Annotated[int, Field(ge=1)]
PORT = 8000


class ServeLimits(Section):
    """Limits of one request and of the queue."""

    max_inputs: PositiveInt = Field(2048, description="Texts per request. OpenAI has the same limit.")
    max_body_bytes: PositiveInt = Field(8 * 2**20, description="Bytes of the body of a request.")
    max_requests: PositiveInt = Field(512, description="Concurrent requests per replica.")
    max_queued_tokens: PositiveInt = Field(262_144, description="Queued tokens per replica.")
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(60, description="Timeout of a request.")


class ServeSettings(Section):
    """One served model."""

    model: str = Field(
        description="Run directory, model directory (a path or s3://), or Hugging Face Hub id (ORG/NAME[@REVISION])."
    )
    name: str | None = Field(
        None, description="Name that clients send as `model`. Default: the name of the run or directory, or the Hub id."
    )
    replicas: PositiveInt = Field(1, description="Replicas of the model.")
    cpus: PositiveInt = Field(1, description="CPUs per replica.")
    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="GPUs per replica.")
    batch_tokens: PositiveInt | None = Field(
        None, description="Tokens per batch. Default: 16,384 on a GPU, 2,048 on CPUs."
    )
    s3: S3Options = Field(default_factory=S3Options, description="How to reach a model on s3://.")
    limits: ServeLimits = Field(default_factory=ServeLimits)

    @property
    def tokens_at_once(self) -> int:
        """Tokens per batch. On CPUs a larger batch is not faster, and all its texts wait for the last one."""
        return self.batch_tokens or (16_384 if self.gpus else 2_048)
