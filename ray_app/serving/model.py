"""The served model: it is found before anything starts, and each replica opens it for itself."""

import torch

from ray_app.inference.encoder import Cut, Encoder
from ray_app.inference.model_source import ExportedModel, find_model, open_encoder
from ray_app.serving.request import Served
from ray_app.serving.settings import ServeSettings


def find_served(settings: ServeSettings) -> ExportedModel:
    """The model in a run directory or model directory, local or on s3://, or on the Hub.

    Raises ModelError if no model is found, StorageError if it cannot be reached.
    """
    return find_model(settings.model, settings.s3, name=settings.name, batch_tokens=settings.tokens_at_once)


def open_served(model: ExportedModel, settings: ServeSettings, *, created: int) -> tuple[Encoder, Served]:
    """The model, loaded in this process and warmed up, and its limits. `created`: Unix time, for /v1/models."""
    if not settings.gpus:
        torch.set_num_threads(settings.cpus)
    encoder = open_encoder(model, Cut())
    encoder.encode(["the first text takes the longest"])
    return encoder, Served(
        name=model.name,
        dimensions=encoder.dimensions,
        max_tokens=encoder.max_tokens,
        max_inputs=settings.limits.max_inputs,
        prompts=dict(model.prompts),
        created=created,
    )
