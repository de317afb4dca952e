"""A model to embed with, wherever it lies: what names it, what stands for its weights, and how a worker opens it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from data_io.dataset.manifest import Manifest, load_manifest
from data_io.storage.folder_copy import FILES_KEY, local_copy, uploaded_files
from data_io.storage.store import Store
from data_io.task import format_query
from ray_app.data_order import select_sources
from ray_app.errors import ModelError
from ray_app.inference.encoder import Cut, Encoder, initial_encoder, load_encoder
from ray_app.inference.sentence_transformer import SentenceModel, is_of_ours
from ray_app.job_spec import JobSpec
from ray_app.models.loading import load_tokenizer

_CONFIGURATION = "config_sentence_transformers.json"
_PARTS_OF_A_MODEL = {".json", ".txt", ".safetensors", ".bin", ".model", ".jinja", ".py"}
_WHAT_EMBEDS = (".safetensors", ".json", ".txt", ".model")
"""Endings of the files that the embeddings depend on; a card does not change them."""


@dataclass(frozen=True)
class ExportedModel:
    """A model directory that `f2llm export` wrote, or another that sentence-transformers loads, in a local directory or an
    object store. Pickles, opens nothing.
    """

    name: str
    folder: Store
    fingerprint: str
    """Stands for the files that the embeddings depend on."""
    prompts: tuple[tuple[str, str], ...]
    """Names of sources, `query` and `document`, each with what is put before a text."""
    batch_tokens: int = 16384


@dataclass(frozen=True)
class InitialModel:
    """The model of a document as it is before its first step."""

    name: str
    spec: JobSpec
    data: Store
    fingerprint: str
    prompts: tuple[tuple[str, str], ...]


EmbeddingModel = ExportedModel | InitialModel


@dataclass(frozen=True)
class NamedModel:
    """A sentence-transformers model by directory or hub id, and how mining uses it."""

    name: str
    revision: str | None
    fingerprint: str
    """Stands for its files wherever they lie."""
    query_prompt: str | None
    """Put before every query; None takes what the model's own settings say, as sentence-transformers does."""
    max_tokens: int | None
    batch_tokens: int


def find_exported(place: Store, *, name: str | None = None, batch_tokens: int = 16384) -> ExportedModel:
    """The model in a run directory (its model/), or in a model directory. Raises ModelError where there is none."""
    folder = model_folder(place)
    settings = json.loads(folder.get(_CONFIGURATION))
    parts = folder.uri.rstrip("/").split("/")
    own_name = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
    prompts = tuple((settings.get("prompts") or {}).items())
    return ExportedModel(name or own_name, folder, _fingerprint(folder), prompts, batch_tokens)


def model_folder(place: Store) -> Store:
    """Where the exported model is: `place` itself, or model/ of a run directory. Raises ModelError where neither is,
    and where it is a copy that is not whole.
    """
    for folder in (place, place.child("model")):
        if folder.exists(_CONFIGURATION):
            _check_whole(folder)
            return folder
    raise ModelError(
        f"{place.uri} has no model: neither {_CONFIGURATION} nor model/{_CONFIGURATION} is there",
        remedy=f"write it first: `f2llm export {place.uri}`"
        if place.exists("job.yaml")
        else "give a run directory, or a model directory that `f2llm export` or sentence-transformers wrote",
    )


def initial_model(name: str, spec: JobSpec, data: Store) -> InitialModel:
    """The model that a run starts from. Raises ModelError where its tokenizer is not to be had."""
    tokenizer = load_tokenizer(spec.model, data).for_texts(spec.model.max_seq_length)
    decided_by = [spec.model.model_dump(exclude={"attn_implementation"}), spec.train.seed, tokenizer.fingerprint]
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    return InitialModel(name, spec, data, digest[:32], tuple(model_prompts(spec, load_manifest(data)).items()))


def model_prompts(spec: JobSpec, manifest: Manifest) -> dict[str, str]:
    """The prompts of a document's model: its sources' instructions; `query` is that of its first retrieval source."""
    sources = select_sources(manifest, spec)
    instructions = {source.name: source.instruction for source in sources}
    retrieval = [source.instruction for source in sources if source.kind.uses_in_batch_negatives]
    return make_prompts(instructions, query_instruction=(retrieval or list(instructions.values()))[0])


