"""What a step that is not finite says, and that its remedy can be copied into the document as it stands."""

import math

import pytest
import yaml

from data_io.fetch import ReadStats
from data_io.loader import LoadedStep
from data_io.plan import Slot, Step
from ray_app.config import SkippedMicroBatch, TrainSpec
from ray_app.control import Wish
from ray_app.errors import LossNotFinite
from ray_app.exchange import SharedStep
from ray_app.metrics import SlotMetrics
from ray_app.not_finite import refuse_gradient, refuse_loss

LOADED = LoadedStep(Step(index=41, epoch=1, first_slot=82, slots=(Slot(0, 7, 8), Slot(1, 3, 8))), (), 0.0)
BEFORE = SkippedMicroBatch(epoch=0, source="faq", micro_batch=2)


def shared(loss: float) -> SharedStep:
    slots = [SlotMetrics("faq", 8, 100, 1.5, None), SlotMetrics('odd: "name"', 8, 100, loss, None)]
    return SharedStep(slots, 0.0, Wish.GO_ON, ReadStats(), [])


def remedied(error: LossNotFinite) -> TrainSpec:
    """The document's section once the lines of the remedy are copied into it."""
    assert error.remedy is not None
    _, _, lines = error.remedy.partition("\n")
    return TrainSpec.model_validate(yaml.safe_load(lines)["train"])


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_the_micro_batch_is_named_and_the_remedy_skips_it_beside_those_skipped_before(loss: float) -> None:
    with pytest.raises(LossNotFinite, match=r'in step 42, epoch 1: odd: "name" micro-batch 3 \(loss') as caught:
        refuse_loss(LOADED, shared(loss), [BEFORE])

    new = SkippedMicroBatch(epoch=1, source='odd: "name"', micro_batch=3)
    assert remedied(caught.value).skip_micro_batches == (BEFORE, new)


def test_a_gradient_that_is_not_finite_names_all_micro_batches_of_its_step() -> None:
    with pytest.raises(LossNotFinite, match=r"the gradient is not finite in step 42, epoch 1: faq micro-batch 7, odd"):
        refuse_gradient(LOADED, shared(1.0), [], norm=math.inf)


def test_a_step_of_numbers_goes_on() -> None:
    refuse_loss(LOADED, shared(1.0), [])
    refuse_gradient(LOADED, shared(1.0), [], norm=0.0)
