"""A small model with random weights, exported as a run exports its own."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3Model

from data_io.curation.tokenizer_training import EOS_TOKEN, train_tokenizer
from data_io.dataset.tokenizer import LoadedTokenizer
from ray_app.export.model_card import CardFacts
from ray_app.export.model_folder import export_model
from ray_app.inference.model_source import make_prompts
from ray_app.job_spec import JobSpec

INSTRUCTION = "Find it."


def export_small_model(
    out: Path, texts: Sequence[str], *, max_tokens: int = 48, seed: int = 0, width: int = 48, layers: int = 2
) -> Path:
    """Write a model directory to `out`, with a tokenizer trained on `texts`. Embeddings have `width` dimensions; other
    sizes are those of a Qwen3 of that width, but not below a minimum.
    """
    trained = train_tokenizer(texts, vocabulary_size=600)
    tokenizer = LoadedTokenizer(trained.tokenizer_json, eos_token=EOS_TOKEN, pad_token=EOS_TOKEN)
    config = Qwen3Config(
        vocab_size=640, hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(2, width // 64),
        num_key_value_heads=max(1, width // 128), head_dim=16 if width < 128 else 64,
        intermediate_size=64 if width < 128 else 3 * width, rope_theta=1_000_000.0, max_position_embeddings=512,
        initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3Model(config).eval()
    job = JobSpec.model_validate({"model": {"architecture": {}, "max_seq_length": max_tokens}, "data": {"uri": "data"}})
    return export_model(
        model,
        tokenizer,
        out,
        card=CardFacts(name=out.name, job=job, data_version="0123abcd", sources=(), steps=3, examples=96),
        max_seq_length=max_tokens,
        prompts=make_prompts({"docs": INSTRUCTION}, query_instruction=INSTRUCTION),
        dtype=torch.float32,
    )
