"""What becomes of a run besides training: measured before, exported, measured after, reported. Each works on a run
directory alone, in whatever process; none needs Ray.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from data_io.folders import local_copy, upload_folder
from data_io.manifest import Manifest, load_manifest
from data_io.storage import Store
from ray_app.checkpoint_manifest import FOLDER, CheckpointName, list_checkpoints
from ray_app.config import JobSpec
from ray_app.data_order import make_plan, select_sources
from ray_app.document_tasks import measure_before, measure_exported
from ray_app.embedding_model import model_prompts
from ray_app.encoder import Encoder, initial_encoder, load_encoder
from ray_app.errors import CheckpointError
from ray_app.evaluate import evaluate
from ray_app.evaluation_report import EvaluationReport
from ray_app.export import export_model, rewrite_card
from ray_app.model import DTYPES, load_tokenizer, outline_backbone
from ray_app.model_card import AveragedPart, CardFacts, CardSource
from ray_app.run_directory import read_text
from ray_app.weights import AveragedWeights, CheckpointWeights, OnBytes, Part

Moment = Literal["before", "after"]
Say = Callable[[str], None]


def evaluate_initial(name: str, spec: JobSpec, *, data: Store, run: Store, device: torch.device, say: Say) -> None:
    """Measure the model as it is before its first step, on the document's tasks, then on the held-out sets into
    evaluation/before.json, which says that all of it is done.
    """
    measure_before(name, spec, data=data, run=run, say=say)
    encoder = initial_encoder(spec, data, device=device)
    _evaluate(encoder, spec, data=data, run=run, moment="before", say=say)


def evaluate_exported(
    spec: JobSpec, *, data: Store, run: Store, device: torch.device, say: Say, dims: Sequence[int] = ()
) -> EvaluationReport:
    """Measure model/ of the run directory again, and keep the result in evaluation/after.json. `dims` are numbers of
    first values of the embeddings to measure with, besides those that it was trained for.
    """
    with local_copy(run.child("model")) as folder:
        encoder = load_encoder(folder, device=device, batch_tokens=spec.evaluation.batch_tokens)
        return _evaluate(encoder, spec, data=data, run=run, moment="after", say=say, dims=dims)


def read_evaluation(run: Store, moment: Moment) -> EvaluationReport | None:
    """What was measured at that moment, None where nothing was."""
    text = read_text(run, f"evaluation/{moment}.json")
    return EvaluationReport.model_validate_json(text) if text else None


def deliver(name: str, spec: JobSpec, *, data: Store, run: Store, device: torch.device, say: Say) -> None:
    """Export the newest checkpoint to model/ and measure it if the document says so; the card gets the figures."""
    with _target(run) as folder:
        say("exporting the model")
        card = export_run(name, spec, data=data, run=run, out=folder)
        if spec.evaluation.enabled:
            after = _evaluate(
                load_encoder(folder, device=device, batch_tokens=spec.evaluation.batch_tokens),
                spec, data=data, run=run, moment="after", say=say,
            )  # fmt: skip
            tasks = measure_exported(name, folder, spec, data=data, run=run, say=say)
            rewrite_card(folder, card.model_copy(update={"after": after, "tasks": tasks}))


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
    """Write the fp32 master weights of a checkpoint (the newest by default) as the model folder `out`; returns its
    card. Of several checkpoints it is their average, each with its share of `shares`, which add up to 1.

    The type of the weights follows train.precision by default. Raises CheckpointError where there is no checkpoint, or
    it is damaged, ModelError where weights are not finite.
    """
    names = list_checkpoints(run)
    if not names:
        raise CheckpointError(
            f"{run.uri} has no complete checkpoint", remedy="train it first: `f2llm run` with its document"
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
    with _mend_named(run, [name for name in names if name not in shares]):
        parts = [Part(step_text(each), CheckpointWeights(run, each, shapes), share) for each, share in shares.items()]
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
    """A checkpoint as people name it."""
    return f"step {name.step}"


@contextmanager
def _mend_named(run: Store, others: Sequence[CheckpointName]) -> Iterator[None]:
    """Adds what to do to an error of a damaged checkpoint. Another one is never taken unasked: it is another model."""
    try:
        yield
    except CheckpointError as error:
        if error.remedy is not None:
            raise
        instead = f", or move it away to export {others[0]}" if others else ""
        raise CheckpointError(
            error.message, remedy=f"restore it in {run.uri}/{FOLDER} from a backup{instead}"
        ) from error


@contextmanager
def _target(run: Store) -> Iterator[Path]:
    """Where to write model/ of the run: a temporary folder that is uploaded when the block ends, where that is a
    bucket.
    """
    if run.is_local:
        yield Path(run.child("model").uri)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            yield folder
            upload_folder(folder, run.child("model"))


def _evaluate(
    encoder: Encoder,
    spec: JobSpec,
    *,
    data: Store,
    run: Store,
    moment: Moment,
    say: Say,
    dims: Sequence[int] = (),
) -> EvaluationReport:
    trained = [d for d in spec.train.matryoshka_dims if d < encoder.dimensions]
    report = evaluate(
        encoder.encode,
        data,
        load_manifest(data),
        spec.evaluation,
        dims=sorted({*trained, *dims}),
        progress=lambda name, done, total: say(f"embedding {name}: {done} of {total} texts"),
    )
    run.put(f"evaluation/{moment}.json", report.model_dump_json(indent=1).encode())
    return report


def _examples(manifest: Manifest, spec: JobSpec, steps: int) -> int:
    """Examples in the first `steps` steps, each epoch counting again."""
    plan = make_plan(manifest, select_sources(manifest, spec), spec)
    epochs, rest = divmod(steps, plan.steps_per_epoch)
    whole = sum(source.rows for source in plan.sources)
    return epochs * whole + sum(plan.step(epochs * plan.steps_per_epoch + i).rows for i in range(rest))
