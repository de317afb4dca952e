"""What `f2llm serve` is told: which model, with what limits, on what. Standard library and pydantic only."""

from typing import Annotated

from pydantic import Field

from data_io.data_spec import S3Options, Section

PositiveInt = Annotated[int, Field(ge=1)]
PORT = 8000


class ServeLimits(Section):
    """What one request may ask for, and how much may wait."""

    max_inputs: PositiveInt = Field(2048, description="Texts of a request; OpenAI's own limit.")
    max_body_bytes: PositiveInt = Field(8 * 2**20, description="Bytes of a request's body.")
    max_requests: PositiveInt = Field(512, description="Requests at once, on each replica.")
    max_queued_tokens: PositiveInt = Field(262_144, description="Tokens that wait to be embedded, on each replica.")
    timeout_seconds: Annotated[float, Field(gt=0)] = Field(60, description="How long a request may take in all.")


class ServeSettings(Section):
    """One served model."""

    model: str = Field(
        description="Run directory, exported directory (a path or s3://), or hub id of an exported model."
    )
    name: str | None = Field(None, description="Name that clients give as `model`; null: that of the run or directory.")
    replicas: PositiveInt = Field(1, description="Copies of the model.")
    cpus: PositiveInt = Field(1, description="Cores of a replica.")
    gpus: Annotated[int, Field(ge=0, le=1)] = Field(0, description="GPUs of a replica.")
    batch_tokens: PositiveInt | None = Field(
        None, description="Tokens embedded at once; null means 16,384 on a GPU and 2,048 on cores."
    )
    s3: S3Options = Field(default_factory=S3Options, description="How to reach the model where it is on s3://.")
    limits: ServeLimits = Field(default_factory=ServeLimits)

    @property
    def tokens_at_once(self) -> int:
        """On cores a larger batch is no faster, and all that is in it waits for its last text."""
        return self.batch_tokens or (16_384 if self.gpus else 2_048)
