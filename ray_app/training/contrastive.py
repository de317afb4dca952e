"""Forward and backward passes of one optimizer step, with the losses of arXiv 2510.02294, section 3.

See docs/developers/design.md, "The training step" and "Data order". A slot is one micro-batch of the step.

Shapes: G slots in the step, n_g rows of slot g, P = sum(n_g) rows of the step, B rows of one source in a micro-batch,
R rows of a micro-batch, N distinct texts of a micro-batch, H hard negatives, D dimensions.

The loss of the step is the mean over its P rows: slot g has the weight n_g / P. Within a slot, each part (the rows of
one source) is weighted by its rows. A slot that the job skips has no weight. It is not in P, it is not in the pool, and
its texts are not embedded, because their embeddings may not be finite.

The pool of in-batch negatives has the positives of all retrieval rows in slot order. So it is the same for any number
of workers. A worker with several slots first embeds their positives without gradient to fill the pool. The positives of
the current micro-batch keep their gradient; all others are constants.

With `train.matryoshka_dims` each loss is a weighted sum over several d. For each d it is computed on the first d values
of the same embeddings and of the same pool (ray_app.training.losses).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from data_io.loading.loader import LoadedStep, MicroBatch, PartRows
from data_io.task import Kind
from ray_app.job_spec import TrainSpec
from ray_app.models.packing import PackedBatch, pack
from ray_app.training.losses import (
    distillation_loss,
    hard_negative_loss,
    in_batch_loss,
    matryoshka_terms,
    truncate,
    weighted_sum,
)
from ray_app.training.stragglers import ForwardTiming, Stopwatch

if TYPE_CHECKING:
    from ray_app.training.engine import Engine  # only a type: importing DeepSpeed takes seconds


@dataclass(frozen=True)
class PartLoss:
    """Mean losses over the rows of one source in a micro-batch; `rows` is 0 if they were skipped.

    `in_batch` is None for a task type without that loss. `distillation` includes its weight, and is None without a
    teacher.
    """

    rows: int
    tokens: int
    hard_negative: float
    in_batch: float | None
    distillation: float | None = None


class TeacherModel(Protocol):
    """An embedding model whose embeddings are the target of the distillation loss."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 [N, D of the teacher], L2-normalized, without gradient."""
        ...


