"""Three ways to run one contrastive training step on the same rows, each with the same small Qwen3.

    packed       ours: distinct texts tokenized, packed into rows without padding, both losses, by ContrastiveStep
    padded       as in the released F2LLM code: all texts of all rows padded together, a 2D mask, both losses
    per column   sentence-transformers: its collator pads each column separately, one forward pass per column, and its
                 MultipleNegativesRankingLoss

A step is everything from texts to updated weights: tokenizing, forward, loss, backward, clipping, AdamW. Architecture,
initial weights, precision and optimizer are the same. Choices favor the peer: the padded method gets token ids, because
its data is tokenized in advance, and sentence-transformers runs without the work of its Trainer.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bench.support.texts import DemoTexts, Row
from data_io.dataset.schema import text_hash
from data_io.dataset.tokenizer import TextTokenizer
from data_io.loading.loader import LoadedStep, MicroBatch, PartRows
from data_io.loading.order import Part, Slot, Step
from data_io.task import Kind, format_query
from jobs.spec.demo import demo_job_spec
from ray_app.job_spec import ModelSpec, Qwen3Architecture, TrainSpec
from ray_app.models.embedder import Embedder
from ray_app.models.loading import build_backbone
from ray_app.models.packing import PackedBatch, pack
from ray_app.training.contrastive import ContrastiveStep

DEMO = demo_job_spec(Path("runs"))["spec"]["model"]["architecture"]

TRAIN = TrainSpec(global_batch_size=16, micro_batch_size=16, learning_rate=1e-4)
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
EOS = "<|endoftext|>"


@dataclass(frozen=True)
class Work:
    """The work of a step: its loss, and the token slots that the model processed."""

    loss: float
    slots: int


class Method(Protocol):
    """A way to train on rows. Its state is kept between steps."""

    name: str

    def step(self, rows: Sequence[Row]) -> Work: ...

    def embed(self, rows: Sequence[Row]) -> Tensor:
        """Embeddings of all texts of the rows without training, [B * (2 + H), D], L2-normalized, grouped by row."""
        ...


@dataclass(frozen=True)
class Setting:
    """Settings that all methods share."""

    texts: DemoTexts
    max_tokens: int
    precision: str
    layers: int = DEMO["num_hidden_layers"]

    def backbone(self) -> Any:
        """The demo's architecture, with the same weights each time."""
        architecture = Qwen3Architecture.model_validate(DEMO | {"num_hidden_layers": self.layers})
        spec = ModelSpec(architecture=architecture, max_seq_length=self.max_tokens)
        vocabulary_size = self.tokenizer().vocabulary_size
        return build_backbone(spec, vocabulary_size=vocabulary_size, dtype=DTYPES[self.precision], seed=0)

    @property
    def model(self) -> str:
        """Description of the model, for the report."""
        sizes = ", ".join(f"{name} {value}" for name, value in (DEMO | {"num_hidden_layers": self.layers}).items())
        return f"the demo's Qwen3 ({sizes}), {self.tokenizer().vocabulary_size} token ids"

    def tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self.texts.tokenizer_json, eos_token=EOS, max_tokens=self.max_tokens)

    def texts_of(self, row: Row) -> list[str]:
        return [format_query(row.query, self.texts.instruction), row.positive, *row.negatives]


