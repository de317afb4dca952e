"""Checkpoints measured one by one while training goes on: the curve of a run, and its best model.

Works on a run directory alone, in whatever process; `checkpoint_evaluator.py` is what runs it beside training.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import torch

from data_io.dataset.manifest import load_manifest
from data_io.storage.folder_copy import upload_folder
from data_io.storage.store import Store
from ray_app.evaluation.held_out import evaluate
from ray_app.export.model_folder import end_replacing, put_in_place, rewrite_card
from ray_app.export.run import export_run
from ray_app.inference.encoder import load_encoder
from ray_app.job_spec import JobSpec
from ray_app.run_directory.checkpoint_manifest import CheckpointName, list_checkpoints
from ray_app.run_directory.directory import LineLog
from ray_app.run_directory.evaluation_curve import CURVE, MeasuredCheckpoint, best_of, read_curve

BEST = "best"
_CANDIDATE = ".best-candidate"


def newest_unmeasured(run: Store) -> CheckpointName | None:
    """The newest complete checkpoint, unless it is measured. Those that newer ones have overtaken are left out: what
    measures is slower than training, or it would not lag behind.
    """
    names = list_checkpoints(run)
    measured = {each.name for each in read_curve(run)}
    return names[0] if names and names[0] not in measured else None


def measure_checkpoint(
    job: str, spec: JobSpec, name: CheckpointName, *, data: Store, run: Store, device: torch.device
) -> MeasuredCheckpoint | None:
    """Export a checkpoint, measure it as after training, add it to the curve; where it is the best, keep it as best/.

    None where retention removed it meanwhile. The line is written last: a process that dies before leaves a checkpoint
    that is not measured. Raises ModelError where its embeddings are not finite, StorageError, CheckpointError.
    """
    begin = monotonic()
    with _candidate(run) as folder:
        try:
            card = export_run(job, spec, data=data, run=run, out=folder, shares={name: 1.0})
        except Exception:
            if name not in list_checkpoints(run):
                return None
            raise
        encoder = load_encoder(folder, device=device, batch_tokens=spec.evaluation.batch_tokens)
        report = evaluate(
            encoder.encode,
            data,
            load_manifest(data),
            spec.evaluation,
            with_bm25=False,
        )
        curve = read_curve(run)
        measured = MeasuredCheckpoint(
            step=name.step,
            attempt=name.attempt,
            score=report.mean_score or 0.0,
            sets=report.scores,
            seconds=round(monotonic() - begin, 3),
            time=datetime.now(UTC),
        )
        if best_of([*(each for each in curve if each.step != name.step), measured]) is measured:
            rewrite_card(folder, card.model_copy(update={"after": report}))
            if run.is_local:
                put_in_place(folder, Path(run.child(BEST).uri))
            else:
                upload_folder(folder, run.child(BEST))
    log = LineLog(run, CURVE)
    log.append(measured.model_dump(mode="json"))
    log.flush()
    return measured


@contextmanager
def _candidate(run: Store) -> Iterator[Path]:
    """Where a checkpoint is exported to: beside best/, which it may then replace by a rename, where the run is a
    directory. A name of its own, not one a process: what a killed one left is replaced.
    """
    if run.is_local:
        folder = Path(run.uri) / _CANDIDATE
        end_replacing(folder, Path(run.child(BEST).uri))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary) / "model"
