"""Models to embed with, from a directory, an object store or the Hub: how to find, identify and open one."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import TypeAdapter

from data_io.bounded_json import read_json
from data_io.data_spec import S3Options
from data_io.dataset.manifest import Manifest, load_manifest
from data_io.storage.folder_copy import FILES_KEY, SETTINGS_BYTES, ListedFile, local_copy, sha256_of, uploaded_files
from data_io.storage.store import Store, open_store
from data_io.task import format_query
from ray_app.data_order import select_sources
from ray_app.errors import ModelError
from ray_app.inference.encoder import Cut, Encoder, initial_encoder, load_encoder
from ray_app.inference.hub import download, is_hub_id, split_revision
from ray_app.inference.sentence_transformer import SentenceModel, is_of_ours
from ray_app.job_spec import JobSpec
from ray_app.models.loading import load_tokenizer

_CONFIGURATION = "config_sentence_transformers.json"
_PARTS_OF_A_MODEL = {".json", ".txt", ".safetensors", ".bin", ".model", ".jinja", ".py"}
_PROMPTS = TypeAdapter(dict[str, str])
_TEXTS = (".json", ".txt", ".jinja", ".md", ".py")
_WHAT_EMBEDS = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of the files that the embeddings depend on. A model card does not change them."""


@dataclass(frozen=True)
class ExportedModel:
    """A model directory that `f2llm export` wrote, or another one that sentence-transformers loads.

    It is local or in an object store. The value can be pickled and holds nothing open.
    """

    name: str
    folder: Store
    fingerprint: str
    """Hash of the files that the embeddings depend on."""
    prompts: tuple[tuple[str, str], ...]
    """Names of sources, `query` and `document`, each with the prompt that is put before a text."""
    batch_tokens: int = 16384
    hub_id: str | None = None
    """ORG/NAME@COMMIT of a model that was downloaded from the Hub."""

    @property
    def uri(self) -> str:
        """Finds the same model again with `find_model`: its path, its URI, or its Hub id with the commit."""
        return self.hub_id or self.folder.uri


@dataclass(frozen=True)
class InitialModel:
    """The initial model of a job spec, before its first step."""

    name: str
    spec: JobSpec
    data: Store
    fingerprint: str
    prompts: tuple[tuple[str, str], ...]


EmbeddingModel = ExportedModel | InitialModel


@dataclass(frozen=True)
class NamedModel:
    """A sentence-transformers model, named by directory or Hub id, with the settings that mining uses it with."""

    name: str
    revision: str | None
    fingerprint: str
    """Hash of its files. Does not depend on their location."""
    query_prompt: str | None
    """Put before every query. None uses the model's own query prompt, as sentence-transformers does."""
    max_tokens: int | None
    batch_tokens: int


def find_model(place: str, s3: S3Options, *, name: str | None = None, batch_tokens: int = 16384) -> ExportedModel:
    """The model in a run directory or model directory (a path or s3:// URI), or of a Hub id (ORG/NAME[@REVISION]).

    A model on the Hub is downloaded unless it is in the cache. Raises ModelError if no model is found, StorageError if
    the object store or the Hub cannot be reached.
    """
    if not is_hub_id(place):
        return find_exported(open_store(place, s3), name=name, batch_tokens=batch_tokens)
    repository, _ = split_revision(place)
    folder = download(place)
    found = find_exported(open_store(str(folder)), name=name or repository, batch_tokens=batch_tokens)
    return replace(found, hub_id=f"{repository}@{folder.name}")


def model_store(place: str, s3: S3Options) -> Store:
    """The directory at a path or URI, or the local copy of a model on the Hub. Raises as `find_model` does."""
    return open_store(str(download(place))) if is_hub_id(place) else open_store(place, s3)


def find_exported(place: Store, *, name: str | None = None, batch_tokens: int = 16384) -> ExportedModel:
    """The model in a run directory (its model/), or in a model directory. Raises ModelError if none is found."""
    folder = model_folder(place)
    prompts = _prompts(folder)
    parts = folder.uri.rstrip("/").split("/")
    own_name = parts[-2] if parts[-1] == "model" and len(parts) > 1 else parts[-1]
    return ExportedModel(name or own_name, folder, _fingerprint(folder), prompts, batch_tokens)


def _prompts(folder: Store) -> tuple[tuple[str, str], ...]:
    try:
        settings = read_json(folder.get(_CONFIGURATION))
        return tuple(_PROMPTS.validate_python(settings.get("prompts") or {}).items())
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"{folder.uri}/{_CONFIGURATION} is damaged: it is not a mapping with prompts, which are strings",
            remedy="write the model again with `f2llm export`, or restore its files",
        ) from error


def model_folder(place: Store) -> Store:
    """The directory of the exported model: `place` itself, or model/ of a run directory.

    Raises ModelError if neither holds a model, if the upload of the model is not complete, or if a file is too large.
    """
    for folder in (place, place.child("model")):
        if folder.exists(_CONFIGURATION):
            _check_whole(folder)
            _check_sizes(folder)
            return folder
    raise ModelError(
        f"{place.uri} has no model: neither {_CONFIGURATION} nor model/{_CONFIGURATION} exists",
        remedy=f"write it first: `f2llm export {place.uri}`"
        if place.exists("job.yaml")
        else "give a run directory, a model directory that `f2llm export` or sentence-transformers wrote, or a Hub id",
    )


def initial_model(name: str, spec: JobSpec, data: Store) -> InitialModel:
    """The model that a run starts from. Raises ModelError if its tokenizer cannot be loaded."""
    tokenizer = load_tokenizer(spec.model, data).for_texts(spec.model.max_seq_length)
    decided_by = [spec.model.model_dump(exclude={"attn_implementation"}), spec.train.seed, tokenizer.fingerprint]
    digest = hashlib.sha256(json.dumps(decided_by, sort_keys=True).encode()).hexdigest()
    return InitialModel(name, spec, data, digest[:32], tuple(model_prompts(spec, load_manifest(data)).items()))


