"""Embeddings do not depend on packing: each embedding, and its gradient, equals that of the text alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from data_io.dataset.tokenizer import TokenTexts
from ray_app.errors import ModelError
from ray_app.job_spec import ModelSpec, Qwen3Architecture
from ray_app.models.attention import Attention, attention_of, layout_of
from ray_app.models.embedder import Embedder
from ray_app.models.loading import build_backbone
from ray_app.models.packing import PackedBatch, pack
from tests.support.slow_kernels import Calls, replace_gpu_kernels

VOCABULARY = 90
# With the usual 0.02 all embeddings of such a small model are almost equal, and tests would not detect errors. Two
# query heads share a key head, and there are two key heads.
SPEC = ModelSpec(
    architecture=Qwen3Architecture(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=48,
        initializer_range=0.15,
    )
)  # fmt: skip
ATTENTIONS: tuple[Attention, ...] = ("sdpa", "varlen", "flash_attention_2")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return replace_gpu_kernels(monkeypatch)


def _texts(*lengths: int) -> TokenTexts:
    """Random texts; their tokens include the padding id 0."""
    ids = np.random.default_rng(list(lengths)).integers(0, VOCABULARY, sum(lengths), dtype=np.int32)
    return TokenTexts(ids, np.array(lengths, dtype=np.int32))


MIXED = _texts(7, 1, 19, 2, 1, 30, 12, 3, 1, 5, 30, 8)
ONES = _texts(1, 1, 1)
SINGLE = _texts(17)
BATCHES = pytest.mark.parametrize("texts", [MIXED, ONES, SINGLE], ids=["mixed", "all of length 1", "one text"])


def _model(
    attention: Attention = "sdpa", *, dtype: torch.dtype = torch.float32, gradient_checkpointing: bool = False
) -> Embedder:
    backbone = build_backbone(SPEC, vocabulary_size=VOCABULARY, dtype=dtype, seed=1)
    return Embedder(backbone, attention=attention, gradient_checkpointing=gradient_checkpointing).train()


def _of_another_kind(attention: Attention) -> Embedder:
    """A decoder that is not a Qwen3."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, initializer_range=0.15,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Embedder(LlamaModel(config), attention=attention).train()


def _embed(model: Embedder, texts: TokenTexts) -> Tensor:
    return model(pack(texts.ids, texts.lengths, layout=model.layout))  # type: ignore[no-any-return]


def _alone(model: Embedder, texts: TokenTexts) -> Tensor:
    """The reference: transformers' eager attention, one pass per text, without packing, mask or padding."""
    model.backbone.set_attn_implementation("eager")  # type: ignore[operator]
    ends = np.cumsum(texts.lengths)
    states = [
        model.backbone(torch.from_numpy(texts.ids[end - n : end].astype(np.int64))[None]).last_hidden_state[0, -1]
        for end, n in zip(ends, texts.lengths, strict=True)
    ]
    return F.normalize(torch.stack(states), dim=-1)


def _gradients(model: Embedder, embeddings_ND: Tensor) -> dict[str, Tensor]:
    """Gradients of a loss in which every text and every dimension has its own weight."""
    weights_ND = torch.from_numpy(np.random.default_rng(0).standard_normal(tuple(embeddings_ND.shape)))
    (embeddings_ND * weights_ND).sum().backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _assert_equal_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor], *, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        difference = float((actual[name] - gradient).abs().max())
        assert difference <= tolerance * scale, f"{name}: wrong by {difference:.3g}, the largest is {scale:.3g}"


@BATCHES
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_each_embedding_equals_that_of_the_text_alone(kernels: Calls, attention: Attention, texts: TokenTexts) -> None:
    expected = _alone(_model(), texts)

    embeddings = _embed(_model(attention), texts)

    torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)


@BATCHES
@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_gradients_equal_those_of_each_text_alone(
    kernels: Calls, attention: Attention, gradient_checkpointing: bool, texts: TokenTexts
) -> None:
    reference = _model()
    model = _model(attention, gradient_checkpointing=gradient_checkpointing)

    expected = _gradients(reference, _alone(reference, texts))
    actual = _gradients(model, _embed(model, texts))

    _assert_equal_gradients(actual, expected, tolerance=1e-6)


