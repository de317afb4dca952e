"""The sources of the backbone and the tokenizer, and the errors if they cannot be loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from data_io.curation.tokenizer_training import EOS_TOKEN, TokenizerFiles, save_tokenizer, train_tokenizer
from data_io.storage.store import open_store
from ray_app.errors import ModelError
from ray_app.job_spec import ModelSpec, Qwen3Architecture
from ray_app.models.loading import build_backbone, load_tokenizer

VOCABULARY = 300
SMALL = ModelSpec(architecture=Qwen3Architecture(hidden_size=16, head_dim=8, intermediate_size=24))
TEXTS = ["join two paths", "read a file", "naïve 文字", f"a text that names {EOS_TOKEN}"]


def _build(spec: ModelSpec, *, vocabulary_size: int = VOCABULARY, seed: int = 0) -> Qwen3Model:
    return build_backbone(spec, vocabulary_size=vocabulary_size, dtype=torch.float32, seed=seed)


@pytest.fixture(scope="module")
def tokenizer_files() -> TokenizerFiles:
    return train_tokenizer(TEXTS, vocabulary_size=VOCABULARY)


@pytest.fixture(scope="module")
def complete(tokenizer_files: TokenizerFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory like a published one: with a head and a tokenizer."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=320, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=24,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_files.tokenizer_json, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(tokenizer_files.config_json, encoding="utf-8")
    return folder


@pytest.fixture
def folder(complete: Path, tmp_path: Path) -> Path:
    """A copy of the model directory that a test can damage."""
    return shutil.copytree(complete, tmp_path / "model")


def test_the_same_seed_builds_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (_build(SMALL, seed=seed).state_dict() for seed in (7, 7, 8))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed_tokens.weight"], other["embed_tokens.weight"])


def test_building_does_not_change_the_global_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)

    _build(SMALL)

    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("vocabulary_size", "rows"), [(1, 64), (64, 64), (65, 128), (300, 320)])
def test_a_built_model_embeds_every_id_in_a_multiple_of_64_rows(vocabulary_size: int, rows: int) -> None:
    assert _build(SMALL, vocabulary_size=vocabulary_size).embed_tokens.num_embeddings == rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_backbone_has_the_requested_precision_and_no_head(complete: Path, dtype: torch.dtype) -> None:
    spec = ModelSpec(name_or_path=str(complete))

    backbone = build_backbone(spec, vocabulary_size=VOCABULARY, dtype=dtype, seed=0)

    assert isinstance(backbone, Qwen3Model)
    assert {parameter.dtype for parameter in backbone.parameters()} == {dtype}


@pytest.mark.parametrize("published", [False, True], ids=["built", "loaded"])
def test_rotary_frequencies_are_fp32_in_every_precision(complete: Path, published: bool) -> None:
    """In bf16 they are wrong by up to a radian at position 1024, and differ from those of the exported model."""
    spec = ModelSpec(name_or_path=str(complete)) if published else SMALL
    expected = dict(_build(spec).named_buffers())

    backbone = build_backbone(spec, vocabulary_size=VOCABULARY, dtype=torch.bfloat16, seed=0)

    buffers = dict(backbone.named_buffers())
    assert "rotary_emb.inv_freq" in buffers
    assert all(torch.equal(buffer, expected[name]) for name, buffer in buffers.items())


def test_loaded_weights_are_the_published_ones(complete: Path) -> None:
    published = Qwen3ForCausalLM.from_pretrained(complete).model.state_dict()

    loaded = _build(ModelSpec(name_or_path=str(complete)), seed=9).state_dict()

    assert loaded.keys() == published.keys()
    assert all(torch.equal(loaded[name], published[name]) for name in published)


def test_a_tokenizer_with_more_ids_than_the_model_embeds_is_refused(complete: Path) -> None:
    spec = ModelSpec(name_or_path=str(complete))

    with pytest.raises(ModelError, match="the tokenizer has 321 ids, but the model has embeddings for 320") as raised:
        _build(spec, vocabulary_size=321)

    assert "model.tokenizer" in str(raised.value.remedy)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no/such/folder/here", "/no/such/folder", "not a name!"])
@pytest.mark.parametrize("load", [_build, lambda spec: load_tokenizer(spec, open_store("memory://"))])
def test_a_model_that_is_neither_a_directory_nor_reachable_is_named_with_a_remedy(
    name: str, load: Callable[[ModelSpec], object]
) -> None:
    with pytest.raises(ModelError) as raised:
        load(ModelSpec(name_or_path=name))

    assert repr(name) in raised.value.message
    assert len(raised.value.message.splitlines()) == 1
    assert "HF_HUB_OFFLINE" in str(raised.value.remedy)
    assert "local directory" in str(raised.value.remedy)


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda f: (f / "config.json").unlink(), id="no configuration"),
        pytest.param(lambda f: _cut(f / "config.json", 40), id="configuration cut"),
        pytest.param(lambda f: _edit(f / "config.json", model_type="no-such-type"), id="unknown model"),
        pytest.param(lambda f: (f / "model.safetensors").unlink(), id="no weights"),
        pytest.param(lambda f: _cut(f / "model.safetensors", 5), id="weights cut in the header"),
        pytest.param(lambda f: _cut(f / "model.safetensors", 9000), id="weights cut"),
        pytest.param(lambda f: _edit(f / "config.json", hidden_size=32), id="weights of another size"),
    ],
)
def test_a_damaged_model_directory_is_refused_with_its_name(folder: Path, damage: Callable[[Path], object]) -> None:
    damage(folder)

    with pytest.raises(ModelError) as raised:
        _build(ModelSpec(name_or_path=str(folder)))

    assert str(folder) in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize("missing", [["tokenizer.json", "tokenizer_config.json"], ["tokenizer.json"]], ids=len)
def test_a_directory_without_a_tokenizer_is_refused(folder: Path, missing: list[str]) -> None:
    """If both files are missing, transformers creates a tokenizer for which all texts are empty."""
    for name in missing:
        (folder / name).unlink()

    with pytest.raises(ModelError) as raised:
        load_tokenizer(ModelSpec(name_or_path=str(folder)), open_store("memory://"))

    assert str(folder) in raised.value.message


def test_a_tokenizer_without_an_eos_token_is_refused(folder: Path) -> None:
    _edit(folder / "tokenizer_config.json", eos_token=None, tokenizer_class="PreTrainedTokenizerFast")

    with pytest.raises(ModelError, match="no EOS token"):
        load_tokenizer(ModelSpec(name_or_path=str(folder)), open_store("memory://"))


def test_a_model_from_scratch_uses_the_data_sets_tokenizer(tokenizer_files: TokenizerFiles, tmp_path: Path) -> None:
    data = open_store(str(tmp_path))
    save_tokenizer(data, tokenizer_files)

    loaded = load_tokenizer(SMALL, data)

    assert loaded.tokenizer_json == tokenizer_files.tokenizer_json
    assert (loaded.eos_token, loaded.pad_token) == (EOS_TOKEN, EOS_TOKEN)


@pytest.mark.parametrize("spec", ["name_or_path", "tokenizer"])
def test_a_named_tokenizer_gives_the_ids_of_its_file(
    spec: str, complete: Path, tokenizer_files: TokenizerFiles, tmp_path: Path
) -> None:
    model = ModelSpec.model_validate({"architecture": {} if spec == "tokenizer" else None, spec: str(complete)})
    data = open_store(str(tmp_path))
    save_tokenizer(data, tokenizer_files)
    expected = load_tokenizer(SMALL, data).for_texts(12).encode(TEXTS)

    tokens = load_tokenizer(model, open_store("memory://")).for_texts(12).encode(TEXTS)

    assert tokens.lengths.tolist() == expected.lengths.tolist()
    assert tokens.ids.tolist() == expected.ids.tolist()
