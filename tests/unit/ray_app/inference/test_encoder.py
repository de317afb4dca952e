"""The embedding of a text does not depend on the other texts of its batch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from data_io.curation.tokenizer_training import TokenizerFiles, train_tokenizer
from data_io.dataset.tokenizer import TextTokenizer
from ray_app.errors import ModelError
from ray_app.inference.encoder import Encoder, group_lengths, load_encoder
from ray_app.job_spec import ModelSpec, Qwen3Architecture
from ray_app.models.attention import Attention
from ray_app.models.embedder import Embedder
from ray_app.models.loading import build_backbone
from ray_app.models.packing import PackedBatch

EOS = "<|endoftext|>"
MAX_TOKENS = 20
TEXTS = [
    "how to join paths",
    "",
    "x",
    "a long text about files and directories " * 20,
    "naïve 文字",
    "x",
    "read a file",
]


class _WatchedEmbedder(Embedder):
    """Records the batches that it embeds."""

    batches: list[PackedBatch]

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        self.batches.append(batch)
        return super().forward(batch)


@pytest.fixture(scope="module")
def files() -> TokenizerFiles:
    return train_tokenizer(TEXTS, vocabulary_size=300)


@pytest.fixture
def model() -> _WatchedEmbedder:
    spec = ModelSpec(
        architecture=Qwen3Architecture(hidden_size=32, head_dim=16, intermediate_size=48, initializer_range=0.15)
    )
    backbone = build_backbone(spec, vocabulary_size=300, dtype=torch.float32, seed=0)
    model = _WatchedEmbedder(backbone, attention="sdpa")
    model.batches = []
    return model


@pytest.fixture
def make_encoder(model: _WatchedEmbedder, files: TokenizerFiles) -> Callable[[int], Encoder]:
    def make(batch_tokens: int) -> Encoder:
        tokenizer = TextTokenizer(files.tokenizer_json, eos_token=EOS, max_tokens=MAX_TOKENS)
        return Encoder(model, tokenizer, batch_tokens=batch_tokens)

    return make


@pytest.mark.parametrize("batch_tokens", [1, 8, 21, 10_000])
def test_embeddings_do_not_depend_on_how_many_are_embedded_at_once(
    make_encoder: Callable[[int], Encoder], batch_tokens: int
) -> None:
    encoder = make_encoder(batch_tokens)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])

    together = encoder.encode(TEXTS)

    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert together.dtype == np.float32


@pytest.mark.parametrize("batch_tokens", [1, 8, 21, 45])
def test_a_batch_holds_at_most_one_text_more_than_its_tokens(
    make_encoder: Callable[[int], Encoder], model: _WatchedEmbedder, batch_tokens: int
) -> None:
    make_encoder(batch_tokens).encode(TEXTS)

    assert sum(len(batch.last_N) for batch in model.batches) == len(TEXTS)
    assert all(batch.tokens < batch_tokens + MAX_TOKENS for batch in model.batches)


def test_texts_of_similar_length_are_embedded_together(
    make_encoder: Callable[[int], Encoder], model: _WatchedEmbedder
) -> None:
    make_encoder(8).encode(TEXTS)

    widths = [batch.input_ids.shape[1] for batch in model.batches]
    assert len(widths) > 2
    assert widths == sorted(widths)


def test_an_instruction_is_put_before_each_text_as_in_training(make_encoder: Callable[[int], Encoder]) -> None:
    encoder = make_encoder(64)

    embeddings = encoder.encode(["x", "y"], instruction="Find it.")

    expected = encoder.encode(["Instruct: Find it.\nQuery: x", "Instruct: Find it.\nQuery: y"])
    np.testing.assert_array_equal(embeddings, expected)
    assert np.abs(embeddings - encoder.encode(["x", "y"])).max() > 1e-3


def test_no_texts_give_no_embeddings(make_encoder: Callable[[int], Encoder]) -> None:
    assert make_encoder(64).encode([]).shape == (0, 32)


def test_encoding_builds_no_graph_and_draws_no_dropout(
    make_encoder: Callable[[int], Encoder], model: _WatchedEmbedder
) -> None:
    encoder = make_encoder(64)

    encoder.encode(TEXTS)

    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def folder(model: _WatchedEmbedder, files: TokenizerFiles, tmp_path: Path) -> Path:
    """The files of an exported model that are read."""
    folder = tmp_path / "model"
    model.backbone.save_pretrained(folder)  # type: ignore[operator]
    (folder / "tokenizer.json").write_text(files.tokenizer_json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(files.config_json, encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS}), encoding="utf-8")
    return folder


def test_an_exported_directory_gives_the_models_own_embeddings(
    folder: Path, make_encoder: Callable[[int], Encoder]
) -> None:
    loaded = load_encoder(folder)

    np.testing.assert_allclose(loaded.encode(TEXTS), make_encoder(64).encode(TEXTS), atol=1e-6)


def test_a_model_stored_in_bf16_is_computed_in_fp32_on_a_cpu(
    folder: Path, model: _WatchedEmbedder, make_encoder: Callable[[int], Encoder]
) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.backbone.save_pretrained(folder)  # type: ignore[operator]
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32)

    loaded = load_encoder(folder)

    np.testing.assert_allclose(loaded.encode(TEXTS), make_encoder(64).encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize(("stored", "attention"), [(torch.float32, "sdpa"), (torch.bfloat16, "varlen")])
def test_off_the_cpu_the_stored_precision_decides_the_attention(
    folder: Path, model: _WatchedEmbedder, monkeypatch: pytest.MonkeyPatch, stored: torch.dtype, attention: Attention
) -> None:
    chosen = []

    def build(backbone: nn.Module, *, attention: Attention) -> Embedder:
        chosen.append(attention)
        return Embedder(backbone, attention=attention)

    monkeypatch.setattr("ray_app.models.attention.find_spec", lambda name: None)
    monkeypatch.setattr("ray_app.inference.encoder.Embedder", build)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(stored)
    model.backbone.save_pretrained(folder)  # type: ignore[operator]

    load_encoder(folder, device="meta")

    assert chosen == [attention]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: shutil.rmtree(f), id="no directory"),
        pytest.param(lambda f: (f / "tokenizer.json").unlink(), id="no tokenizer"),
        pytest.param(lambda f: (f / "tokenizer_config.json").write_text("{}"), id="no EOS token"),
        pytest.param(lambda f: (f / "sentence_bert_config.json").write_text("{"), id="damaged settings"),
        pytest.param(lambda f: (f / "config.json").unlink(), id="no configuration"),
        pytest.param(lambda f: (f / "model.safetensors").unlink(), id="no weights"),
        pytest.param(lambda f: (f / "model.safetensors").write_bytes(b"cut"), id="damaged weights"),
    ],
)
def test_a_directory_without_an_exported_model_is_refused_by_name(
    folder: Path, damage: Callable[[Path], object]
) -> None:
    damage(folder)

    with pytest.raises(ModelError) as raised:
        load_encoder(folder)

    assert str(folder) in raised.value.message
    assert raised.value.remedy


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 4000), st.booleans())
def test_every_text_is_embedded_once_with_others_of_similar_length(
    lengths: list[int], most_tokens: int, padded: bool
) -> None:
    groups = group_lengths(np.array(lengths, dtype=np.int32), most_tokens, padded=padded)

    order = [place for group in groups for place in group.tolist()]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[place] for place in order] == sorted(lengths)
    for group in groups:
        texts = [lengths[place] for place in group.tolist()]
        slots = len(texts) * max(texts) if padded else sum(texts)
        assert len(texts) == 1 or slots <= most_tokens
        assert slots - sum(texts) <= max(64, 0.1 * sum(texts))


def test_texts_of_one_length_stay_together() -> None:
    lengths = np.full(300, 7, dtype=np.int32)

    assert [len(group) for group in group_lengths(lengths, 700, padded=True)] == [100, 100, 100]
