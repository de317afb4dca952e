"""A teacher: an embedding model that embeds the texts of a micro-batch too, for the model in training to come close to.

It is any sentence-transformers model, with its own tokenizer, and gets the very texts that are trained on, instructions
included, without prompts of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ray_app.config import TeacherSpec
from ray_app.inference.sentence_transformer import SentenceModel

_BATCH_TOKENS = 16384


class Teacher:
    """The model, on this worker's device."""

    def __init__(self, spec: TeacherSpec, device: torch.device) -> None:
        """Raises ModelError where it cannot be loaded."""
        self._model = SentenceModel(spec.name_or_path, device, revision=spec.revision, max_tokens=spec.max_seq_length)
        self._device = device

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 [N, D of the teacher], L2-normalized, without gradient."""
        return torch.from_numpy(self._model.embed_without_prompt(texts, batch_tokens=_BATCH_TOKENS)).to(self._device)