def model_prompts(spec: JobSpec, manifest: Manifest) -> dict[str, str]:
    """The prompts of a job spec's model: its sources' instructions. `query` is that of the first retrieval source."""
    sources = select_sources(manifest, spec)
    instructions = {source.name: source.instruction for source in sources}
    retrieval = [source.instruction for source in sources if source.kind.uses_in_batch_negatives]
    return make_prompts(instructions, query_instruction=(retrieval or list(instructions.values()))[0])


def find_named(name: str, *, query_prompt: str | None, max_tokens: int | None, batch_tokens: int) -> NamedModel:
    """A model by directory or Hub id. A model on the Hub is downloaded unless it is in the cache.

    Raises ModelError if no model is found, StorageError if the Hub cannot be reached.
    """
    folder, revision = Path(name).expanduser(), None
    if folder.is_dir():
        name = str(folder.resolve())
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        found = "is a file" if folder.exists() else "does not exist"
        raise ModelError(
            f"the model {name} {found}; expected the directory of a sentence-transformers model, or a Hub id",
            remedy="give the directory that contains modules.json",
        )
    else:
        folder = download(name)
        name, revision = split_revision(name)[0], folder.name
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelError(
            f"{name} is not a model directory: it has neither modules.json nor config.json",
            remedy="give the directory of a sentence-transformers model, such as model/ of a run",
        )
    return NamedModel(name, revision, _fingerprint_of_files(folder), query_prompt, max_tokens, batch_tokens)


@lru_cache(maxsize=1)
def open_encoder(model: EmbeddingModel, cut: Cut) -> Encoder:
    """The model, loaded in this process, on its GPU if it has one. Only the last model stays loaded."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(model, InitialModel):
        return initial_encoder(model.spec, model.data, device=device, cut=cut)
    with local_copy(_folder_here(model)) as folder:
        if is_of_ours(folder):
            return load_encoder(folder, device=device, batch_tokens=model.batch_tokens, cut=cut)
        other = SentenceModel(str(folder), torch.device(device), local_files_only=True)
        return Encoder(other, other.tokenizer, batch_tokens=model.batch_tokens, cut=cut)


@lru_cache(maxsize=1)
def open_named(model: NamedModel) -> SentenceModel:
    """The model, loaded in this process, on its GPU if it has one. Only the last model stays loaded."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        # Each worker has one CPU. With one thread, sums do not depend on the number of CPUs.
        torch.set_num_threads(1)
    return SentenceModel(model.name, device, revision=model.revision, max_tokens=model.max_tokens)


def _folder_here(model: ExportedModel) -> Store:
    """The directory of the model. A worker on another node downloads a model of the Hub for itself."""
    if model.hub_id is None or Path(model.folder.uri).is_dir():
        return model.folder
    return open_store(str(download(model.hub_id)))


def _check_whole(folder: Store) -> None:
    listed = _listing(folder)
    sizes = {info.key: info.size for info in folder.list()} if listed else {}
    wrong = next((key for key, entry in (listed or {}).items() if _embeds(key) and sizes.get(key) != entry.size), "")
    if wrong or listed is None:
        raise ModelError(
            f"{folder.uri} is being written, or its upload was interrupted: "
            + (f"the size of {wrong} differs from {FILES_KEY}" if wrong else f"{FILES_KEY} lists no files yet"),
            remedy="wait for the upload to end, or write the model again: `f2llm export`",
        )


def _check_sizes(folder: Store) -> None:
    """Libraries read these files as a whole, however large they are."""
    for info in folder.list():
        if info.key.endswith(_TEXTS) and info.size > SETTINGS_BYTES:
            raise ModelError(
                f"{folder.uri}/{info.key} has {info.size:,} bytes, expected at most {SETTINGS_BYTES:,}",
                remedy="check who wrote it, and write the model again or restore its files",
            )


def _fingerprint(folder: Store) -> str:
    """A hash of the names and contents of the files, 32 hex digits."""
    known = {key: entry.sha256 for key, entry in (_listing(folder) or {}).items()}
    keys = [info.key for info in folder.list() if _embeds(info.key)]
    lines = [f"{key} {known.get(key) or _hash(folder, key)}\n" for key in keys]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:32]


def _embeds(key: str) -> bool:
    return key.endswith(_WHAT_EMBEDS) and key != FILES_KEY


def _listing(folder: Store) -> Mapping[str, ListedFile] | None:
    """The list of files that an upload wrote, or None before the upload ends. Empty for a local directory, whose files
    can have changed since.
    """
    return {} if folder.is_local else uploaded_files(folder)


def _hash(folder: Store, key: str) -> str:
    if not folder.is_local:
        return sha256_of(folder, key)
    with (Path(folder.uri) / key).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fingerprint_of_files(folder: Path) -> str:
    """Hash of the files that the embeddings depend on, and of their paths in the directory."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in _PARTS_OF_A_MODEL and path.is_file() and not any(p.startswith(".") for p in name.parts):
            with path.open("rb") as stream:
                digest.update(f"{name.as_posix()} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]


def make_prompts(instructions: Mapping[str, str], *, query_instruction: str) -> dict[str, str]:
    """Prompts of sentence-transformers: one per source or task, then `query` and `document`.

    `encode_query` uses `query`, so `query` has the instruction that suits unknown queries best. `query` and `document`
    replace sources of the same name.
    """
    named = {name: format_query("", instruction) for name, instruction in sorted(instructions.items())}
    return {**named, "query": format_query("", query_instruction), "document": ""}
