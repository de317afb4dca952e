"""Evaluates checkpoints one by one during training: the score curve of a run, and its best model.

Works on a run directory alone, in any process; `checkpoint_evaluator.py` runs it during training.
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
    """The newest complete checkpoint, if it is not evaluated yet.

    Older checkpoints are skipped: if there are any, the evaluation is slower than training and must catch up.
    """
    names = list_checkpoints(run)
    measured = {each.name for each in read_curve(run)}
    return names[0] if names and names[0] not in measured else None


def measure_checkpoint(
    job: str, spec: JobSpec, name: CheckpointName, *, data: Store, run: Store, device: torch.device
) -> MeasuredCheckpoint | None:
    """Export and evaluate a checkpoint as after training, and add it to the curve. If it is the best, keep it as best/.

    None if retention deleted the checkpoint in the meantime. The line of the curve is written last: if the process dies
    before, the checkpoint counts as not evaluated. Raises ModelError if the embeddings are not finite, StorageError,
    CheckpointError.
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
    """The directory for an exported checkpoint. For a local run it is next to best/, so a rename can replace best/.

    The name is always the same, so the leftovers of a killed process are replaced.
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
