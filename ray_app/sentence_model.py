"""Models of others: any text model that sentence-transformers loads, behind the encoder that embeds our own.

N texts, T tokens, D dimensions.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from data_io.folders import read_json
from data_io.tokenization import TokenTexts
from ray_app.errors import ModelError
from ray_app.packing import Layout, PackedBatch

_MODULES_OF_OURS = ["Transformer", "Pooling", "Normalize"]


def is_of_ours(folder: Path) -> bool:
    """Whether a folder of sentence-transformers' layout can be packed: a Qwen3 whose embedding is the state of the EOS
    that its tokenizer closes a text with, and nothing after it. Others are padded, as sentence-transformers does.
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
    """The model: embeds a sequence of texts, padded to its longest. Sentence-transformers pools as its settings say."""

    layout: Layout = "sequence"

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Raises ModelError where sentence-transformers cannot load the folder, or not for texts alone."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Transformer

        super().__init__()
        warnings.filterwarnings("ignore", module=r"(torch|transformers|sentence_transformers)\.")
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        try:
            model: Any = SentenceTransformer(str(folder), device=str(device), local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                f"{folder} is no model that sentence-transformers can load: {said}",
                remedy="give a run directory, a folder that `f2llm export` wrote, or one with modules.json",
            ) from error
        if not isinstance(model[0], Transformer):
            raise ModelError(
                f"{folder} begins with {type(model[0]).__name__}, not with a transformer",
                remedy="give a model of sentence-transformers that reads token ids",
            )
        self.model = model
        self.dimensions = int(model.get_embedding_dimension())

    @property
    def tokenizer(self) -> "SentenceTokenizer":
        return SentenceTokenizer(self.model.tokenizer, self.model.max_seq_length)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings float32 [N, D], L2-normalised, in the order of the texts."""
        assert batch.cu_seqlens is not None
        texts = torch.split(batch.input_ids[0], batch.cu_seqlens.diff().tolist())
        ids_NL = pad_sequence(list(texts), batch_first=True, padding_value=self.model.tokenizer.pad_token_id or 0)
        mask_NL = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        embedded_ND: Tensor = self.model({"input_ids": ids_NL, "attention_mask": mask_NL})["sentence_embedding"]
        return F.normalize(embedded_ND.float(), dim=-1)


class SentenceTokenizer:
    """The model's own tokenizer, with the tokens that it puts around a text."""

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
        """Whether `encode` leaves the end of this text out."""
        return len(self._tokenizer(text, verbose=False)["input_ids"]) > self.max_tokens
