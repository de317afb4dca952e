"""The model that is served: found before anything starts, opened by each replica for itself."""

import re
from pathlib import Path

import torch

from data_io.storage.store import open_store
from ray_app.errors import ModelError
from ray_app.inference.encoder import Cut, Encoder
from ray_app.inference.model_source import ExportedModel, find_exported, open_encoder
from ray_app.serving.request import Served
from ray_app.serving.settings import ServeSettings

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_served(settings: ServeSettings) -> ExportedModel:
    """The exported model in a directory, a run, a bucket or a repository of the hub. Raises ModelError where none is."""
    place, name = settings.model, settings.name
    if not Path(place).exists() and _HUB_ID.fullmatch(place):
        place, name = _from_hub(place), name or place
    return find_exported(open_store(place, settings.s3), name=name, batch_tokens=settings.tokens_at_once)


def open_served(model: ExportedModel, settings: ServeSettings, *, created: int) -> tuple[Encoder, Served]:
    """The model in this process, warm, and what it takes. `created`: Unix time, for /v1/models."""
    if not settings.gpus:
        torch.set_num_threads(settings.cpus)
    encoder = open_encoder(model, Cut())
    encoder.encode(["the first text takes longest"])
    return encoder, Served(
        name=model.name,
        dimensions=encoder.dimensions,
        max_tokens=encoder.max_tokens,
        max_inputs=settings.limits.max_inputs,
        prompts=dict(model.prompts),
        created=created,
    )


def _from_hub(name: str) -> str:
    """A local copy of a repository, from the hub or from what was fetched before."""
    from huggingface_hub import snapshot_download

    try:
        folder: str = snapshot_download(name)
    except Exception as error:  # the hub's client raises what its transport raises
        raise ModelError(
            f"{name} is no directory here, and the hub did not give it: {str(error).splitlines()[0]}",
            remedy="give a directory or s3:// prefix that `f2llm export` wrote, or correct the hub id",
        ) from error
    return folder
