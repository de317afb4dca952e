"""Writes `model/`: a directory that sentence-transformers, transformers and serving stacks load.

The layout is the oldest one of sentence-transformers, which every version from 3.0 loads.
"""

import copy
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from data_io.dataset.tokenizer import LoadedTokenizer
from data_io.storage.folder_copy import read_json
from ray_app.checkpointing.weights import Shapes, Weights, groups
from ray_app.errors import ModelError
from ray_app.export.model_card import CardFacts, render_card

_FILE_BYTES = 2 << 30
# The oldest version that reads all these files. A newer number would only cause warnings in older versions.
_SENTENCE_TRANSFORMERS = "3.0.0"


def export_model(
    model: Any,
    tokenizer: LoadedTokenizer,
    out: Path,
    *,
    card: CardFacts,
    max_seq_length: int,
    prompts: Mapping[str, str],
    dtype: torch.dtype,
    weights: Weights | None = None,
) -> Path:
    """Write the model to the directory `out`, replace an existing directory, and return `out`.

    `model` is a transformers decoder, with or without its head. It is not changed. If the model is an outline without
    weights, `weights` are read and written part by part. Weights are written as `dtype`. `prompts` maps names,
    including `query`, to the prompt before a text (`model_source.make_prompts`). The directory appears under its name
    only when it is complete. Raises ModelError if tokenizer and model do not match.
    """
    backbone = model.base_model
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        eos_id, pad_id = _write_tokenizer(
            partial, tokenizer, max_seq_length, rows=backbone.get_input_embeddings().num_embeddings
        )
        write_weights(partial, weights or _LoadedWeights(backbone), dtype)
        _write_config(
            partial, backbone, dtype, eos_id=eos_id, pad_id=pad_id, matryoshka_dims=card.job.train.matryoshka_dims
        )
        _write_modules(partial, backbone.config.hidden_size, max_seq_length, prompts)
        rewrite_card(partial, card)
        put_in_place(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def rewrite_card(folder: Path, card: CardFacts) -> None:
    """Replace the card of a model directory, for example to add results. Other files do not change."""
    readme = render_card(
        card,
        prompts=read_json(folder / "config_sentence_transformers.json")["prompts"],
        max_seq_length=read_json(folder / "sentence_bert_config.json")["max_seq_length"],
        embedding_dimension=read_json(folder / "config.json")["hidden_size"],
        eos_token=read_json(folder / "tokenizer_config.json")["eos_token"],
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")


def _write_tokenizer(folder: Path, tokenizer: LoadedTokenizer, max_seq_length: int, *, rows: int) -> tuple[int, int]:
    """Write tokenizer.json and its settings. Returns the ids of the EOS at the end of every text, and of padding."""
    backend = Tokenizer.from_str(tokenizer.tokenizer_json)
    eos_id = backend.token_to_id(tokenizer.eos_token)
    if eos_id is None or eos_id >= rows:
        raise ModelError(
            f"the tokenizer's EOS {tokenizer.eos_token!r} has id {eos_id}, but the model embeds only ids below {rows}",
            remedy="export with the tokenizer that the model was trained with",
        )
    # A padding token without a row in the model's embeddings would break every padded batch. The EOS is a safe
    # replacement, because masks come from the tokenizer's padding and never from comparing ids.
    pad_id = backend.token_to_id(tokenizer.pad_token)
    if pad_id is None or pad_id >= rows:
        pad_id = eos_id
    pad_token = backend.id_to_token(pad_id)
    # Truncation counts the tokens that a post-processor adds, so a text of any length ends with the EOS.
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {tokenizer.eos_token}",
        pair=f"$A $B {tokenizer.eos_token}",
        special_tokens=[(tokenizer.eos_token, eos_id)],
    )
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        # This class uses tokenizer.json unchanged. A model's own tokenizer class rebuilds parts of it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_length,
        "eos_token": tokenizer.eos_token,
        "pad_token": pad_token,
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        # Without this, versions before 5 also pass token_type_ids, which decoders reject.
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(_json(settings), encoding="utf-8")
    return eos_id, pad_id


class _LoadedWeights:
    """The weights of a model in memory."""

    def __init__(self, backbone: Any) -> None:
        self._state = backbone.state_dict()
        self.shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in self._state.items()}

    def read(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        return {name: self._state[name].detach() for name in names}


def write_weights(folder: Path, weights: Weights, dtype: torch.dtype) -> None:
    """Write safetensors files, and an index if there are several. Memory holds one file and one part of the weights."""
    shapes = weights.shapes
    split = split_state_dict_into_shards_factory(
        dict(shapes),
        get_storage_size=lambda shape: torch.Size(shape).numel() * dtype.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_FILE_BYTES,
    )
    for file, names in split.filename_to_tensors.items():
        tensors: dict[str, torch.Tensor] = {}
        for some in groups(names, shapes):
            tensors |= {name: found.to("cpu", dtype).contiguous() for name, found in weights.read(some).items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(_json(index), encoding="utf-8")


def _write_config(
    folder: Path, backbone: Any, dtype: torch.dtype, *, eos_id: int, pad_id: int, matryoshka_dims: Sequence[int]
) -> None:
    config = copy.deepcopy(backbone.config)
    config.architectures = [type(backbone).__name__]
    config.dtype = dtype
    config.eos_token_id = eos_id
    config.pad_token_id = pad_id  # text-embeddings-inference rejects null
    content = json.loads(config.to_json_string())
    # transformers 4 knows only `rope_theta`. Without it, transformers 4 would use another base without a warning.
    rope = content.get("rope_parameters") or {}
    if "rope_theta" in rope:
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        content["rope_theta"] = rope["rope_theta"]
        content["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    if matryoshka_dims:  # vLLM's name; without it vLLM refuses requests for fewer dimensions
        content["matryoshka_dimensions"] = sorted({*matryoshka_dims, config.hidden_size})
    (folder / "config.json").write_text(_json(content), encoding="utf-8")


def _write_modules(folder: Path, dimension: int, max_seq_length: int, prompts: Mapping[str, str]) -> None:
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    pooling = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    contents: dict[str, object] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (name, path) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": dimension,
            **{f"pooling_mode_{mode}": mode == "lasttoken" for mode in pooling},
            "include_prompt": True,
        },
        "sentence_bert_config.json": {"max_seq_length": max_seq_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "__version__": {"sentence_transformers": _SENTENCE_TRANSFORMERS},
            "prompts": dict(prompts),
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(_json(content), encoding="utf-8")


def put_in_place(partial: Path, out: Path) -> None:
    """Rename `partial` to `out`. An existing directory stays complete until it is replaced."""
    end_replacing(partial, out)
    if out.exists():
        out.rename(_replaced(partial))
    partial.rename(out)
    shutil.rmtree(_replaced(partial), ignore_errors=True)


def end_replacing(partial: Path, out: Path) -> None:
    """Clean up after a killed `put_in_place`: restore the older directory if `out` does not exist, else remove it."""
    if out.exists():
        shutil.rmtree(_replaced(partial), ignore_errors=True)
    elif _replaced(partial).exists():
        _replaced(partial).rename(out)


def _replaced(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}-old")


def _json(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
