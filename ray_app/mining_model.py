"""The model that mines: sentence-transformers embeds, torch multiplies. N texts, Q queries, D dimensions."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ray_app.errors import ModelError
from ray_app.mining import Hits, Ids, Scores

QUERIES_AT_ONCE = 1024
"""Queries whose scores against one block are in memory together."""
_PARTS_OF_A_MODEL = {".json", ".txt", ".safetensors", ".bin", ".model", ".jinja", ".py"}
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class MiningModel:
    """A sentence-transformers model and how it is used; the fingerprint stands for its files wherever they lie."""

    name: str
    revision: str | None
    fingerprint: str
    query_prompt: str | None
    """Put before every query; None takes what the model's own settings say, as sentence-transformers does."""
    max_tokens: int | None
    batch_tokens: int


def find_model(name: str, *, query_prompt: str | None, max_tokens: int | None, batch_tokens: int) -> MiningModel:
    """A model by folder or hub id; from the hub it is downloaded, unless it was before. Raises ModelError."""
    folder, revision = Path(name).expanduser(), None
    if folder.is_dir():
        name = str(folder.resolve())
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        found = "a file" if folder.exists() else "not there"
        raise ModelError(
            f"the model {name} is {found}; expected a folder of a sentence-transformers model or a name on the hub",
            remedy="give the folder that has modules.json in it",
        )
    else:
        folder = _download(name)
        revision = folder.name
    if not (folder / "config.json").is_file() and not (folder / "modules.json").is_file():
        raise ModelError(
            f"{name} is no model folder: it has neither modules.json nor config.json",
            remedy="give the folder of a sentence-transformers model, such as model/ of a run",
        )
    return MiningModel(name, revision, _fingerprint(folder), query_prompt, max_tokens, batch_tokens)


class Embedder:
    """The model in this process, on its GPU where Ray gave it one."""

    def __init__(self, model: MiningModel, *, device: torch.device | None = None) -> None:
        """`device` is one that the caller has set up; without it this process is taken for a worker of its own.

        Raises ModelError where it cannot be loaded.
        """
        from sentence_transformers import SentenceTransformer

        warnings.filterwarnings("ignore", module=r"(torch|transformers|sentence_transformers)\.")
        self.device = str(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device is None and self.device == "cpu":
            # A worker is one core's, and sums then do not depend on how many cores there are.
            torch.set_num_threads(1)
        try:
            self._model: Any = SentenceTransformer(model.name, revision=model.revision, device=self.device)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                f"{model.name} is no model that sentence-transformers can load: {said}",
                remedy="give a folder with modules.json, or a name on the hub",
            ) from error
        if model.max_tokens is not None:
            self._model.max_seq_length = min(model.max_tokens, self._model.max_seq_length or model.max_tokens)
        self._settings = model

    @property
    def dimensions(self) -> int:
        return int(self._model.get_embedding_dimension())

    def documents(self, texts: Sequence[str]) -> Scores:
        """Embeddings float32 [N, D], L2-normalised."""
        return self._embed(self._model.encode_document, texts)

    def queries(self, texts: Sequence[str]) -> Scores:
        """Embeddings float32 [N, D], L2-normalised, of texts with the query prompt."""
        prompt = self._settings.query_prompt
        return self._embed(self._model.encode_query, texts, **({} if prompt is None else {"prompt": prompt}))

    def as_they_are(self, texts: Sequence[str]) -> Scores:
        """Embeddings float32 [N, D], L2-normalised, of texts without any prompt."""
        return self._embed(self._model.encode, texts, prompt="")

    def _embed(self, encode: Any, texts: Sequence[str], **options: str) -> Scores:
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        limit = self._model.max_seq_length
        for batch in batches([len(text) for text in texts], limit=limit, batch_tokens=self._settings.batch_tokens):
            out[batch] = encode(
                [texts[i] for i in batch], batch_size=len(batch), show_progress_bar=False, convert_to_numpy=True,
                normalize_embeddings=True, **options,
            )  # fmt: skip
        if not np.isfinite(out).all():
            bad = int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])
            raise ModelError(
                f"{self._settings.name} gives an embedding that is not finite for the text {texts[bad][:80]!r}",
                remedy="use another model, or one in another precision",
            )
        return out


@lru_cache(maxsize=1)
def load_embedder(model: MiningModel) -> Embedder:
    """The embedder of this process; a worker's pieces share one."""
    return Embedder(model)


def batches(characters: Sequence[int], *, limit: int | None, batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Indices of texts, like lengths together, each batch about `batch_tokens` with its padding; at least one text."""
    lengths = np.asarray(characters, dtype=np.int64) // _CHARACTERS_PER_TOKEN + 2
    if limit is not None:
        lengths = np.minimum(lengths, limit)
    order = np.argsort(-lengths, kind="stable")
    found, first = [], 0
    while first < len(order):
        size = max(1, batch_tokens // int(lengths[order[first]]))
        found.append(order[first : first + size])
        first += size
    return found


class BlockScores:
    """Scores of Q queries against the N documents of one block, on the embedder's device."""

    def __init__(self, queries_QD: Scores, documents_ND: Scores, *, device: str = "cpu") -> None:
        self._scores_QN = torch.from_numpy(queries_QD).to(device) @ torch.from_numpy(documents_ND).to(device).T

    def at(self, rows: Ids, columns: Ids) -> Scores:
        """Single scores [len(rows)]."""
        picked: Scores = self._scores_QN[self._index(rows), self._index(columns)].cpu().numpy()
        return picked

    def forbid(self, rows: Ids, columns: Ids) -> None:
        """These are never hits."""
        self._scores_QN[self._index(rows), self._index(columns)] = -torch.inf

    def hits(self, least_Q: Scores, k: int) -> Hits:
        """All entries that could be among the best `k` of their row, where scores of `least_Q` and below cannot.

        Of a row without a least score these are its `k` best of the block, and all that equal the last of them.
        """
        scores = self._scores_QN
        least = torch.from_numpy(least_Q).to(scores.device)
        own = torch.topk(scores, min(k, scores.shape[1]), dim=1).values[:, -1] if torch.isinf(least).any() else None
        wanted = scores > least[:, None]
        if own is not None:
            wanted &= scores >= own[:, None]
        found = torch.nonzero(wanted)
        rows, columns = found[:, 0], found[:, 1]
        return Hits(rows.cpu().numpy(), columns.cpu().numpy(), scores[rows, columns].cpu().numpy())

    def _index(self, values: Ids) -> torch.Tensor:
        return torch.from_numpy(values).to(self._scores_QN.device)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack"]))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"the model {name} is no folder, and the hub does not give it: {str(error).splitlines()[0]}",
            remedy="check the name and the network (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE), or give a local folder",
        ) from error


def _fingerprint(folder: Path) -> str:
    """Hash of the files that make the embeddings, by their names below the folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in _PARTS_OF_A_MODEL and path.is_file() and not any(p.startswith(".") for p in name.parts):
            with path.open("rb") as stream:
                digest.update(f"{name.as_posix()} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:32]
