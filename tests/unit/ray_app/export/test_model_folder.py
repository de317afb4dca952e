"""The exported directory, loaded the way its users load it, against a reference that embeds one text at a time."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3Model

from data_io.dataset.tokenizer import LoadedTokenizer, TextTokenizer
from data_io.errors import StorageError
from data_io.storage.folder_copy import upload_folder
from data_io.storage.store import Store, open_store
from ray_app.errors import ModelError
from ray_app.export.model_card import CardFacts
from ray_app.export.model_folder import end_replacing, export_model, put_in_place, rewrite_card
from ray_app.inference.model_source import find_exported, make_prompts
from ray_app.job_spec import JobSpec, TrainSpec
from ray_app.run_directory.evaluation_report import EvaluationReport

# These libraries load the model. Their own deprecation warnings are not tested here.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

EOS = "<|endoftext|>"
MAX_TOKENS = 24
TEXTS = [
    "how to join paths",
    "",
    "x",
    "a long text about files and directories " * 20,
    f"a text that names {EOS} itself",
    "naïve 文字",
]
PROMPTS = make_prompts({"docs": "Find the topic.", "labels": ""}, query_instruction="Answer the question.")

Reference = Callable[[str], npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def tokenizer() -> LoadedTokenizer:
    """A byte-level BPE with a text splitter that is not Qwen's own, and the EOS as padding."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        [*TEXTS, "Instruct: Find the topic.\nQuery: how to read files and directories"] * 3, trainer
    )
    return LoadedTokenizer(backend.to_str(), eos_token=EOS, pad_token=EOS)


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=448, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
        intermediate_size=64, rope_theta=1_000_000.0, max_position_embeddings=512, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    return Qwen3Model(config).eval()


@pytest.fixture(scope="module")
def facts() -> CardFacts:
    job = JobSpec.model_validate(
        {"model": {"architecture": {}, "max_seq_length": MAX_TOKENS}, "data": {"uri": "data"}},
    )
    return CardFacts(name="demo", job=job, data_version="0123abcd", sources=(), steps=3, examples=96)


