"""The stages of a run other than training: evaluation before training, export, and evaluation after it.

Each stage works on a run directory alone, in any process, and does not need Ray.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from data_io.dataset.manifest import load_manifest
from data_io.execution import Say
from data_io.storage.folder_copy import local_copy, upload_folder
from data_io.storage.store import Store
from ray_app.evaluation.held_out import evaluate
from ray_app.evaluation.job_tasks import measure_before, measure_exported
from ray_app.export.model_folder import rewrite_card
from ray_app.export.run import export_run
from ray_app.inference.encoder import Encoder, initial_encoder, load_encoder
from ray_app.inference.model_source import model_folder
from ray_app.job_spec import JobSpec
from ray_app.run_directory.evaluation_report import EvaluationReport, Moment


def evaluate_initial(name: str, spec: JobSpec, *, data: Store, run: Store, device: torch.device, say: Say) -> None:
    """Evaluate the model before its first step: first on the job spec's tasks, then on the held-out sets.

    evaluation/before.json is written last, so it shows that both are done.
    """
    measure_before(name, spec, data=data, run=run, say=say)
    encoder = initial_encoder(spec, data, device=device)
    _evaluate(encoder, spec, data=data, run=run, moment="before", say=say)


def evaluate_exported(
    spec: JobSpec, *, data: Store, run: Store, device: torch.device, say: Say, dims: Sequence[int] = ()
) -> EvaluationReport:
    """Evaluate model/ of the run directory again, and write the result to evaluation/after.json.

    `dims`: additional embedding sizes to evaluate, as numbers of first values. The sizes that the model was trained for
    are always included.
    """
    with local_copy(model_folder(run.child("model"))) as folder:
        encoder = load_encoder(folder, device=device, batch_tokens=spec.evaluation.batch_tokens)
        return _evaluate(encoder, spec, data=data, run=run, moment="after", say=say, dims=dims)


def deliver(name: str, spec: JobSpec, *, data: Store, run: Store, device: torch.device, say: Say) -> None:
    """Export the newest checkpoint to model/. If the job spec says so, evaluate it and add the metrics to the card."""
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


@contextmanager
def _target(run: Store) -> Iterator[Path]:
    """The directory to write model/ of the run to. For a bucket: a temporary directory that is uploaded at the end."""
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
