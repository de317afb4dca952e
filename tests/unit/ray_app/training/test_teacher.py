"""A teacher gives the same embeddings as sentence-transformers, and all ranks get its loss."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from data_io.dataset.tokenizer import TokenTexts
from data_io.loading.loader import LoadedStep, MicroBatch, PartRows
from data_io.loading.order import Part, Slot, Step
from data_io.storage.ranged_reads import ReadStats
from data_io.task import Kind
from ray_app.errors import ModelError
from ray_app.job_spec import TeacherSpec
from ray_app.run_directory.metrics import losses_of
from ray_app.training.collectives import share_step
from ray_app.training.contrastive import PartLoss
from ray_app.training.control import Directive
from ray_app.training.stragglers import ForwardTiming
from ray_app.training.teacher import Teacher
from tests.support.exported import INSTRUCTION, export_small_model
from tests.support.process_group import group_of_one

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TEXTS = [f"Instruct: {INSTRUCTION}\nQuery: how to join paths", "a text about files and directories " * 20, "x", ""]


@pytest.fixture
def _one_process_group(tmp_path: Path) -> Iterator[None]:
    with group_of_one(tmp_path):
        yield


def test_texts_are_embedded_without_changes_and_in_order(tmp_path: Path) -> None:
    folder = str(export_small_model(tmp_path / "teacher", TEXTS))
    threads = torch.get_num_threads()

    found = Teacher(TeacherSpec(name_or_path=folder), torch.device("cpu")).embed(TEXTS)

    expected = SentenceTransformer(folder, device="cpu").encode(TEXTS)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert not found.requires_grad
    assert torch.get_num_threads() == threads


def test_texts_are_truncated_to_the_length_in_the_job_spec(tmp_path: Path) -> None:
    folder = str(export_small_model(tmp_path / "teacher", TEXTS))

    found = Teacher(TeacherSpec(name_or_path=folder, max_seq_length=8), torch.device("cpu")).embed(TEXTS)

    reference = SentenceTransformer(folder, device="cpu")
    whole = reference.encode(TEXTS)
    reference.max_seq_length = 8
    np.testing.assert_allclose(found.numpy(), reference.encode(TEXTS), atol=1e-5)
    assert np.abs(found.numpy() - whole).max() > 0.01


def test_a_missing_teacher_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"cannot load the model {tmp_path}/nowhere"):
        Teacher(TeacherSpec(name_or_path=f"{tmp_path}/nowhere"), torch.device("cpu"))


@pytest.mark.usefixtures("_one_process_group")
def test_its_loss_is_part_of_the_steps_loss() -> None:
    slots = (Slot(occurrence=0, parts=(Part(0, 0, 3),)), Slot(occurrence=1, parts=(Part(0, 3, 1),)))
    batches = tuple(_batch(position, slot.rows) for position, slot in enumerate(slots))
    losses = [PartLoss(3, 7, 0.5, 0.25, 0.125), PartLoss(1, 7, 1.5, None, 1.0)]

    shared = share_step(
        LoadedStep(Step(0, 0, 0, slots), batches, 0.0), losses, ReadStats(), ForwardTiming(),
        names=["docs"], directive=Directive.CONTINUE, device=torch.device("cpu"),
    )  # fmt: skip

    assert [(part.in_batch, part.distillation) for part in shared.parts] == [(0.25, 0.125), (None, 1.0)]
    means = losses_of(shared.parts)
    assert means is not None
    assert means.distillation_loss == pytest.approx((3 * 0.125 + 1.0) / 4)
    assert means.in_batch_loss == 0.25
    assert means.loss == pytest.approx((3 * (0.5 + 0.25 + 0.125) + 1.5 + 1.0) / 4)


def _batch(position: int, rows: int) -> MicroBatch:
    places = np.zeros(rows, dtype=np.int64)
    hashes = np.zeros(rows, dtype=np.uint64)
    texts = TokenTexts(np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.int32))
    part = PartRows("docs", Kind.RETRIEVAL, places, places, places[:, None], hashes, hashes, tokens=1)
    return MicroBatch(position, texts, (part,))
