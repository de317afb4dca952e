"""The step's losses and gradients compared with the paper's equations. tests/process tests several workers."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch

from data_io.task import Kind
from ray_app.errors import ModelError
from ray_app.models.packing import pack
from tests.support.contrastive_steps import (
    ALONE,
    KINDS,
    MIXED,
    PARTS,
    KnownTeacher,
    assert_equal_gradients,
    part_tables,
    run_step,
    small_model,
)
from tests.support.plain_engine import PlainEngine
from tests.support.reference_loss import ReferencePart, reference_distillation, reference_matryoshka_loss

SLOTS = (ALONE, MIXED)
WHOLE = {16: 1.0}
"""The weights of the losses by number of values: only the whole embedding has one."""


def _reference(
    in_batch: str,
    skipped: Collection[int] = (),
    weights: Mapping[int, float] = WHOLE,
    teacher_dims: int = 0,
    slots: Sequence[Sequence[int]] = ALONE,
) -> tuple[float, dict[str, torch.Tensor]]:
    """`weights`: by number of values."""
    model = small_model()

    def embed(text: tuple[int, ...]) -> torch.Tensor:
        alone = pack(np.array(text, dtype=np.int32), np.array([len(text)], dtype=np.int32), layout="rows")
        hidden = model.backbone(input_ids=alone.input_ids, position_ids=alone.position_ids, use_cache=False)
        return cast(torch.Tensor, hidden.last_hidden_state[0, -1])

    parts = _reference_parts(embed, skipped, slots)
    loss = reference_matryoshka_loss(parts, weights, temperature=0.05, in_batch=in_batch)
    if teacher_dims:
        teacher = KnownTeacher(teacher_dims)
        taught = _reference_parts(lambda text: teacher.vector(str(text)), skipped, slots)
        loss = loss + 0.7 * reference_distillation(parts, taught, min(16, teacher_dims))
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), PlainEngine(model).gradients()


def _reference_parts(
    embed: Callable[[tuple[int, ...]], torch.Tensor], skipped: Collection[int], slots: Sequence[Sequence[int]]
) -> list[ReferencePart]:
    tables = part_tables()
    return [
        ReferencePart(
            queries=[embed(row[0]) for row in tables[part]],
            positives=[embed(row[1]) for row in tables[part]],
            negatives=[[embed(text) for text in row[2:]] for row in tables[part]],
            positive_texts=[str(row[1]) for row in tables[part]],
            retrieval=KINDS[PARTS[part][0]] is Kind.RETRIEVAL,
            micro_batch=position,
        )
        for position, parts in enumerate(slots)
        for part in parts
        if position not in skipped
    ]


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("in_batch", ["step", "micro_batch", "off"])
def test_loss_and_gradients_are_those_of_the_papers_equations(in_batch: str, slots: Sequence[Sequence[int]]) -> None:
    loss, gradients = run_step(in_batch, slots=slots)

    expected_loss, expected_gradients = _reference(in_batch, slots=slots)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_equal_gradients(gradients, expected_gradients, 1e-6)


@pytest.mark.parametrize("in_batch", ["step", "micro_batch", "off"])
@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({"matryoshka_dims": (4, 8), "matryoshka_weights": (0.3, 2.0)}, {16: 1.0, 8: 2.0, 4: 0.3}),
        ({"matryoshka_dims": (1, 16), "matryoshka_weights": (0.5, 0.25)}, {16: 0.25, 1: 0.5}),
        # As in F2LLM-v2's code: 1 / (n sqrt(D / d)).
        ({"matryoshka_dims": (4, 8)}, {16: 1.0, 8: 1 / (2 * 2**0.5), 4: 1 / (3 * 2)}),
        ({"matryoshka_dims": (4, 8, 16)}, {16: 1.0, 8: 1 / (2 * 2**0.5), 4: 1 / (3 * 2)}),
        ({"matryoshka_dims": ()}, WHOLE),
    ],
)
def test_with_matryoshka_dims_the_loss_is_the_sum_of_the_losses_of_truncated_embeddings(
    in_batch: str, fields: dict[str, Any], weights: dict[int, float]
) -> None:
    loss, gradients = run_step(in_batch, **fields)

    expected_loss, expected_gradients = _reference(in_batch, weights=weights)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_equal_gradients(gradients, expected_gradients, 1e-6)


@pytest.mark.parametrize("teacher_dims", [8, 16, 40])
@pytest.mark.parametrize(("skipped", "slots"), [((), ALONE), ((1, 4), ALONE), ((1,), MIXED)])
def test_with_a_teacher_the_loss_includes_the_distance_to_the_teachers_embeddings(
    teacher_dims: int, skipped: tuple[int], slots: Sequence[Sequence[int]]
) -> None:
    loss, gradients = run_step("step", skipped=skipped, slots=slots, teacher_dims=teacher_dims)

    expected_loss, expected_gradients = _reference("step", skipped, teacher_dims=teacher_dims, slots=slots)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert loss > run_step("step", skipped=skipped, slots=slots)[0]
    assert_equal_gradients(gradients, expected_gradients, 1e-6)


def test_a_model_with_fewer_dimensions_than_requested_is_refused() -> None:
    with pytest.raises(ModelError, match=r"asks for 17 values.*hidden_size=16") as caught:
        run_step("step", matryoshka_dims=(4, 17))

    assert caught.value.remedy == "set train.matryoshka_dims: [4]"


@pytest.mark.parametrize("in_batch", ["step", "micro_batch"])
@pytest.mark.parametrize(
    ("skipped", "slots"),
    [({0}, ALONE), ({1}, ALONE), ({2, 3}, ALONE), ({0, 2, 4}, ALONE), ({0}, MIXED), ({1, 2}, MIXED)],
)
def test_a_step_with_skipped_slots_equals_the_step_without_them(
    in_batch: str, skipped: set[int], slots: Sequence[Sequence[int]]
) -> None:
    loss, gradients = run_step(in_batch, skipped=skipped, slots=slots)

    expected_loss, expected_gradients = _reference(in_batch, skipped, slots=slots)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert_equal_gradients(gradients, expected_gradients, 1e-6)


def test_a_step_with_only_skipped_slots_has_a_gradient_of_zero() -> None:
    loss, gradients = run_step("step", skipped=range(len(PARTS)))

    assert loss == 0
    assert all(not gradient.any() for gradient in gradients.values())


def test_the_pools_differ() -> None:
    losses = {in_batch: run_step(in_batch)[0] for in_batch in ("step", "micro_batch", "off")}

    assert losses["step"] > losses["micro_batch"] > losses["off"]
