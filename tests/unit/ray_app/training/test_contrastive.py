"""The step's losses and gradients against the paper's equations, and their independence of the number of workers."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from data_io.dataset.tokenizer import TokenTexts
from data_io.loading.loader import LoadedStep, MicroBatch, PartRows
from data_io.loading.order import Part, Slot, Step, slots_of_worker
from data_io.task import Kind
from ray_app.config import ModelSpec, Qwen3Architecture, TrainSpec
from ray_app.errors import ModelError
from ray_app.models.embedder import Embedder
from ray_app.models.loading import build_backbone
from ray_app.models.packing import pack
from ray_app.training.contrastive import ContrastiveStep
from tests.support.plain_engine import PlainEngine
from tests.support.process_group import group_of_one
from tests.support.reference_loss import ReferencePart, reference_distillation, reference_matryoshka_loss

if TYPE_CHECKING:
    from ray_app.training.engine import Engine

KINDS = (Kind.RETRIEVAL, Kind.CLUSTERING, Kind.CLASSIFICATION, Kind.RETRIEVAL)
# source, rows, hard negatives: retrieval parts of different size, one of one row, all kinds.
PARTS = ((0, 4, 3), (1, 3, 2), (3, 2, 3), (2, 3, 1), (0, 1, 0))
# Which of them are micro-batches: each by itself, or several together, one of them without a retrieval part.
ALONE = ((0,), (1,), (2,), (3,), (4,))
MIXED = ((0, 1, 2), (3,), (4,))
SLOTS = (ALONE, MIXED)
VOCABULARY = 60
WHOLE = {16: 1.0}
"""What the losses of so many values weigh: those of the whole embedding alone."""


@pytest.fixture(autouse=True)
def _one_process_group(tmp_path: Path) -> Iterator[None]:
    with group_of_one(tmp_path):
        yield


def _model() -> Embedder:
    spec = ModelSpec(architecture=Qwen3Architecture(hidden_size=16, head_dim=8, intermediate_size=24))
    backbone = build_backbone(spec, vocabulary_size=VOCABULARY, dtype=torch.float64, seed=3)
    # At the usual 0.02 all embeddings of so small a model are nearly equal, and a test would see nothing.
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return Embedder(backbone, attention="sdpa").train()


def _text(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(token) for token in rng.integers(0, VOCABULARY, int(rng.integers(1, 9))))


def _tables() -> list[list[list[tuple[int, ...]]]]:
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
    tables = _tables()
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
        positive_hash_B=np.array([hash(row[1]) % 2**64 for row in _tables()[number]], dtype=np.uint64),
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


class _Teacher:
    """Knows a vector for every text, of `dims` values."""

    def __init__(self, dims: int) -> None:
        self._dims = dims

    def vector(self, text: str) -> torch.Tensor:
        found = np.random.default_rng(list(text.encode())).normal(size=self._dims)
        return torch.from_numpy(found / np.linalg.norm(found))

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.stack([self.vector(text) for text in texts])


def _run(
    in_batch: str,
    rank: int = 0,
    world_size: int = 1,
    skipped: Collection[int] = (),
    slots: Sequence[Sequence[int]] = ALONE,
    **fields: Any,
) -> tuple[float, dict[str, torch.Tensor]]:
    """The step's loss as this rank's share of it, and the summed gradients; `fields` are further ones of TrainSpec."""
    teacher = None
    if teacher_dims := fields.pop("teacher_dims", 0):
        teacher = _Teacher(teacher_dims)
        fields["teacher"] = {"name_or_path": "known", "weight": 0.7}
    engine = PlainEngine(_model())
    train = TrainSpec.model_validate({"in_batch": in_batch, **fields})
    step = ContrastiveStep(cast("Engine", engine), train, KINDS, rank=rank, world_size=world_size, teacher=teacher)
    loaded = _loaded(rank, world_size, skipped, slots)
    results = step.run(loaded)
    losses = [(r.hard_negative + (r.in_batch or 0.0) + (r.distillation or 0.0), r.rows) for r in results]
    loss = sum(each * rows for each, rows in losses) / max(1, loaded.step.weighed_rows)
    return loss, engine.gradients()


def _reference(
    in_batch: str,
    skipped: Collection[int] = (),
    weights: Mapping[int, float] = WHOLE,
    teacher_dims: int = 0,
    slots: Sequence[Sequence[int]] = ALONE,
) -> tuple[float, dict[str, torch.Tensor]]:
    """`weights` by number of values."""
    model = _model()

    def embed(text: tuple[int, ...]) -> torch.Tensor:
        alone = pack(np.array(text, dtype=np.int32), np.array([len(text)], dtype=np.int32), layout="rows")
        hidden = model.backbone(input_ids=alone.input_ids, position_ids=alone.position_ids, use_cache=False)
        return cast(torch.Tensor, hidden.last_hidden_state[0, -1])

    parts = _reference_parts(embed, skipped, slots)
    loss = reference_matryoshka_loss(parts, weights, temperature=0.05, in_batch=in_batch)
    if teacher_dims:
        teacher = _Teacher(teacher_dims)
        taught = _reference_parts(lambda text: teacher.vector(str(text)), skipped, slots)
        loss = loss + 0.7 * reference_distillation(parts, taught, min(16, teacher_dims))
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), PlainEngine(model).gradients()


def _reference_parts(
    embed: Callable[[tuple[int, ...]], torch.Tensor], skipped: Collection[int], slots: Sequence[Sequence[int]]
) -> list[ReferencePart]:
    tables = _tables()
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


def _assert_equal_gradients(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float
) -> None:
    scale = max(gradient.abs().max().item() for gradient in expected.values())
    assert found.keys() == expected.keys()
    worst = max((found[name] - expected[name]).abs().max().item() for name in expected)
    assert worst <= tolerance * scale


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("in_batch", ["step", "micro_batch", "off"])
def test_loss_and_gradients_are_those_of_the_papers_equations(in_batch: str, slots: Sequence[Sequence[int]]) -> None:
    loss, gradients = _run(in_batch, slots=slots)

    expected_loss, expected_gradients = _reference(in_batch, slots=slots)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    _assert_equal_gradients(gradients, expected_gradients, 1e-6)


@pytest.mark.parametrize("in_batch", ["step", "micro_batch", "off"])
@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({"matryoshka_dims": (4, 8), "matryoshka_weights": (0.3, 2.0)}, {16: 1.0, 8: 2.0, 4: 0.3}),
        ({"matryoshka_dims": (1, 16), "matryoshka_weights": (0.5, 0.25)}, {16: 0.25, 1: 0.5}),
        # As F2LLM-v2's code has them: 1 / (n sqrt(D / d)).
        ({"matryoshka_dims": (4, 8)}, {16: 1.0, 8: 1 / (2 * 2**0.5), 4: 1 / (3 * 2)}),
        ({"matryoshka_dims": (4, 8, 16)}, {16: 1.0, 8: 1 / (2 * 2**0.5), 4: 1 / (3 * 2)}),
        ({"matryoshka_dims": ()}, WHOLE),
    ],
)
def test_with_matryoshka_dims_it_is_the_sum_of_the_losses_of_shorter_embeddings(
    in_batch: str, fields: dict[str, Any], weights: dict[int, float]
) -> None:
    loss, gradients = _run(in_batch, **fields)

    expected_loss, expected_gradients = _reference(in_batch, weights=weights)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    _assert_equal_gradients(gradients, expected_gradients, 1e-6)


@pytest.mark.parametrize("teacher_dims", [8, 16, 40])
@pytest.mark.parametrize(("skipped", "slots"), [((), ALONE), ((1, 4), ALONE), ((1,), MIXED)])
def test_with_a_teacher_it_has_the_distance_to_the_teachers_embeddings(
    teacher_dims: int, skipped: tuple[int], slots: Sequence[Sequence[int]]
) -> None:
    loss, gradients = _run("step", skipped=skipped, slots=slots, teacher_dims=teacher_dims)

    expected_loss, expected_gradients = _reference("step", skipped, teacher_dims=teacher_dims, slots=slots)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert loss > _run("step", skipped=skipped, slots=slots)[0]
    _assert_equal_gradients(gradients, expected_gradients, 1e-6)


def test_an_embedding_is_refused_that_has_fewer_values_than_are_asked_for() -> None:
    with pytest.raises(ModelError, match=r"asks for 17 values.*hidden_size=16") as caught:
        _run("step", matryoshka_dims=(4, 17))

    assert caught.value.remedy == "set train.matryoshka_dims: [4]"


@pytest.mark.parametrize("in_batch", ["step", "micro_batch"])
@pytest.mark.parametrize(
    ("skipped", "slots"),
    [({0}, ALONE), ({1}, ALONE), ({2, 3}, ALONE), ({0, 2, 4}, ALONE), ({0}, MIXED), ({1, 2}, MIXED)],
)
def test_a_step_with_skipped_slots_is_the_step_that_never_had_them(
    in_batch: str, skipped: set[int], slots: Sequence[Sequence[int]]
) -> None:
    loss, gradients = _run(in_batch, skipped=skipped, slots=slots)

    expected_loss, expected_gradients = _reference(in_batch, skipped, slots=slots)

    assert loss == pytest.approx(expected_loss, rel=1e-6)
    _assert_equal_gradients(gradients, expected_gradients, 1e-6)


def test_a_step_of_skipped_slots_alone_has_a_gradient_of_zero() -> None:
    loss, gradients = _run("step", skipped=range(len(PARTS)))

    assert loss == 0
    assert all(not gradient.any() for gradient in gradients.values())


def test_the_pools_differ() -> None:
    losses = {in_batch: _run(in_batch)[0] for in_batch in ("step", "micro_batch", "off")}

    assert losses["step"] > losses["micro_batch"] > losses["off"]


def _worker(rank: int, world_size: int, folder: str, skipped: Collection[int], fields: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/g{world_size}", rank=rank, world_size=world_size)
    loss, gradients = _run("step", rank, world_size, skipped, **fields)
    torch.save({"loss": loss, "gradients": gradients}, f"{folder}/{world_size}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("world_size", "skipped", "fields"),
    [
        (2, (), {}),
        (6, (), {}),
        (6, (0, 3), {}),
        (3, (3,), {"matryoshka_dims": (2, 8), "teacher_dims": 12}),
        (2, (), {"slots": MIXED}),
        (3, (), {"slots": MIXED}),
    ],
)
def test_the_step_pool_gives_the_same_gradients_for_any_number_of_workers(
    world_size: int, skipped: Collection[int], fields: dict[str, Any], tmp_path: Path
) -> None:
    loss, gradients = _run("step", skipped=skipped, **fields)

    mp.spawn(_worker, (world_size, str(tmp_path), skipped, fields), nprocs=world_size)  # type: ignore[no-untyped-call]

    shares: list[dict[str, Any]] = [torch.load(tmp_path / f"{world_size}-{rank}.pt") for rank in range(world_size)]
    assert sum(share["loss"] for share in shares) == pytest.approx(loss, rel=1e-12)
    for share in shares:
        _assert_equal_gradients(share["gradients"], gradients, 1e-10)