@dataclass(frozen=True)
class Pool:
    """A pool of in-batch negatives: embeddings float32 [P, D], text hashes int64 [P], and a bool [P].

    The bool is True for entries that are used as negatives.
    """

    embeddings_PD: Tensor
    hashes_P: Tensor
    valid_P: Tensor


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
        teacher: TeacherModel | None = None,
    ) -> None:
        """`kinds`: the task types of the sources of the data order, by number.

        Raises ModelError if the model's embeddings have fewer dimensions than one of `train.matryoshka_dims`.
        """
        self._engine = engine
        self._train = train
        self._terms = matryoshka_terms(train, engine.model.dimensions)
        self._kinds = tuple(kinds)
        self._rank, self._world_size = rank, world_size
        self._teacher = teacher
        self._stopwatch = Stopwatch(engine.device)
        self._tokens = 0

    def take_timing(self) -> ForwardTiming:
        """This rank's forward passes since the previous call. Resets the count."""
        tokens, self._tokens = self._tokens, 0
        return ForwardTiming(self._stopwatch.take(), tokens)

    def run(self, loaded: LoadedStep) -> list[PartLoss]:
        """Forward and backward passes of every slot of this rank; the gradients accumulate in the engine.

        Returns the losses of all parts of its micro-batches, in order.
        """
        step = loaded.step
        passes = -(-len(step.slots) // self._world_size)
        pool: Pool | None = None
        first: Tensor | None = None
        if self._train.in_batch == "step":
            if passes == 1 and loaded.micro_batches and not step.slots[loaded.micro_batches[0].position].skipped:
                # This rank has one micro-batch. It is embedded once, with gradient, for the pool and for the loss.
                first = self._embed(loaded.micro_batches[0])
            pool = self._gather_pool(loaded, first)
        first_rows = step.first_rows
        results: list[PartLoss] = []
        for index in range(passes):
            last = index == passes - 1
            if index >= len(loaded.micro_batches):
                self._empty_pass(last=last)
                continue
            micro_batch = loaded.micro_batches[index]
            if step.slots[micro_batch.position].skipped:
                self._empty_pass(last=last)
                results += [PartLoss(rows=0, tokens=0, hard_negative=0.0, in_batch=None) for _ in micro_batch.parts]
                continue
            embeddings_ND = first if first is not None else self._embed(micro_batch)
            first_row = first_rows[micro_batch.position]
            total, losses = self._losses(micro_batch, embeddings_ND, pool, first_row=first_row)
            self._engine.backward(total * (micro_batch.rows / step.weighed_rows), last=last)
            results += losses
        return results

    def _losses(
        self, batch: MicroBatch, embeddings_ND: Tensor, pool: Pool | None, *, first_row: int
    ) -> tuple[Tensor, list[PartLoss]]:
        """The mean loss of a micro-batch's rows, to be minimized, and the losses of each part.

        `pool`: the pool of the step, in which the micro-batch's rows begin at `first_row`. None: the micro-batch is its
        own pool.
        """
        device = embeddings_ND.device
        positives_RD = embeddings_ND[_index(np.concatenate([part.positive_B for part in batch.parts]), device)]
        if pool is None:
            valid_R = torch.from_numpy(_in_pool(batch.parts)).to(device)
            first_row, pool = 0, Pool(positives_RD, _hashes(batch.parts, device), valid_R)
        elif any(part.kind.uses_in_batch_negatives for part in batch.parts):
            # A copy: the pool stays constant, and only this micro-batch's rows carry a gradient.
            own_R = torch.arange(first_row, first_row + batch.rows, device=device)
            pool = replace(pool, embeddings_PD=pool.embeddings_PD.index_copy(0, own_R, positives_RD))
        teacher_ND = None if self._teacher is None else self._teacher.embed(batch.strings).to(embeddings_ND.dtype)

        weighted, losses, start = [], [], 0
        for part in batch.parts:
            p_BD = positives_RD[start : start + part.rows]
            q_BD = embeddings_ND[_index(part.query_B, device)]
            hard = self._hard_negative_loss(part, embeddings_ND, q_BD, p_BD)
            in_batch = self._in_batch_loss(part, q_BD, pool, first_row=first_row + start)
            distillation = None if teacher_ND is None else self._distillation_loss(part, embeddings_ND, teacher_ND)
            total = hard if in_batch is None else hard + in_batch
            total = total if distillation is None else total + distillation
            weighted.append(total * (part.rows / batch.rows))
            start += part.rows
            losses.append(
                PartLoss(
                    rows=part.rows,
                    tokens=part.tokens,
                    hard_negative=float(hard.detach()),
                    in_batch=None if in_batch is None else float(in_batch.detach()),
                    distillation=None if distillation is None else float(distillation.detach()),
                )
            )
        return torch.stack(weighted).sum(), losses

    def _hard_negative_loss(self, part: PartRows, embeddings_ND: Tensor, q_BD: Tensor, p_BD: Tensor) -> Tensor:
        n_BHD = embeddings_ND[_index(part.negatives_BH, embeddings_ND.device)]
        t = self._train.temperature
        return weighted_sum(
            self._terms,
            lambda d: hard_negative_loss(truncate(q_BD, d), truncate(p_BD, d), truncate(n_BHD, d), temperature=t),
        )

    def _in_batch_loss(self, part: PartRows, q_BD: Tensor, pool: Pool, *, first_row: int) -> Tensor | None:
        """None for a part without this loss. The part's own positives begin in the pool at `first_row`."""
        if self._train.in_batch == "off" or not part.kind.uses_in_batch_negatives:
            return None
        target_B = torch.arange(first_row, first_row + part.rows, device=q_BD.device)
        positive_hash_B = _hashes([part], q_BD.device)
        return weighted_sum(
            self._terms,
            lambda d: in_batch_loss(
                truncate(q_BD, d),
                truncate(pool.embeddings_PD, d),
                target_B=target_B,
                query_positive_hash_B=positive_hash_B,
                pool_hash_P=pool.hashes_P,
                pool_valid_P=pool.valid_P,
                temperature=self._train.temperature,
            ),
        )

    def _distillation_loss(self, part: PartRows, embeddings_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        """The weighted distance to the teacher's embeddings, over the first dimensions that both models have."""
        assert self._train.teacher is not None
        device = embeddings_ND.device
        dims = min(embeddings_ND.shape[1], teacher_ND.shape[1])
        return self._train.teacher.weight * distillation_loss(
            truncate(embeddings_ND, dims),
            truncate(teacher_ND, dims),
            query_B=_index(part.query_B, device),
            positive_B=_index(part.positive_B, device),
            negatives_BH=_index(part.negatives_BH, device),
        )

    def _gather_pool(self, loaded: LoadedStep, first: Tensor | None) -> Pool:
        """The pool of the step. Each rank writes its own rows into zeros; the all-reduce sum of these is exact."""
        device = self._engine.device
        step = loaded.step
        valid = [
            self._kinds[part.source].uses_in_batch_negatives and not s.skipped for s in step.slots for part in s.parts
        ]
        valid_P = torch.from_numpy(np.repeat(valid, [part.rows for part in step.parts])).to(device)
        hashes_P = torch.zeros(step.rows, dtype=torch.int64, device=device)
        model = self._engine.model
        pool_PD = torch.zeros(step.rows, model.dimensions, dtype=model.embedding_dtype, device=device)
        first_rows = step.first_rows
        for batch in loaded.micro_batches:
            parts = [part for part in batch.parts if part.kind.uses_in_batch_negatives]
            if step.slots[batch.position].skipped or not parts:
                continue
            rows = _index(first_rows[batch.position] + np.flatnonzero(_in_pool(batch.parts)), device)
            texts_B = np.concatenate([part.positive_B for part in parts])
            hashes_P[rows] = _hashes(parts, device)
            pool_PD[rows] = (
                self._embed_constant(batch, texts_B) if first is None else first.detach()[_index(texts_B, device)]
            )
        if any(valid) and self._world_size > 1:
            dist.all_reduce(pool_PD)
            dist.all_reduce(hashes_P)
        return Pool(pool_PD, hashes_P, valid_P)

    @torch.no_grad()
    def _embed_constant(self, batch: MicroBatch, texts_B: npt.NDArray[np.int64]) -> Tensor:
        """Embeddings of texts of a micro-batch, by their index, without gradient, float32 [B, D]."""
        wanted, inverse_B = np.unique(texts_B, return_inverse=True)
        ends = np.cumsum(batch.texts.lengths, dtype=np.int64)
        parts = [batch.texts.ids[ends[text] - batch.texts.lengths[text] : ends[text]] for text in wanted]
        packed = self._pack(np.concatenate(parts), batch.texts.lengths[wanted])
        return self._engine.model(packed)[_index(inverse_B, self._engine.device)]  # type: ignore[no-any-return]

    def _embed(self, batch: MicroBatch) -> Tensor:
        packed = self._pack(batch.texts.ids, batch.texts.lengths)
        self._tokens += packed.tokens
        with self._stopwatch:
            return self._engine.embed(packed)

    def _empty_pass(self, *, last: bool) -> None:
        """A pass of weight zero, so that a rank without a slot takes part in the same gradient reductions."""
        one_token = self._pack(np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.int32))
        self._engine.backward(self._engine.embed(one_token).sum() * 0.0, last=last)

    def _pack(self, ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> PackedBatch:
        return pack(ids, lengths, layout=self._engine.model.layout, device=self._engine.device)


def _index(array: npt.NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)


def _hashes(parts: Sequence[PartRows], device: torch.device) -> Tensor:
    """Hashes of the rows' positives, int64 [rows]: the bits of the uint64, in a type that every device can compare."""
    return torch.from_numpy(np.concatenate([part.positive_hash_B for part in parts]).view(np.int64)).to(device)


def _in_pool(parts: Sequence[PartRows]) -> npt.NDArray[np.bool_]:
    """The rows whose positives are negatives of other rows, bool [rows]."""
    return np.repeat([part.kind.uses_in_batch_negatives for part in parts], [part.rows for part in parts])
