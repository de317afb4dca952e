"""Any text model that sentence-transformers loads, for an Encoder, for mining and as a teacher.

N texts, T tokens, D dimensions.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from data_io.dataset.tokenizer import TokenTexts
from data_io.storage.folder_copy import read_json
from ray_app.errors import ModelError
from ray_app.models.packing import Layout, PackedBatch

_MODULES_OF_OURS = ["Transformer", "Pooling", "Normalize"]
_CHARACTERS_PER_TOKEN = 4


def is_of_ours(folder: Path) -> bool:
    """Whether texts can be packed for the model in this directory (in the layout of sentence-transformers).

    True for a Qwen3 whose embedding is the state of the EOS token that its tokenizer appends to a text, with no layer
    after it. Texts for other models are padded, as sentence-transformers does.
    """
    try:
        modules = [module["type"].rpartition(".")[2] for module in read_json(folder / "modules.json")]
        settings, tokenizer = read_json(folder / "tokenizer_config.json"), read_json(folder / "tokenizer.json")
        closing = tokenizer["post_processor"]["single"][-1]["SpecialToken"]["id"]
        pooling = read_json(folder / "1_Pooling" / "config.json")
        return (
            read_json(folder / "config.json")["model_type"] == "qwen3"
            and modules == _MODULES_OF_OURS
            and bool(pooling["pooling_mode_lasttoken"])
            and closing == settings["eos_token"]
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False


class SentenceModel(nn.Module):
    """The model on a device. It embeds packed tokens for an Encoder, and also plain texts.

    Sentence-transformers pools as the model's settings say, and puts the prompts in its settings before texts.
    """

    layout: Layout = "sequence"

    def __init__(
        self,
        name: str,
        device: torch.device,
        *,
        revision: str | None = None,
        max_tokens: int | None = None,
        local_files_only: bool = False,
    ) -> None:
        """`name` is a directory or a Hub id. Texts are cut to `max_tokens` or the model's own limit, whichever is less.

        Raises ModelError if sentence-transformers cannot load the model.
        """
        from sentence_transformers import SentenceTransformer

        super().__init__()
        warnings.filterwarnings("ignore", module=r"(torch|transformers|sentence_transformers)\.")
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        try:
            model: Any = SentenceTransformer(
                name, revision=revision, device=str(device), local_files_only=local_files_only, trust_remote_code=False
            )
        except Exception as error:  # sentence-transformers raises many classes for damaged files
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                f"sentence-transformers cannot load the model {name}: {said}",
                remedy="give a directory with modules.json, such as model/ of a run, or a Hub id",
            ) from error
        if max_tokens is not None:
            model.max_seq_length = min(max_tokens, model.max_seq_length or max_tokens)
        self.name = name
        self.model = model
        self.device = device
        self.dimensions = int(model.get_embedding_dimension())

    @property
    def tokenizer(self) -> "SentenceTokenizer":
        """Raises ModelError if the model does not read token ids."""
        from sentence_transformers.models import Transformer

        if not isinstance(self.model[0], Transformer):
            raise ModelError(
                f"the first module of {self.name} is {type(self.model[0]).__name__}; expected a transformer",
                remedy="give a sentence-transformers model that reads token ids",
            )
        return SentenceTokenizer(self.model.tokenizer, self.model.max_seq_length)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings float32 [N, D], L2-normalized, in the order of the texts, which are padded to the longest."""
        assert batch.cu_seqlens is not None
        texts = torch.split(batch.input_ids[0], batch.cu_seqlens.diff().tolist())
        ids_NL = pad_sequence(list(texts), batch_first=True, padding_value=self.model.tokenizer.pad_token_id or 0)
        mask_NL = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        embedded_ND: Tensor = self.model({"input_ids": ids_NL, "attention_mask": mask_NL})["sentence_embedding"]
        return F.normalize(embedded_ND.float(), dim=-1)

    def embed_documents(self, texts: Sequence[str], *, batch_tokens: int) -> npt.NDArray[np.float32]:
        """Embeddings float32 [N, D], L2-normalized, of texts with the model's own prompt for documents, if it has one.

        `batch_tokens` bounds the tokens of a batch, here and in the next two methods. Raises ModelError for an
        embedding that is not finite.
        """
        return self._embed(self.model.encode_document, texts, batch_tokens)

    def embed_queries(
        self, texts: Sequence[str], *, batch_tokens: int, prompt: str | None = None
    ) -> npt.NDArray[np.float32]:
        """The same for texts after `prompt`. None uses the model's own prompt for queries, if it has one."""
        given = {} if prompt is None else {"prompt": prompt}
        return self._embed(self.model.encode_query, texts, batch_tokens, **given)

    def embed_without_prompt(self, texts: Sequence[str], *, batch_tokens: int) -> npt.NDArray[np.float32]:
        """The same for texts without any prompt."""
        return self._embed(self.model.encode, texts, batch_tokens, prompt="")

    def _embed(
        self, encode: Callable[..., Any], texts: Sequence[str], batch_tokens: int, **options: str
    ) -> npt.NDArray[np.float32]:
        out = np.empty((len(texts), self.dimensions), dtype=np.float32)
        lengths = [len(text) for text in texts]
        for batch in batches(lengths, limit=self.model.max_seq_length, batch_tokens=batch_tokens):
            out[batch] = encode(
                [texts[i] for i in batch], batch_size=len(batch), show_progress_bar=False, convert_to_numpy=True,
                normalize_embeddings=True, **options,
            )  # fmt: skip
        if not np.isfinite(out).all():
            bad = int(np.flatnonzero(~np.isfinite(out).all(axis=1))[0])
            raise ModelError(
                f"{self.name}: the embedding of {texts[bad][:80]!r} has values that are not finite",
                remedy="use another model, or the model in another precision",
            )
        return out


def batches(characters: Sequence[int], *, limit: int | None, batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Batches of indices of texts. Texts of similar length share a batch.

    A batch has about `batch_tokens` tokens, padding included, and at least one text.
    """
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


class SentenceTokenizer:
    """The model's own tokenizer, including the special tokens that it puts around a text."""

    def __init__(self, tokenizer: Any, max_tokens: int | None) -> None:
        self._tokenizer = tokenizer
        self.max_tokens = sys.maxsize if max_tokens is None else max_tokens

    def encode(self, texts: Sequence[str]) -> TokenTexts:
        """Ids of `texts`, cut to the model's limit."""
        if not texts:
            return TokenTexts(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))
        limit = {"truncation": True, "max_length": self.max_tokens} if self.max_tokens < sys.maxsize else {}
        rows = self._tokenizer(list(texts), padding=False, **limit)["input_ids"]
        return TokenTexts(
            ids=np.concatenate([np.asarray(row, dtype=np.int32) for row in rows]),
            lengths=np.array([len(row) for row in rows], dtype=np.int32),
        )

    def cuts(self, text: str) -> bool:
        """Whether `encode` cuts off the end of this text."""
        return len(self._tokenizer(text, verbose=False)["input_ids"]) > self.max_tokens
