"""One optimiser step's forward and backward passes: from micro-batches to the two losses (DESIGN sections 1 and 2).

Shapes: G slots in the step, n_g rows of slot g, P = sum(n_g) rows of the step, B rows of one micro-batch, H negatives,
D dims.

The step's loss is the mean over its P rows: slot g weighs n_g / P. A slot that the document skips weighs nothing, is
not in P and not in the pool, and its texts are not embedded: what comes of them may be no number.

The in-batch pool is the positives of all retrieval slots, laid out in slot order, so it is the same for any number of
workers. A worker with several slots embeds its positives once without gradient to fill the pool; a micro-batch's own
positives keep their gradient, the others are constants.

With `train.matryoshka_dims` each loss is the weighed sum over the first d values of the same embeddings and pool, for
several d (ray_app.matryoshka).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from data_io.loader import LoadedStep, MicroBatch
from data_io.task import Kind
from ray_app.config import TrainSpec
from ray_app.losses import distillation_loss, hard_negative_loss, in_batch_loss
from ray_app.matryoshka import cut, terms_of, weighed_sum
from ray_app.packing import PackedBatch, pack
from ray_app.stragglers import Stopwatch, Work

if TYPE_CHECKING:
    from ray_app.engine import Engine  # DeepSpeed takes seconds to import, and a step runs with any engine


@dataclass(frozen=True)
class SlotLoss:
    """What one micro-batch gave: mean losses over its rows; `in_batch` is None where its kind has no such loss,
    `distillation`, its weight included, where there is no teacher.
    """

    source: str
    rows: int
    tokens: int
    hard_negative: float
    in_batch: float | None
    distillation: float | None = None


class Embeds(Protocol):
    """A teacher."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 [N, D of the teacher], L2-normalised, without gradient."""
        ...


@dataclass
class Pool:
    """The step's in-batch pool: embeddings float32 [P, D], text hashes int64 [P], and which entries take part, bool
    [P].
    """

    embeddings_PD: Tensor
    hashes_P: Tensor
    valid_P: Tensor
    first_row: dict[int, int] = field(default_factory=dict)  # slot -> its first row in the pool