def find_named(name: str, *, query_prompt: str | None, max_tokens: int | None, batch_tokens: int) -> NamedModel:
    """A model by directory or hub id; from the hub it is downloaded, unless it was before. Raises ModelError."""
    folder, revision = Path(name).expanduser(), None
    if folder.is_dir():
        name = str(folder.resolve())
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        found = "a file" if folder.exists() else "not there"
        raise ModelError(
            f"the model {name} is {found}; expected a directory of a sentence-transformers model or a name on the hub",
            remedy="give the directory that has modules.json in it",
        )
    else:
        folder = _download(name)
        revision = folder.name
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelError(
            f"{name} is no model directory: it has neither modules.json nor config.json",
            remedy="give the directory of a sentence-transformers model, such as model/ of a run",
        )
    return NamedModel(name, revision, _fingerprint_of_files(folder), query_prompt, max_tokens, batch_tokens)


@lru_cache(maxsize=1)
def open_encoder(model: EmbeddingModel, cut: Cut) -> Encoder:
    """The model in this process, on its GPU where there is one; one at a time is kept."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(model, InitialModel):
        return initial_encoder(model.spec, model.data, device=device, cut=cut)
    with local_copy(model.folder) as folder:
        if is_of_ours(folder):
            return load_encoder(folder, device=device, batch_tokens=model.batch_tokens, cut=cut)
        other = SentenceModel(str(folder), torch.device(device), local_files_only=True)
        return Encoder(other, other.tokenizer, batch_tokens=model.batch_tokens, cut=cut)


@lru_cache(maxsize=1)
def open_named(model: NamedModel) -> SentenceModel:
    """The model in this process, on its GPU where there is one; one at a time is kept."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        # A worker is one core's, and sums then do not depend on how many cores there are.
        torch.set_num_threads(1)
    return SentenceModel(model.name, device, revision=model.revision, max_tokens=model.max_tokens)


def _check_whole(folder: Store) -> None:
    listed = _listing(folder)
    sizes = {info.key: info.size for info in folder.list()} if listed else {}
    wrong = next((key for key, entry in (listed or {}).items() if _embeds(key) and sizes.get(key) != entry["size"]), "")
    if wrong or listed is None:
        raise ModelError(
            f"{folder.uri} is being written, or its upload was cut off: "
            + (f"{wrong} is not what {FILES_KEY} says" if wrong else f"{FILES_KEY} lists nothing yet"),
            remedy="wait for its end, or write it again: `f2llm export`",
        )


def _fingerprint(folder: Store) -> str:
    """A hash of the files by name and content, 32 hex digits."""
    known = {key: entry["sha256"] for key, entry in (_listing(folder) or {}).items()}
    keys = [info.key for info in folder.list() if _embeds(info.key)]
    lines = [f"{key} {known.get(key) or _hash(folder, key)}\n" for key in keys]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def _embeds(key: str) -> bool:
    return key.endswith(_WHAT_EMBEDS) and key != FILES_KEY


def _listing(folder: Store) -> dict[str, Any] | None:
    """What an upload wrote of its files, None before its end; nothing of a local directory, whose files anyone may have
    changed since.
    """
    return {} if folder.is_local else uploaded_files(folder)


def _hash(folder: Store, key: str) -> str:
    if not folder.is_local:
        return hashlib.sha256(folder.get(key)).hexdigest()
    with (Path(folder.uri) / key).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack"]))
    except Exception as error:  # the hub's client raises what its transport raises
        raise ModelError(
            f"the model {name} is no directory, and the hub does not give it: {str(error).splitlines()[0]}",
            remedy="check the name and the network (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE), or give a local directory",
        ) from error


def _fingerprint_of_files(folder: Path) -> str:
    """Hash of the files that make the embeddings, by their names below the directory."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in _PARTS_OF_A_MODEL and path.is_file() and not any(p.startswith(".") for p in name.parts):
            with path.open("rb") as stream:
                digest.update(f"{name.as_posix()} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def make_prompts(instructions: Mapping[str, str], *, query_instruction: str) -> dict[str, str]:
    """Prompts of sentence-transformers: one a source or task, then `query` and `document`.

    `query` is what `encode_query` uses, so it takes the instruction that suits unknown queries best. A source called
    `query` or `document` gives way to these two.
    """
    named = {name: format_query("", instruction) for name, instruction in sorted(instructions.items())}
    return {**named, "query": format_query("", query_instruction), "document": ""}