class Update:
    """Clipping and AdamW."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list(model.parameters())
        betas = (TRAIN.adam_beta1, TRAIN.adam_beta2)
        self._adam = torch.optim.AdamW(self._parameters, lr=TRAIN.learning_rate, betas=betas, fused=True)

    def __call__(self) -> None:
        torch.nn.utils.clip_grad_norm_(self._parameters, TRAIN.max_grad_norm)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)


class PlainEngine:
    """The engine interface that ContrastiveStep needs, without DeepSpeed, because the peers run without it too."""

    device = torch.device("cpu")

    def __init__(self, model: Embedder) -> None:
        self.model = model
        self.slots = 0

    def embed(self, batch: PackedBatch) -> Tensor:
        self.slots += batch.slots
        return self.model(batch)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()


class Packed:
    """Ours."""

    name = "packed (this project)"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._tokenizer = setting.tokenizer()
        self.model = Embedder(setting.backbone(), attention="sdpa").train()
        self._engine = PlainEngine(self.model)
        engine: Any = self._engine
        self._contrastive = ContrastiveStep(engine, TRAIN, (Kind.RETRIEVAL,), rank=0, world_size=1)
        self._update = Update(self.model)

    def step(self, rows: Sequence[Row]) -> Work:
        self._engine.slots = 0
        step = Step(index=0, epoch=0, first_slot=0, slots=(Slot(0, (Part(source=0, first=0, rows=len(rows)),)),))
        loaded = LoadedStep(step=step, micro_batches=(self._micro_batch(rows),), wait_seconds=0.0)
        (result,) = self._contrastive.run(loaded)
        self._update()
        assert result.in_batch is not None
        return Work(result.hard_negative + result.in_batch, self._engine.slots)

    @torch.no_grad()
    def embed(self, rows: Sequence[Row]) -> Tensor:
        batch = self._micro_batch(rows)
        embeddings = self.model(pack(batch.texts.ids, batch.texts.lengths, layout=self.model.layout))
        (part,) = batch.parts
        places = np.concatenate([part.query_B[:, None], part.positive_B[:, None], part.negatives_BH], axis=1)
        return embeddings[torch.from_numpy(places.ravel())]

    def _micro_batch(self, rows: Sequence[Row]) -> MicroBatch:
        """As data_io.loading.loader makes it: every distinct text once, and rows of indices into the texts."""
        index: dict[str, int] = {}
        places = np.array([[index.setdefault(t, len(index)) for t in self._setting.texts_of(row)] for row in rows])
        texts = self._tokenizer.encode(list(index))
        part = PartRows(
            source="docs", kind=Kind.RETRIEVAL, tokens=len(texts.ids),
            query_B=places[:, 0], positive_B=places[:, 1], negatives_BH=places[:, 2:],
            query_hash_B=np.array([text_hash(row.query) for row in rows], dtype=np.uint64),
            positive_hash_B=np.array([text_hash(row.positive) for row in rows], dtype=np.uint64),
        )  # fmt: skip
        return MicroBatch(position=0, texts=texts, parts=(part,))


class PaddedTogether:
    """The released code, from its description: precomputed ids, one padded batch, losses in the model's precision."""

    name = "padded together (released F2LLM)"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._tokenizer = setting.tokenizer()
        self.model = setting.backbone().train()
        self._update = Update(self.model)
        self._ids: dict[Row, list[Tensor]] = {}

    def prepare(self, rows: Sequence[Row]) -> None:
        """Tokenize. This is not part of a step."""
        for row in rows:
            tokens = self._tokenizer.encode(self._setting.texts_of(row))
            ids = torch.from_numpy(tokens.ids.astype(np.int64))
            self._ids[row] = list(ids.split(tokens.lengths.tolist()))

    def step(self, rows: Sequence[Row]) -> Work:
        embeddings, slots = self._forward(rows)
        by_row = embeddings.view(len(rows), -1, embeddings.shape[-1])
        queries, positives, negatives = by_row[:, 0], by_row[:, 1], by_row[:, 2:]
        in_batch = F.cross_entropy(queries @ positives.T / TRAIN.temperature, torch.arange(len(rows)))
        own = (queries * positives).sum(-1, keepdim=True)
        logits = torch.cat([own, (queries[:, None] @ negatives.mT).squeeze(1)], dim=1) / TRAIN.temperature
        loss = in_batch + F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.long))
        loss.backward()
        self._update()
        return Work(loss.item(), slots)

    @torch.no_grad()
    def embed(self, rows: Sequence[Row]) -> Tensor:
        return self._forward(rows)[0]

    def _forward(self, rows: Sequence[Row]) -> tuple[Tensor, int]:
        texts = [ids for row in rows for ids in self._ids[row]]
        lengths = torch.tensor([len(ids) for ids in texts])
        padded = nn.utils.rnn.pad_sequence(texts, batch_first=True)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        states = self.model(input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state
        return F.normalize(states[torch.arange(len(texts)), lengths - 1], dim=-1), padded.numel()


class SentenceTransformers:
    """sentence-transformers' own collator, model and loss, in the order in which its trainer calls them."""

    name = "per column (sentence-transformers)"

    def __init__(self, setting: Setting) -> None:
        from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, losses
        from sentence_transformers.base.modules import Transformer
        from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
        from sentence_transformers.sentence_transformer.modules import Pooling

        self._setting = setting
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            setting.backbone().save_pretrained(folder)
            (folder / "tokenizer.json").write_text(setting.texts.tokenizer_json, encoding="utf-8")
            (folder / "tokenizer_config.json").write_text(setting.texts.tokenizer_config, encoding="utf-8")
            transformer = Transformer(
                name, max_seq_length=setting.max_tokens, model_kwargs={"dtype": DTYPES[setting.precision]}
            )
            pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
            self.model = SentenceTransformer(modules=[transformer, pooling], device="cpu").train()
        self._collect = SentenceTransformerTrainer.collect_features
        self._collate = SentenceTransformerDataCollator(self.model.preprocess)
        self._loss = losses.MultipleNegativesRankingLoss(self.model, scale=1 / TRAIN.temperature)
        self._update = Update(self.model)

    def step(self, rows: Sequence[Row]) -> Work:
        features = self._features(rows)
        slots = sum(column["input_ids"].numel() for column in features)
        loss = self._loss(features, None)
        loss.backward()
        self._update()
        return Work(loss.item(), slots)

    @torch.no_grad()
    def embed(self, rows: Sequence[Row]) -> Tensor:
        columns = [self.model(column)["sentence_embedding"] for column in self._features(rows)]
        return F.normalize(torch.stack(columns, dim=1).flatten(0, 1), dim=-1)

    def _features(self, rows: Sequence[Row]) -> list[dict[str, Tensor]]:
        names = ["anchor", "positive", *(f"negative_{i}" for i in range(1, len(rows[0].negatives) + 1))]
        batch = [dict(zip(names, self._setting.texts_of(row), strict=True)) for row in rows]
        trainer: Any = None  # the method does not use it
        return self._collect(trainer, self._collate(batch))[0]
