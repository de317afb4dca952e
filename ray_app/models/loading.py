"""A job spec's backbone and tokenizer, from the Hugging Face Hub or a directory, or built with random weights."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, Qwen3Config, Qwen3Model

from data_io.dataset.tokenizer import LoadedTokenizer, own_tokenizer
from data_io.storage.store import Store
from ray_app.errors import ModelError
from ray_app.job_spec import ModelSpec

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""The type of the weights for each train.precision."""


def build_backbone(spec: ModelSpec, *, vocabulary_size: int, dtype: torch.dtype, seed: int) -> nn.Module:
    """The decoder without its head, on CPU: loaded from the Hub or a directory, or built with random weights.

    Random weights come from `seed`. Raises ModelError if the weights cannot be loaded, or if the tokenizer has more ids
    than the model has token embeddings.
    """
    if spec.architecture is not None:
        config = _built_config(spec, vocabulary_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = Qwen3Model(config)
        for parameter in model.parameters():  # not the buffers: rotary frequencies stay fp32, as in a loaded model
            parameter.data = parameter.data.to(dtype)
    else:
        model = load_pretrained(AutoModel, spec.name_or_path, revision=spec.revision, dtype=dtype)
    rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if vocabulary_size > rows:
        raise ModelError(
            f"the tokenizer has {vocabulary_size} ids, but the model has embeddings for {rows}",
            remedy="set model.tokenizer to the tokenizer that the model was trained with",
        )
    return model


def outline_backbone(spec: ModelSpec, *, vocabulary_size: int) -> nn.Module:
    """The same decoder on the meta device, without values: its parameter names, shapes and configuration.

    Raises ModelError if the configuration cannot be loaded.
    """
    if spec.architecture is not None:
        config = _built_config(spec, vocabulary_size)
    else:
        config = load_pretrained(AutoConfig, spec.name_or_path, revision=spec.revision)
    with torch.device("meta"):
        return AutoModel.from_config(config)  # type: ignore[no-any-return]


def _built_config(spec: ModelSpec, vocabulary_size: int) -> Qwen3Config:
    assert spec.architecture is not None
    return Qwen3Config(
        **spec.architecture.model_dump(),
        # Matrix kernels are faster with a multiple of 64.
        vocab_size=-(-vocabulary_size // 64) * 64,
        max_position_embeddings=max(spec.max_seq_length, 512),
        tie_word_embeddings=True,
        use_cache=False,
    )


def load_tokenizer(spec: ModelSpec, data: Store) -> LoadedTokenizer:
    """The tokenizer that `spec` names, from the Hub or a directory. For a model from scratch: that of the data set.

    Raises ModelError if it cannot be loaded, DataError if that of the data set is missing or damaged.
    """
    if spec.needs_tokenizer_of_data:
        return own_tokenizer(data)
    name, revision = spec.tokenizer_source
    tokenizer = load_pretrained(AutoTokenizer, name, revision=revision)
    # Without a tokenizer file, transformers creates a tokenizer that has only special tokens.
    if not tokenizer.is_fast or tokenizer.eos_token is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"the tokenizer of {name} has no tokenizer.json or no EOS token",
            remedy="use a fast tokenizer (with a tokenizer.json) that has an eos_token",
        )
    return LoadedTokenizer(
        tokenizer.backend_tokenizer.to_str(),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token or tokenizer.eos_token,
    )


def load_pretrained(loader: Any, name: str | None, **options: Any) -> Any:
    """`loader.from_pretrained(name)`. Raises ModelError with the name, the cause and a remedy."""
    try:
        # False, and not the default: on a terminal, the default asks whether to run code of the model.
        return loader.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # transformers and tokenizers raise many classes for damaged files
        first_line = next((line.rstrip(": ") for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(str(name)).is_dir():
            needed = (
                "tokenizer.json and tokenizer_config.json" if loader is AutoTokenizer else "config.json and weights"
            )
            raise ModelError(
                f"cannot load {name!r} from the directory: {first_line}",
                remedy=f"use a directory with complete {needed}",
            ) from error
        raise ModelError(
            f"cannot load {name!r} from the Hugging Face Hub: {first_line}",
            remedy="check the name and the network (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE), or use a local directory",
        ) from error