@pytest.mark.parametrize("attention", ATTENTIONS[:2])  # transformers looks for the kernel's package in the third
def test_a_decoder_other_than_qwen3_has_the_same_property(kernels: Calls, attention: Attention) -> None:
    reference, model = _of_another_kind("sdpa"), _of_another_kind(attention)

    expected, embeddings = _alone(reference, MIXED), _embed(model, MIXED)

    torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=0)
    _assert_equal_gradients(_gradients(model, embeddings), _gradients(reference, expected), tolerance=1e-6)


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_last_feed_forward_layer_processes_only_the_embedded_tokens(
    kernels: Calls, attention: Attention, gradient_checkpointing: bool
) -> None:
    model = _model(attention, gradient_checkpointing=gradient_checkpointing)
    seen: dict[str, set[int]] = {}
    for name, module in model.named_modules():
        if name.endswith(".mlp"):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.setdefault(name, set()).add(inputs[0][..., 0].numel())
            )
    batch = pack(MIXED.ids, MIXED.lengths, layout=model.layout)

    model(batch).sum().backward()

    assert seen == {"backbone.layers.0.mlp": {batch.slots}, "backbone.layers.1.mlp": {len(MIXED.lengths)}}
    assert len(MIXED.lengths) < batch.slots


@DTYPES
@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_the_sequence_of_a_gpu_and_the_rows_of_a_cpu_give_the_same(
    kernels: Calls, attention: Attention, dtype: torch.dtype
) -> None:
    rows, sequence = _model(dtype=dtype), _model(attention, dtype=dtype)

    by_rows, by_sequence = _embed(rows, MIXED), _embed(sequence, MIXED)

    assert by_rows.dtype == by_sequence.dtype == dtype
    # Qwen3's norms and rotary angles are always fp32, so fp64 gains little here.
    torch.testing.assert_close(by_sequence, by_rows, atol=1e-6, rtol=0)
    _assert_equal_gradients(_gradients(sequence, by_sequence), _gradients(rows, by_rows), tolerance=1e-6)
    assert kernels[attention]


@pytest.mark.parametrize("gradient_checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_the_kernels_get_our_boundaries_in_every_layer(
    kernels: Calls, attention: Attention, gradient_checkpointing: bool
) -> None:
    """Not boundaries that transformers derives from the positions: these would wait for the GPU in each layer."""
    model = _model(attention, gradient_checkpointing=gradient_checkpointing)
    batch = pack(MIXED.ids, MIXED.lengths, layout="sequence")

    model(batch).sum().backward()

    passes = 2 if gradient_checkpointing else 1
    assert len(kernels[attention]) == passes * len(model.backbone.layers)  # type: ignore[arg-type]
    for call in kernels[attention]:
        assert all(bounds is batch.cu_seqlens for bounds in call["cu_seqlens"])
        assert call["max_lengths"] == (30, 30)
        assert all(type(length) is int for length in call["max_lengths"])
        assert call["causal"]


