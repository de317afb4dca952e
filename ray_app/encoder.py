"""Texts to embeddings, without gradient: what evaluation uses, and the reference that an exported model is held
against.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel

from data_io.task import format_query
from data_io.tokenization import TextTokenizer
from ray_app.errors import ModelError
from ray_app.model import Embedder, attention_of_device, load_pretrained
from ray_app.packing import pack


class Encoder:
    """A model and its tokenizer, ready to embed."""

    def __init__(self, model: Embedder, tokenizer: TextTokenizer, *, batch_tokens: int = 16384) -> None:
        """`batch_tokens` bounds the tokens embedded at once, and with them the memory."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, instruction: str = "") -> npt.NDArray[np.float32]:
        """Embeddings float32 [len(texts), D], L2-normalised. The instruction is put before each text (format_query)."""
        tokens = self._tokenizer.encode([format_query(text, instruction) for text in texts])
        out = np.empty((len(texts), self._model.dimensions), dtype=np.float32)
        ends = np.cumsum(tokens.lengths, dtype=np.int64)
        # Like lengths together: rows of a pack are as wide as its longest text.
        order = np.argsort(tokens.lengths, kind="stable")
        taken = np.cumsum(tokens.lengths[order], dtype=np.int64)
        groups = np.split(order, np.flatnonzero(np.diff(taken // self._batch_tokens)) + 1) if len(order) else []
        for group in groups:
            ids = np.concatenate([tokens.ids[ends[i] - tokens.lengths[i] : ends[i]] for i in group])
            packed = pack(ids, tokens.lengths[group], layout=self._model.layout, device=self._device)
            out[group] = self._model(packed).float().cpu().numpy()
        return out


def load_encoder(folder: Path, *, device: torch.device | str = "cpu", batch_tokens: int = 16384) -> Encoder:
    """An encoder from an exported model folder: fp32 on CPU, the stored precision on a GPU.

    Raises ModelError where the folder is not an exported model.
    """
    device = torch.device(device)
    try:
        eos_token = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["eos_token"]
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        limit = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} is not an exported model: {error}", remedy="export one with `f2llm export RUN`"
        ) from error
    dtype = torch.float32 if device.type == "cpu" else "auto"
    backbone = load_pretrained(AutoModel, str(folder), dtype=dtype, local_files_only=True).to(device)
    tokenizer = TextTokenizer(tokenizer_json, eos_token=eos_token, max_tokens=limit)
    return Encoder(Embedder(backbone, attention=attention_of_device(device)), tokenizer, batch_tokens=batch_tokens)