class ContrastiveStep:
    """Runs the passes of a step on one rank. All ranks run the same number of passes and enter every collective."""

    def __init__(
        self,
        engine: "Engine",
        train: TrainSpec,
        kinds: Sequence[Kind],
        *,
        rank: int,
        world_size: int,
        teacher: Embeds | None = None,
    ) -> None:
        """`kinds` gives the kind of each of the plan's sources, by number. Raises ModelError where the model's
        embeddings are narrower than one of `train.matryoshka_dims`.
        """
        self._engine = engine
        self._train = train
        self._terms = terms_of(train, engine.model.dimensions)
        self._kinds = tuple(kinds)
        self._rank, self._world_size = rank, world_size
        self._teacher = teacher
        self._stopwatch = Stopwatch(engine.device)
        self._tokens = 0

    def take_work(self) -> Work:
        """This rank's forward passes since the last call."""
        tokens, self._tokens = self._tokens, 0
        return Work(self._stopwatch.take(), tokens)

    def run(self, loaded: LoadedStep) -> list[SlotLoss]:
        """Forward and backward of every slot of this rank; the gradients are left in the engine."""
        step = loaded.step
        passes = -(-len(step.slots) // self._world_size)
        pool: Pool | None = None
        first: Tensor | None = None
        if self._train.in_batch == "step":
            if passes == 1 and loaded.micro_batches and not step.slots[loaded.micro_batches[0].position].skipped:
                # The only micro-batch of this rank is embedded once, with its gradient, for the pool and for the loss.
                first = self._embed(loaded.micro_batches[0])
            pool = self._gather_pool(loaded, first)
        results = []
        for index in range(passes):
            last = index == passes - 1
            if index >= len(loaded.micro_batches):
                self._empty_pass(last=last)
                continue
            micro_batch = loaded.micro_batches[index]
            if step.slots[micro_batch.position].skipped:
                self._empty_pass(last=last)
                results.append(SlotLoss(micro_batch.source, rows=0, tokens=0, hard_negative=0.0, in_batch=None))
                continue
            embeddings_ND = first if first is not None else self._embed(micro_batch)
            hard, in_batch = self._losses(micro_batch, embeddings_ND, pool)
            distillation = self._distillation(micro_batch, embeddings_ND)
            total = hard if in_batch is None else hard + in_batch
            total = total if distillation is None else total + distillation
            self._engine.backward(total * (micro_batch.rows / step.weighed_rows), last=last)
            results.append(
                SlotLoss(
                    source=micro_batch.source,
                    rows=micro_batch.rows,
                    tokens=len(micro_batch.texts.ids),
                    hard_negative=float(hard.detach()),
                    in_batch=None if in_batch is None else float(in_batch.detach()),
                    distillation=None if distillation is None else float(distillation.detach()),
                )
            )
        return results

    def _losses(self, batch: MicroBatch, embeddings_ND: Tensor, pool: Pool | None) -> tuple[Tensor, Tensor | None]:
        device = embeddings_ND.device
        q_BD = embeddings_ND[_index(batch.query_B, device)]
        p_BD = embeddings_ND[_index(batch.positive_B, device)]
        n_BHD = embeddings_ND[_index(batch.negatives_BH, device)]
        t = self._train.temperature
        hard = weighed_sum(
            self._terms,
            lambda d: hard_negative_loss(cut(q_BD, d), cut(p_BD, d), cut(n_BHD, d), temperature=t),
        )
        if self._train.in_batch == "off" or not batch.kind.uses_in_batch_negatives:
            return hard, None
        hashes_B = _as_int64(batch.positive_hash_B, device)
        rows = torch.arange(batch.rows, device=device)
        if pool is None:
            valid_B = torch.ones(batch.rows, dtype=torch.bool, device=device)
            pool_PD, pool_hash_P, valid_P, target_B = p_BD, hashes_B, valid_B, rows
        else:
            target_B = rows + pool.first_row[batch.position]
            # Out of place: the pool itself stays constant, this micro-batch's own rows carry their gradient.
            pool_PD = pool.embeddings_PD.index_copy(0, target_B, p_BD)
            pool_hash_P, valid_P = pool.hashes_P, pool.valid_P
        in_batch = weighed_sum(
            self._terms,
            lambda d: in_batch_loss(
                cut(q_BD, d),
                cut(pool_PD, d),
                target_B=target_B,
                query_positive_hash_B=hashes_B,
                pool_hash_P=pool_hash_P,
                pool_valid_P=valid_P,
                temperature=t,
            ),
        )
        return hard, in_batch

    def _distillation(self, batch: MicroBatch, embeddings_ND: Tensor) -> Tensor | None:
        """The weighed distance to the teacher's embeddings, in as many first dimensions as both have."""
        if self._teacher is None or self._train.teacher is None:
            return None
        device = embeddings_ND.device
        teacher_ND = self._teacher.embed(batch.strings).to(embeddings_ND.dtype)
        dims = min(embeddings_ND.shape[1], teacher_ND.shape[1])
        return self._train.teacher.weight * distillation_loss(
            cut(embeddings_ND, dims),
            cut(teacher_ND, dims),
            query_B=_index(batch.query_B, device),
            positive_B=_index(batch.positive_B, device),
            negatives_BH=_index(batch.negatives_BH, device),
        )

    def _gather_pool(self, loaded: LoadedStep, first: Tensor | None) -> Pool:
        """Every rank fills in its own rows of the pool; the sum with the others' zeros is exact and needs no order."""
        device = self._engine.device
        slots = loaded.step.slots
        starts = np.concatenate([[0], np.cumsum([slot.rows for slot in slots])])
        retrieval = [self._kinds[slot.source].uses_in_batch_negatives and not slot.skipped for slot in slots]
        valid_P = torch.from_numpy(np.repeat(retrieval, [slot.rows for slot in slots])).to(device)
        mine = [batch for batch in loaded.micro_batches if retrieval[batch.position]]
        hashes_P = torch.zeros(loaded.step.rows, dtype=torch.int64, device=device)
        model = self._engine.model
        pool_PD = torch.zeros(loaded.step.rows, model.dimensions, dtype=model.embedding_dtype, device=device)
        for batch in mine:
            rows = slice(int(starts[batch.position]), int(starts[batch.position]) + batch.rows)
            hashes_P[rows] = _as_int64(batch.positive_hash_B, device)
            pool_PD[rows] = (
                self._positives(batch) if first is None else first.detach()[_index(batch.positive_B, device)]
            )
        if any(retrieval) and self._world_size > 1:
            dist.all_reduce(pool_PD)
            dist.all_reduce(hashes_P)
        return Pool(pool_PD, hashes_P, valid_P, first_row={slot: int(starts[slot]) for slot in range(len(slots))})

    @torch.no_grad()
    def _positives(self, batch: MicroBatch) -> Tensor:
        """Embeddings of a micro-batch's positives alone, without gradient, float32 [B, D]."""
        wanted, place_B = np.unique(batch.positive_B, return_inverse=True)
        ends = np.cumsum(batch.texts.lengths, dtype=np.int64)
        parts = [batch.texts.ids[ends[text] - batch.texts.lengths[text] : ends[text]] for text in wanted]
        packed = self._pack(np.concatenate(parts), batch.texts.lengths[wanted])
        return self._engine.model(packed)[_index(place_B, self._engine.device)]  # type: ignore[no-any-return]

    def _embed(self, batch: MicroBatch) -> Tensor:
        packed = self._pack(batch.texts.ids, batch.texts.lengths)
        self._tokens += packed.tokens
        with self._stopwatch:
            return self._engine.embed(packed)

    def _empty_pass(self, *, last: bool) -> None:
        """A pass of weight zero, so that a rank without a slot reduces the same gradients as the others."""
        one_token = self._pack(np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.int32))
        self._engine.backward(self._engine.embed(one_token).sum() * 0.0, last=last)

    def _pack(self, ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> PackedBatch:
        return pack(ids, lengths, layout=self._engine.model.layout, device=self._engine.device)


def _index(array: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


def _as_int64(hashes_B: npt.NDArray[np.uint64], device: torch.device) -> Tensor:
    """The same 64 bits as a type that every device compares."""
    return torch.from_numpy(hashes_B.view(np.int64)).to(device)