@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_no_mask_is_made_for_a_sequence(kernels: Calls, attention: Attention, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mask, transformers would derive the boundaries from it and ignore ours."""
    model = _model(attention)
    masks: list[object] = []
    layer: nn.Module = model.backbone.layers[0]  # type: ignore[index, assignment]
    layer.register_forward_pre_hook(lambda *a: masks.append(a[2]["attention_mask"]), with_kwargs=True)

    _embed(model, MIXED)

    assert masks == [None]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_order_of_texts_changes_nothing_but_the_order_of_embeddings(kernels: Calls, attention: Attention) -> None:
    order = np.random.default_rng(3).permutation(len(MIXED.lengths))
    ends = np.cumsum(MIXED.lengths)
    ids = np.concatenate([MIXED.ids[ends[i] - MIXED.lengths[i] : ends[i]] for i in order])
    model = _model(attention)

    shuffled = _embed(model, TokenTexts(ids, MIXED.lengths[order]))

    torch.testing.assert_close(shuffled, _embed(model, MIXED)[order], atol=1e-5, rtol=0)


def _with_other_filler(batch: PackedBatch) -> PackedBatch:
    assert batch.segment_RL is not None
    filler = batch.segment_RL < 0
    noise = torch.randint(1, VOCABULARY, batch.input_ids.shape, generator=torch.Generator().manual_seed(0))
    return replace(
        batch,
        input_ids=torch.where(filler, noise, batch.input_ids),
        position_ids=torch.where(filler, noise, batch.position_ids),
    )


@DTYPES
def test_padding_does_not_change_embeddings(dtype: torch.dtype) -> None:
    batch = pack(MIXED.ids, MIXED.lengths, layout="rows")
    model, other_model = _model(dtype=dtype), _model(dtype=dtype)

    embeddings, others = model(batch), other_model(_with_other_filler(batch))

    assert batch.slots > batch.tokens
    assert torch.equal(embeddings, others)
    gradients, other_gradients = _gradients(model, embeddings), _gradients(other_model, others)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    _assert_equal_gradients(other_gradients, gradients, tolerance=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_embeddings_are_fp32_and_of_length_one(dtype: torch.dtype) -> None:
    embeddings = _embed(_model(dtype=dtype), MIXED)

    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (len(MIXED.lengths), 32)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(len(MIXED.lengths)))


@pytest.mark.parametrize(("gradient_checkpointing", "passes"), [(False, 1), (True, 2)])
def test_checkpointing_computes_each_layer_once_more(gradient_checkpointing: bool, passes: int) -> None:
    model = _model(gradient_checkpointing=gradient_checkpointing)
    seen: list[str] = []
    for name, module in model.named_modules():
        if name.endswith(".mlp"):
            module.register_forward_pre_hook(lambda *_, name=name: seen.append(name))

    _embed(model, MIXED).sum().backward()  # type: ignore[no-untyped-call]

    assert sorted(seen) == sorted(["backbone.layers.0.mlp", "backbone.layers.1.mlp"] * passes)


@pytest.mark.parametrize(
    ("wanted", "device", "attention"),
    [("auto", "cpu", "sdpa"), ("sdpa", "cpu", "sdpa"), ("sdpa", "cuda", "sdpa"), ("varlen", "cuda", "varlen")],
)
def test_the_job_spec_chooses_the_attention(wanted: Any, device: str, attention: Attention) -> None:
    spec = SPEC.model_copy(update={"attn_implementation": wanted})

    assert attention_of(spec, torch.device(device), torch.bfloat16) == attention


@pytest.mark.parametrize(("installed", "attention"), [(True, "flash_attention_2"), (False, "varlen")])
def test_a_gpu_gets_flash_attn_if_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: bool, attention: Attention
) -> None:
    monkeypatch.setattr(
        "ray_app.models.attention.find_spec", lambda name: name if installed and name == "flash_attn" else None
    )

    chosen = attention_of(SPEC, torch.device("cuda"), torch.bfloat16)

    assert chosen == attention
    assert layout_of(chosen) == "sequence"


@pytest.mark.parametrize("installed", [True, False])
def test_fp32_gets_sdpa_on_a_gpu_because_the_kernels_accept_only_16_bits(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(
        "ray_app.models.attention.find_spec", lambda name: name if installed and name == "flash_attn" else None
    )

    chosen = attention_of(SPEC, torch.device("cuda"), torch.float32)

    assert chosen == "sdpa"


@pytest.mark.parametrize("wanted", ["varlen", "flash_attention_2"])
def test_a_gpu_kernel_is_refused_on_a_cpu(wanted: Any) -> None:
    spec = SPEC.model_copy(update={"attn_implementation": wanted})

    with pytest.raises(ModelError, match=f"attn_implementation={wanted} needs a GPU") as raised:
        attention_of(spec, torch.device("cpu"), torch.float32)

    assert "auto" in str(raised.value.remedy)


def test_a_token_costs_six_operations_per_weight_that_it_uses() -> None:
    qwen3, other = _model(), _of_another_kind("sdpa")

    table, layers, feed_forward = 128 * 32, _weights(qwen3.backbone), 3 * 32 * 48
    assert qwen3.flops_per_token == 6 * (layers - table - feed_forward)
    assert other.flops_per_token == 6 * (_weights(other.backbone) - VOCABULARY * 32)


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
