"""Exports a checkpoint of a run, or the average of several, as a model directory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from data_io.dataset.manifest import Manifest, load_manifest
from data_io.storage.store import Store
from ray_app.checkpointing.weights import AveragedWeights, CheckpointWeights, OnBytes, WeightedModel
from ray_app.data_order import make_order, select_sources
from ray_app.errors import CheckpointError
from ray_app.export.model_card import AveragedPart, CardFacts, CardSource
from ray_app.export.model_folder import export_model
from ray_app.inference.model_source import model_prompts
from ray_app.job_spec import JobSpec
from ray_app.models.loading import DTYPES, load_tokenizer, outline_backbone
from ray_app.run_directory.checkpoint_manifest import FOLDER, CheckpointName, list_checkpoints
from ray_app.run_directory.evaluation_report import read_evaluation


def export_run(
    name: str,
    spec: JobSpec,
    *,
    data: Store,
    run: Store,
    out: Path,
    shares: Mapping[CheckpointName, float] | None = None,
    dtype: torch.dtype | None = None,
    on_bytes: OnBytes = lambda done, total: None,
) -> CardFacts:
    """Write the fp32 master weights of a checkpoint as the model directory `out`, and return the facts of its card.

    Default: the newest checkpoint. `shares` names other checkpoints to average; the shares add up to 1. The default
    `dtype` follows train.precision. Raises CheckpointError if the run has no checkpoint or a checkpoint is damaged,
    ModelError if weights are not finite.
    """
    names = list_checkpoints(run)
    if not names:
        raise CheckpointError(
            f"{run.uri} has no complete checkpoint", remedy="train it first: `f2llm run` with its job spec"
        )
    shares = shares or {names[0]: 1.0}
    newest = max(shares)
    manifest = load_manifest(data)
    tokenizer = load_tokenizer(spec.model, data)
    vocabulary_size = tokenizer.for_texts(spec.model.max_seq_length).vocabulary_size
    outline = outline_backbone(spec.model, vocabulary_size=vocabulary_size)
    shapes = {key: tuple(tensor.shape) for key, tensor in outline.state_dict().items()}
    card = CardFacts(
        name=name,
        job=spec,
        data_version=manifest.version,
        sources=tuple(CardSource.model_validate(source) for source in select_sources(manifest, spec)),
        steps=newest.step,
        examples=_examples(manifest, spec, newest.step),
        averaged=tuple(AveragedPart(name=step_text(each), share=share) for each, share in shares.items())
        if len(shares) > 1
        else (),
        before=read_evaluation(run, "before"),
        after=read_evaluation(run, "after") if len(shares) == 1 else None,
    )
    with _remedy_named(run, [name for name in names if name not in shares]):
        parts = [
            WeightedModel(step_text(each), CheckpointWeights(run, each, shapes), share)
            for each, share in shares.items()
        ]
        export_model(
            outline,
            tokenizer,
            out,
            card=card,
            max_seq_length=spec.model.max_seq_length,
            prompts=model_prompts(spec, manifest),
            dtype=dtype or DTYPES[spec.train.precision],
            weights=AveragedWeights(parts, on_bytes=on_bytes),
        )
    return card


def step_text(name: CheckpointName) -> str:
    """The name of a checkpoint in messages and cards."""
    return f"step {name.step}"


@contextmanager
def _remedy_named(run: Store, others: Sequence[CheckpointName]) -> Iterator[None]:
    """Add a remedy to the error of a damaged checkpoint. No other checkpoint replaces it: it would be another model."""
    try:
        yield
    except CheckpointError as error:
        if error.remedy is not None:
            raise
        instead = f", or move it away to export {others[0]}" if others else ""
        raise CheckpointError(
            error.message, remedy=f"restore it in {run.uri}/{FOLDER} from a backup{instead}"
        ) from error


def _examples(manifest: Manifest, spec: JobSpec, steps: int) -> int:
    """Examples in the first `steps` steps, counted again in each epoch."""
    plan = make_order(manifest, select_sources(manifest, spec), spec)
    epochs, rest = divmod(steps, plan.steps_per_epoch)
    whole = sum(source.rows for source in plan.sources)
    return epochs * whole + sum(plan.step(epochs * plan.steps_per_epoch + i).rows for i in range(rest))
