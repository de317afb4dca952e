"""The exported directory, field by field, as the usual servers read it.

The fields that each server reads are taken from its source code: vLLM `transformers_utils/config.py`
(get_pooling_config, get_sentence_transformer_tokenizer_config), text-embeddings-inference `router/src/lib.rs`
(ModelConfig, PoolConfig, STConfig) and `backends/candle/src/models/qwen3.rs` (Qwen3Config). Infinity loads the
directory with sentence-transformers, which test_model_folder.py tests.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from tests.support.exported import INSTRUCTION, export_small_model

MAX_TOKENS = 24
TEXTS = ["how to join paths", "a long text about files and directories " * 20]
PROMPT = f"Instruct: {INSTRUCTION}\nQuery: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_small_model(tmp_path_factory.mktemp("export") / "model", TEXTS, max_tokens=MAX_TOKENS)


def content(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_vllm_makes_an_embedding_model_of_the_architecture(folder: Path) -> None:
    """A name that ends with Model is converted for embedding without an option; ForCausalLM would generate text."""
    (architecture,) = content(folder, "config.json")["architectures"]

    assert architecture == "Qwen3Model"


def test_vllm_pools_the_last_token_and_normalizes(folder: Path) -> None:
    modules = content(folder, "modules.json")
    types = [module["type"] for module in modules]
    pooling = modules[types.index("sentence_transformers.models.Pooling")]

    settings = content(folder, f"{pooling['path']}/config.json")

    # Versions before 0.11 take the first field that is true, later ones each that names a way of pooling.
    assert next(name for name, value in settings.items() if value is True) == "pooling_mode_lasttoken"
    assert [n for n, value in settings.items() if n.startswith("pooling_mode") and value] == ["pooling_mode_lasttoken"]
    assert "sentence_transformers.models.Normalize" in types


def test_vllm_takes_the_limit_of_a_text_from_sentence_bert_config(folder: Path) -> None:
    settings = content(folder, "sentence_bert_config.json")

    assert settings["max_seq_length"] == MAX_TOKENS
    assert settings["do_lower_case"] is False
    assert content(folder, "config.json")["max_position_embeddings"] >= MAX_TOKENS


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("architectures", list), ("model_type", str), ("max_position_embeddings", int), ("pad_token_id", int),
        ("attention_bias", bool), ("vocab_size", int), ("head_dim", int), ("hidden_size", int),
        ("intermediate_size", int), ("num_hidden_layers", int), ("num_attention_heads", int),
        ("num_key_value_heads", int), ("hidden_act", str), ("rms_norm_eps", float), ("rope_theta", float),
        ("sliding_window", int | None), ("use_sliding_window", bool), ("eos_token_id", int),
    ],
)  # fmt: skip
def test_text_embeddings_inference_finds_every_field_of_its_model_in_its_type(
    folder: Path, field: str, kind: type
) -> None:
    found = content(folder, "config.json")[field]

    assert isinstance(found, kind)
    assert not isinstance(found, bool) or kind is bool


def test_text_embeddings_inference_pools_the_last_token_of_a_model_that_it_has(folder: Path) -> None:
    settings, config = content(folder, "1_Pooling/config.json"), content(folder, "config.json")

    flags = {name: value for name, value in settings.items() if name.startswith("pooling_mode_")}
    assert {"pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_max_tokens"} < flags.keys()
    assert [name for name, value in flags.items() if value is not False] == ["pooling_mode_lasttoken"]
    assert settings["word_embedding_dimension"] == config["hidden_size"]
    # It refuses the sliding window, and reads the rotary base at the top level.
    assert (config["model_type"], config["use_sliding_window"]) == ("qwen3", False)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]


def test_weights_have_the_names_of_the_architecture(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "np") as weights:
        names, embeddings = set(weights.keys()), weights.get_slice("embed_tokens.weight").get_shape()
    config = content(folder, "config.json")

    assert {"norm.weight", "layers.0.self_attn.q_norm.weight", "layers.1.mlp.gate_proj.weight"} < names
    assert not any(name.startswith(("model.", "lm_head")) for name in names)
    assert embeddings == [config["vocab_size"], config["hidden_size"]]


@pytest.mark.parametrize("text", TEXTS, ids=["short", "long"])
def test_a_server_that_reads_tokenizer_json_alone_closes_every_text_with_one_eos(folder: Path, text: str) -> None:
    """text-embeddings-inference uses neither the settings of transformers nor padding, and truncates by itself."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    eos = content(folder, "config.json")["eos_token_id"]

    ids = tokenizer.encode(text).ids

    assert len(ids) <= MAX_TOKENS
    assert (ids[-1], ids.count(eos)) == (eos, 1)


def test_the_tokens_of_the_tokenizers_settings_are_those_of_the_configuration(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings, config = content(folder, "tokenizer_config.json"), content(folder, "config.json")

    assert tokenizer.token_to_id(settings["eos_token"]) == config["eos_token_id"]
    assert tokenizer.token_to_id(settings["pad_token"]) == config["pad_token_id"]
    assert (settings["padding_side"], settings["model_max_length"]) == ("right", MAX_TOKENS)
    assert tokenizer.padding is None
    assert tokenizer.truncation is None


def test_prompts_are_found_by_name_and_none_is_added_by_default(folder: Path) -> None:
    settings = content(folder, "config_sentence_transformers.json")

    assert settings["prompts"] == {"docs": PROMPT, "query": PROMPT, "document": ""}
    assert settings["default_prompt_name"] is None
    assert settings["similarity_fn_name"] == "cosine"
