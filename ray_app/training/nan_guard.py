"""If the loss or the gradient of a step is not finite, the run ends with an error that says how to resume without it.

Every rank has the same losses and the same norm, so all ranks end in the same step. The last checkpoint is intact.
"""

import json
import math
from collections.abc import Sequence

from data_io.loading.loader import LoadedStep
from data_io.loading.order import Slot
from ray_app.errors import LossNotFinite
from ray_app.job_spec import SkippedMicroBatch, TrainSpec
from ray_app.run_directory.metrics import PartMetrics
from ray_app.training.collectives import SharedStep


def refuse_loss(loaded: LoadedStep, shared: SharedStep, train: TrainSpec) -> None:
    """Raises LossNotFinite, with the micro-batches whose loss is not finite. Call it before the update."""
    bad = [(slot, part) for slot, part in _pairs(loaded, shared) if not math.isfinite(part.loss)]
    if bad:
        places = ", ".join(f"{part.source} micro-batch {slot.occurrence} (loss {part.loss})" for slot, part in bad)
        raise _error(f"the loss is not finite in {_place(loaded)}: {places}", loaded, bad, train)


def refuse_gradient(loaded: LoadedStep, shared: SharedStep, train: TrainSpec, *, norm: float) -> None:
    """Raises LossNotFinite if the gradient norm is not finite.

    The error lists all micro-batches of the step, because the norm does not show which micro-batch caused it.
    """
    if not math.isfinite(norm):
        used = [(slot, part) for slot, part in _pairs(loaded, shared) if not slot.skipped]
        places = ", ".join(f"{part.source} micro-batch {slot.occurrence}" for slot, part in used)
        raise _error(f"the gradient is not finite in {_place(loaded)}: {places}", loaded, used, train)


def _pairs(loaded: LoadedStep, shared: SharedStep) -> list[tuple[Slot, PartMetrics]]:
    slots = [slot for slot in loaded.step.slots for _ in slot.parts]
    return list(zip(slots, shared.parts, strict=True))


def _place(loaded: LoadedStep) -> str:
    return f"step {loaded.step.index + 1}, epoch {loaded.step.epoch}"


def _error(
    message: str, loaded: LoadedStep, bad: Sequence[tuple[Slot, PartMetrics]], train: TrainSpec
) -> LossNotFinite:
    epoch, mixed = loaded.step.epoch, train.step_source == "mixed"
    places = dict.fromkeys((None if mixed else part.source, slot.occurrence) for slot, part in bad)
    new = [SkippedMicroBatch(epoch=epoch, source=source, micro_batch=number) for source, number in places]
    lines = [
        f"    - {{epoch: {each.epoch}, source: {json.dumps(each.source)}, micro_batch: {each.micro_batch}}}"
        for each in (*train.skip_micro_batches, *new)
    ]
    return LossNotFinite(
        message,
        remedy="\n".join(
            [
                "to resume from the last checkpoint without these micro-batches, add these lines below spec in the "
                "job spec and start the run again. If it happens again, start a new run with a lower "
                "train.learning_rate or more train.warmup_steps",
                "  train:",
                "    skip_micro_batches:",
                *lines,
            ]
        ),
    )