@pytest.fixture(scope="module")
def folder(
    model: Qwen3Model, tokenizer: LoadedTokenizer, facts: CardFacts, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("export") / "model"
    return export_model(
        model, tokenizer, out, card=facts, max_seq_length=MAX_TOKENS, prompts=PROMPTS, dtype=torch.float32
    )


@pytest.fixture(scope="module")
def reference(model: Qwen3Model, tokenizer: LoadedTokenizer) -> Reference:
    """One text alone, tokenized as in training, its last state normalized."""
    texts = tokenizer.for_texts(MAX_TOKENS)

    def embed(text: str) -> npt.NDArray[np.float32]:
        ids = torch.from_numpy(texts.encode([text]).ids.astype(np.int64))[None]
        with torch.inference_mode():
            state = model(ids).last_hidden_state[0, -1]
        result: npt.NDArray[np.float32] = torch.nn.functional.normalize(state, dim=-1).numpy()
        return result

    return embed


@pytest.fixture(scope="module")
def loaded(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("prompt_name", [None, "docs", "labels", "query", "document"])
def test_sentence_transformers_gives_the_training_embeddings(
    loaded: SentenceTransformer, reference: Reference, prompt_name: str | None
) -> None:
    expected = np.stack([reference(PROMPTS.get(prompt_name or "", "") + text) for text in TEXTS])

    embeddings = loaded.encode(TEXTS, prompt_name=prompt_name, batch_size=4)

    np.testing.assert_allclose(embeddings, expected, atol=1e-5)


def test_sentence_transformers_reads_limit_prompts_and_similarity(loaded: SentenceTransformer) -> None:
    assert loaded.max_seq_length == MAX_TOKENS
    assert loaded.prompts == PROMPTS
    assert loaded.similarity_fn_name == "cosine"
    assert loaded.get_sentence_embedding_dimension() == 32


def test_encode_query_uses_the_query_prompt_and_encode_document_none(
    loaded: SentenceTransformer, reference: Reference
) -> None:
    query = loaded.encode_query("join paths")
    job_spec = loaded.encode_document("join paths")

    np.testing.assert_allclose(query, reference("Instruct: Answer the question.\nQuery: join paths"), atol=1e-5)
    np.testing.assert_allclose(job_spec, reference("join paths"), atol=1e-5)


def test_the_tokenizer_gives_training_ids_and_masks_padding_although_it_is_the_eos(
    folder: Path, tokenizer: LoadedTokenizer
) -> None:
    expected = tokenizer.for_texts(MAX_TOKENS).encode(TEXTS)

    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, truncation=True, return_tensors="np")

    lengths = batch["attention_mask"].sum(axis=1)
    assert lengths.tolist() == expected.lengths.tolist()
    kept = np.concatenate([row[:length] for row, length in zip(batch["input_ids"], lengths, strict=True)])
    assert kept.tolist() == expected.ids.tolist()
    assert set(batch) == {"input_ids", "attention_mask"}


def test_the_cards_examples_run_and_agree(
    folder: Path, reference: Reference, loaded: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    examples = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    results: list[dict[str, Any]] = [{}, {}]

    for example, names in zip(examples, results, strict=True):
        exec(example, names)

    with_library, plain = results
    queries, documents = plain["queries"], plain["documents"]
    expected = np.stack([reference(PROMPTS["query"] + query) for query in queries] + [reference(d) for d in documents])
    of_library = np.concatenate([with_library["query_embeddings"], with_library["document_embeddings"]])
    np.testing.assert_allclose(plain["embeddings"].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(of_library, plain["embeddings"].numpy(), atol=1e-5)


def test_trained_dims_are_in_the_configuration_and_load_as_first_values(
    model: Qwen3Model, tokenizer: LoadedTokenizer, facts: CardFacts, loaded: SentenceTransformer, tmp_path: Path
) -> None:
    trained = facts.job.model_copy(update={"train": TrainSpec(matryoshka_dims=(4, 8))})
    card = facts.model_copy(update={"job": trained})

    out = export_model(
        model, tokenizer, tmp_path / "model", card=card, max_seq_length=MAX_TOKENS, prompts=PROMPTS, dtype=torch.float32
    )

    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["matryoshka_dimensions"] == [4, 8, 32]
    cut = SentenceTransformer(str(out), device="cpu", truncate_dim=8).encode(TEXTS, normalize_embeddings=True)
    whole = loaded.encode(TEXTS)[:, :8]
    np.testing.assert_allclose(cut, whole / np.linalg.norm(whole, axis=1, keepdims=True), atol=1e-5)
    assert "truncate_dim=8" in (out / "README.md").read_text(encoding="utf-8")


def test_a_model_with_a_head_is_exported_without_it(
    model: Qwen3Model, tokenizer: LoadedTokenizer, facts: CardFacts, reference: Reference, tmp_path: Path
) -> None:
    whole = Qwen3ForCausalLM(model.config)
    whole.model.load_state_dict(model.state_dict())

    out = export_model(
        whole, tokenizer, tmp_path / "m", card=facts, max_seq_length=MAX_TOKENS, prompts=PROMPTS, dtype=torch.float32
    )

    assert json.loads((out / "config.json").read_text())["architectures"] == ["Qwen3Model"]
    embeddings = SentenceTransformer(str(out), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embeddings, [reference(text) for text in TEXTS], atol=1e-5)


def test_weights_are_written_in_the_requested_type_and_the_model_is_unchanged(
    model: Qwen3Model, tokenizer: LoadedTokenizer, facts: CardFacts, reference: Reference, tmp_path: Path
) -> None:
    config_before = model.config.to_json_string()

    out = export_model(
        model, tokenizer, tmp_path / "m", card=facts, max_seq_length=MAX_TOKENS, prompts=PROMPTS, dtype=torch.bfloat16
    )

    loaded = SentenceTransformer(str(out), device="cpu")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.to_json_string() == config_before
    similarity = loaded.encode(TEXTS[0], normalize_embeddings=True).astype(np.float32) @ reference(TEXTS[0])
    assert similarity == pytest.approx(1.0, abs=0.02)


def test_the_directory_uses_the_names_that_old_versions_read(folder: Path) -> None:
    def content(name: str) -> Any:
        return json.loads((folder / name).read_text(encoding="utf-8"))

    assert [module["type"] for module in content("modules.json")] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    ]
    pooling = content("1_Pooling/config.json")
    assert pooling["word_embedding_dimension"] == 32
    assert [mode for mode, on in pooling.items() if mode.startswith("pooling_mode_") and on] == [
        "pooling_mode_lasttoken"
    ]
    # transformers 4 reads the rotary base here only.
    assert content("config.json")["rope_theta"] == 1_000_000.0
    assert content("sentence_bert_config.json") == {"max_seq_length": MAX_TOKENS, "do_lower_case": False}


def test_an_older_export_is_replaced_whole(
    model: Qwen3Model, tokenizer: LoadedTokenizer, facts: CardFacts, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "model"
    out.mkdir(parents=True)
    (out / "left-over.txt").write_text("old")

    export_model(model, tokenizer, out, card=facts, max_seq_length=MAX_TOKENS, prompts=PROMPTS, dtype=torch.float32)

    assert not (out / "left-over.txt").exists()
    assert (out / "model.safetensors").exists()
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_a_failed_export_leaves_the_older_one_and_nothing_else(
    model: Qwen3Model, tokenizer: LoadedTokenizer, facts: CardFacts, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "older.txt").write_text("whole")
    stranger = LoadedTokenizer(tokenizer.tokenizer_json, eos_token="<|unknown|>", pad_token="<|unknown|>")

    with pytest.raises(ModelError, match=re.escape("has id None, but the model embeds only ids below 448")):
        export_model(model, stranger, out, card=facts, max_seq_length=MAX_TOKENS, prompts=PROMPTS, dtype=torch.float32)

    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (out / "older.txt").read_text() == "whole"


def test_a_rewritten_card_differs_only_by_new_facts(folder: Path, facts: CardFacts, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(folder, tmp_path / "model"))
    measured = facts.model_copy(update={"after": EvaluationReport(sets=()), "steps": 4321})

    rewrite_card(copied, measured)

    older = (folder / "README.md").read_text(encoding="utf-8")
    assert (copied / "README.md").read_text(encoding="utf-8") == older.replace("3 steps", "4,321 steps")


def test_an_upload_holds_every_byte_and_lists_it_last(folder: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "bucket")).child("model")

    upload_folder(folder, store)

    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    listed = json.loads(store.get("files.json"))["files"]
    assert sorted(listed) == sorted(files)
    assert all(store.get(name) == path.read_bytes() for name, path in files.items())
    assert {name: entry["size"] for name, entry in listed.items()} == {n: p.stat().st_size for n, p in files.items()}


def test_an_interrupted_upload_is_not_a_model_even_if_it_replaces_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = open_store("memory://").child("model"), Path(shutil.copytree(folder, tmp_path / "other"))
    (other / "model-00009.safetensors").write_bytes(b"a part of a larger model")
    upload_folder(other, store)
    store.put("of-the-user.txt", b"stays")
    found = find_exported(store)

    def cut_off(self: Store, key: str) -> Any:
        if key == "model.safetensors":
            raise StorageError("cut off", remedy="")
        return open_writer(self, key)

    open_writer = Store.open_writer
    monkeypatch.setattr(Store, "open_writer", cut_off)
    with pytest.raises(StorageError):
        upload_folder(folder, store)
    with pytest.raises(ModelError, match="is being written, or its upload was interrupted"):
        find_exported(store)
    monkeypatch.undo()
    upload_folder(folder, store)

    assert find_exported(store).fingerprint != found.fingerprint
    assert not store.exists("model-00009.safetensors")
    assert store.exists("of-the-user.txt")
    store.put("model.safetensors", b"half")
    with pytest.raises(ModelError, match=r"the size of model\.safetensors differs from files\.json"):
        find_exported(store)


@pytest.mark.parametrize("moment", ["before the new one is in place", "before the older one is gone"])
def test_a_replaced_directory_survives_a_kill_at_any_moment(tmp_path: Path, moment: str) -> None:
    out, partial, old = (tmp_path / name for name in ("best", ".candidate", ".candidate-old"))
    old.mkdir()
    (old / "older").touch()
    if moment == "before the older one is gone":
        out.mkdir()
        (out / "newer").touch()

    end_replacing(partial, out)
    assert [path.name for path in tmp_path.rglob("*")] in (["best", "older"], ["best", "newer"])
    partial.mkdir()
    (partial / "newest").touch()
    put_in_place(partial, out)

    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["best", "newest"]


def test_training_and_export_agree_on_the_fingerprint_of_the_tokenizer(
    folder: Path, tokenizer: LoadedTokenizer
) -> None:
    exported = TextTokenizer(
        (folder / "tokenizer.json").read_text(encoding="utf-8"), eos_token=EOS, max_tokens=MAX_TOKENS
    )

    assert exported.fingerprint == tokenizer.for_texts(MAX_TOKENS).fingerprint
