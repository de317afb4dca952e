"""The error of a step that is not finite. Its remedy can be copied into the job spec without changes."""

import math

import pytest
import yaml
from pydantic import ValidationError

from data_io.loading.loader import LoadedStep
from data_io.loading.order import Part, Slot, Step
from data_io.storage.ranged_reads import ReadStats
from ray_app.errors import LossNotFinite
from ray_app.job_spec import SkippedMicroBatch, TrainSpec
from ray_app.run_directory.metrics import PartMetrics
from ray_app.training.collectives import SharedStep
from ray_app.training.control import Directive
from ray_app.training.nan_guard import refuse_gradient, refuse_loss

FAQ, ODD = Part(source=0, first=56, rows=8), Part(source=1, first=24, rows=8)
LOADED = LoadedStep(Step(index=41, epoch=1, first_slot=82, slots=(Slot(7, (FAQ,)), Slot(3, (ODD,)))), (), 0.0)
BEFORE = SkippedMicroBatch(epoch=0, source="faq", micro_batch=2)
TRAIN = TrainSpec()


def shared(loss: float) -> SharedStep:
    parts = [PartMetrics("faq", 8, 100, 1.5, None), PartMetrics('odd: "name"', 8, 100, loss, None)]
    return SharedStep(parts, 0.0, Directive.CONTINUE, ReadStats(), [])


def remedied(error: LossNotFinite) -> TrainSpec:
    """The section of the job spec after the lines of the remedy are copied into it."""
    assert error.remedy is not None
    _, _, lines = error.remedy.partition("\n")
    return TrainSpec.model_validate(yaml.safe_load(lines)["train"])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_the_micro_batch_is_named_and_the_remedy_skips_it_in_addition_to_earlier_ones(loss: float) -> None:
    with pytest.raises(LossNotFinite, match=r'in step 42, epoch 1: odd: "name" micro-batch 3 \(loss') as caught:
        refuse_loss(LOADED, shared(loss), TrainSpec(skip_micro_batches=(BEFORE,)))

    new = SkippedMicroBatch(epoch=1, source='odd: "name"', micro_batch=3)
    assert remedied(caught.value).skip_micro_batches == (BEFORE, new)


def test_a_gradient_that_is_not_finite_names_all_micro_batches_of_its_step() -> None:
    with pytest.raises(LossNotFinite, match=r"the gradient is not finite in step 42, epoch 1: faq micro-batch 7, odd"):
        refuse_gradient(LOADED, shared(1.0), TRAIN, norm=math.inf)


def test_a_mixed_micro_batch_is_skipped_by_its_number_in_the_epoch() -> None:
    mixed = LoadedStep(Step(index=41, epoch=1, first_slot=41, slots=(Slot(41, (FAQ, ODD)),)), (), 0.0)
    train = TrainSpec(step_source="mixed")

    with pytest.raises(LossNotFinite, match=r"faq micro-batch 41, odd") as caught:
        refuse_gradient(mixed, shared(1.0), train, norm=math.nan)

    lines = caught.value.remedy or ""
    assert lines.count("micro_batch: 41") == 1
    skipped = yaml.safe_load(lines.partition("\n")[2])["train"]["skip_micro_batches"]
    assert skipped == [{"epoch": 1, "source": None, "micro_batch": 41}]
    assert TrainSpec.model_validate({"step_source": "mixed", "skip_micro_batches": skipped}).skip_micro_batches


@pytest.mark.parametrize(
    ("step_source", "source", "remedy"),
    [("mixed", "faq", "remove source"), ("same", None, "name the source")],
)
def test_a_skip_that_does_not_fit_the_step_source_is_refused(step_source: str, source: str | None, remedy: str) -> None:
    skips = [{"epoch": 0, "source": source, "micro_batch": 3}]

    with pytest.raises(ValidationError, match=remedy):
        TrainSpec.model_validate({"step_source": step_source, "skip_micro_batches": skips})


def test_a_finite_step_is_accepted() -> None:
    refuse_loss(LOADED, shared(1.0), TRAIN)
    refuse_gradient(LOADED, shared(1.0), TRAIN, norm=0.0)
