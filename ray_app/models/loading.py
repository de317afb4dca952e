"""A job spec's backbone and tokenizer: loaded from the hub or a directory, or built with random weights."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, Qwen3Config, Qwen3Model

from data_io.dataset.tokenizer import LoadedTokenizer, own_tokenizer
from data_io.storage.store import Store
from ray_app.errors import ModelError
from ray_app.job_spec import ModelSpec

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""The type of the weights under each train.precision."""


def build_backbone(spec: ModelSpec, *, vocabulary_size: int, dtype: torch.dtype, seed: int) -> nn.Module:
    """The decoder without its head, on CPU: loaded from the hub or a directory, or built with random weights from `seed`.

    Raises ModelError where the weights cannot be had, or the tokenizer has more ids than the model has embeddings.
    """
    if spec.architecture is not None:
        config = _built_config(spec, vocabulary_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = Qwen3Model(config)
        for parameter in model.parameters():  # and not the buffers: rotary frequencies stay fp32, as in a loaded model
            parameter.data = parameter.data.to(dtype)
    else:
        model = load_pretrained(AutoModel, spec.name_or_path, revision=spec.revision, dtype=dtype)
    rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if vocabulary_size > rows:
        raise ModelError(
            f"the tokenizer has {vocabulary_size} ids, the model embeds {rows}",
            remedy="set model.tokenizer to the one the model was trained with",
        )
    return model


def outline_backbone(spec: ModelSpec, *, vocabulary_size: int) -> nn.Module:
    """The same decoder without values, on the meta device: its names, shapes and configuration.

    Raises ModelError where the configuration cannot be had.
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
        # A multiple of 64, as matrix kernels like it.
        vocab_size=-(-vocabulary_size // 64) * 64,
        max_position_embeddings=max(spec.max_seq_length, 512),
        tie_word_embeddings=True,
        use_cache=False,
    )


def load_tokenizer(spec: ModelSpec, data: Store) -> LoadedTokenizer:
    """The tokenizer `spec` names: the hub's or a directory's; for a model built from nothing, the data set's own.

    Raises ModelError where there is none, DataError where the data set has none or a damaged one.
    """
    if spec.needs_tokenizer_of_data:
        return own_tokenizer(data)
    tokenizer = load_pretrained(AutoTokenizer, spec.tokenizer or spec.name_or_path, revision=spec.revision)
    # Where there is no file, transformers makes a tokenizer that knows special tokens alone.
    if not tokenizer.is_fast or tokenizer.eos_token is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"the tokenizer of {spec.tokenizer or spec.name_or_path} has no tokenizer.json or no EOS token",
            remedy="name a tokenizer in the fast format, with an eos_token",
        )
    return LoadedTokenizer(
        tokenizer.backend_tokenizer.to_str(),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token or tokenizer.eos_token,
    )


def load_pretrained(loader: Any, name: str | None, **options: Any) -> Any:
    """`loader.from_pretrained(name)`. Raises ModelError that says what was looked for and what to do."""
    try:
        return loader.from_pretrained(name, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0].rstrip(": ")
        if Path(str(name)).is_dir():
            needed = (
                "tokenizer.json and tokenizer_config.json" if loader is AutoTokenizer else "config.json and weights"
            )
            raise ModelError(
                f"cannot load {name!r} from the directory: {first_line}",
                remedy=f"give a directory that holds {needed}, whole",
            ) from error
        raise ModelError(
            f"cannot load {name!r} from the Hugging Face hub: {first_line}",
            remedy="check the name and the network (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE), or give a local directory",
        ) from error
