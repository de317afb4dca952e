"""A small contrastive step for tests: parts of all kinds, a model in fp64, and the gradients that the step leaves."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from data_io.dataset.tokenizer import TokenTexts
from data_io.loading.loader import LoadedStep, MicroBatch, PartRows
from data_io.loading.order import Part, Slot, Step, slots_of_worker
from data_io.task import Kind
from ray_app.job_spec import ModelSpec, Qwen3Architecture, TrainSpec
from ray_app.models.embedder import Embedder
from ray_app.models.loading import build_backbone
from ray_app.training.contrastive import ContrastiveStep
from tests.support.plain_engine import PlainEngine

if TYPE_CHECKING:
    from ray_app.training.engine import Engine

KINDS = (Kind.RETRIEVAL, Kind.CLUSTERING, Kind.CLASSIFICATION, Kind.RETRIEVAL)
# source, rows, hard negatives: retrieval parts of different size, one of one row, all kinds.
PARTS = ((0, 4, 3), (1, 3, 2), (3, 2, 3), (2, 3, 1), (0, 1, 0))
# Which of them are micro-batches: each by itself, or several together, one of them without a retrieval part.
ALONE = ((0,), (1,), (2,), (3,), (4,))
MIXED = ((0, 1, 2), (3,), (4,))
VOCABULARY = 60


def small_model() -> Embedder:
    """D = 16, fp64; every call returns the same weights."""
    spec = ModelSpec(architecture=Qwen3Architecture(hidden_size=16, head_dim=8, intermediate_size=24))
    backbone = build_backbone(spec, vocabulary_size=VOCABULARY, dtype=torch.float64, seed=3)
    # With the usual 0.02 all embeddings of such a small model are nearly equal, and a test would find no differences.
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return Embedder(backbone, attention="sdpa").train()


def _text(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(token) for token in rng.integers(0, VOCABULARY, int(rng.integers(1, 9))))


def part_tables() -> list[list[list[tuple[int, ...]]]]:
    """Each part as plain rows of texts: [query, positive, *negatives]."""
    shared = (7, 7, 7)  # one positive text in several rows and parts
    tables = []
    for number, (source, rows, negatives) in enumerate(PARTS):
        rng = np.random.default_rng([5, number])
        table = [[_text(rng) for _ in range(2 + negatives)] for _ in range(rows)]
        if KINDS[source] is Kind.RETRIEVAL:
            table[0][1] = shared
        if number == 0:
            table[1][1] = shared
            table[3][2] = table[2][1]  # another row's positive is a hard negative here
        tables.append(table)
    return tables


def _micro_batch(position: int, parts: Sequence[int]) -> MicroBatch:
    index: dict[tuple[int, ...], int] = {}
    tables = part_tables()
    places = {part: [[index.setdefault(text, len(index)) for text in row] for row in tables[part]] for part in parts}
    ids = np.array([token for text in index for token in text], dtype=np.int32)
    lengths = np.array([len(text) for text in index], dtype=np.int32)
    return MicroBatch(
        position=position,
        texts=TokenTexts(ids, lengths),
        parts=tuple(_part_rows(part, places[part]) for part in parts),
        strings=tuple(map(str, index)),
    )


def _part_rows(number: int, places: list[list[int]]) -> PartRows:
    source, rows, negatives = PARTS[number]
    return PartRows(
        source=f"s{source}",
        kind=KINDS[source],
        query_B=np.array([row[0] for row in places]),
        positive_B=np.array([row[1] for row in places]),
        negatives_BH=np.array([row[2:] for row in places], dtype=np.int64).reshape(rows, negatives),
        query_hash_B=np.arange(rows, dtype=np.uint64),
        positive_hash_B=np.array([hash(row[1]) % 2**64 for row in part_tables()[number]], dtype=np.uint64),
        tokens=0,
    )


def _loaded(
    rank: int = 0, world_size: int = 1, skipped: Collection[int] = (), slots: Sequence[Sequence[int]] = ALONE
) -> LoadedStep:
    step = tuple(
        Slot(
            occurrence=0,
            parts=tuple(Part(source=PARTS[part][0], first=0, rows=PARTS[part][1]) for part in parts),
            skipped=position in skipped,
        )
        for position, parts in enumerate(slots)
    )
    mine = slots_of_worker(len(slots), rank=rank, world_size=world_size)
    return LoadedStep(Step(0, 0, 0, step), tuple(_micro_batch(position, slots[position]) for position in mine), 0.0)


class KnownTeacher:
    """Returns a vector of `dims` values for every text."""

    def __init__(self, dims: int) -> None:
        self._dims = dims

    def vector(self, text: str) -> torch.Tensor:
        found = np.random.default_rng(list(text.encode())).normal(size=self._dims)
        return torch.from_numpy(found / np.linalg.norm(found))

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.stack([self.vector(text) for text in texts])


def run_step(
    in_batch: str,
    rank: int = 0,
    world_size: int = 1,
    skipped: Collection[int] = (),
    slots: Sequence[Sequence[int]] = ALONE,
    **fields: Any,
) -> tuple[float, dict[str, torch.Tensor]]:
    """The step's loss as this rank's share of it, and the summed gradients; `fields` are additional fields of
    TrainSpec.
    """
    teacher = None
    if teacher_dims := fields.pop("teacher_dims", 0):
        teacher = KnownTeacher(teacher_dims)
        fields["teacher"] = {"name_or_path": "known", "weight": 0.7}
    engine = PlainEngine(small_model())
    train = TrainSpec.model_validate({"in_batch": in_batch, **fields})
    step = ContrastiveStep(cast("Engine", engine), train, KINDS, rank=rank, world_size=world_size, teacher=teacher)
    loaded = _loaded(rank, world_size, skipped, slots)
    results = step.run(loaded)
    losses = [(r.hard_negative + (r.in_batch or 0.0) + (r.distillation or 0.0), r.rows) for r in results]
    loss = sum(each * rows for each, rows in losses) / max(1, loaded.step.weighed_rows)
    return loss, engine.gradients()


def assert_equal_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    assert found.keys() == expected.keys()
    worst = max((found[name] - expected[name]).abs().max().item() for name in expected)
    assert worst <= tolerance * scale
