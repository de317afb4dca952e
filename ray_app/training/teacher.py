"""A teacher for distillation: an embedding model that also embeds the texts of each micro-batch.

It can be any sentence-transformers model and uses its own tokenizer. It gets the same texts as the trained model,
including the instructions, and adds no prompts of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ray_app.inference.sentence_transformer import SentenceModel
from ray_app.job_spec import TeacherSpec

_BATCH_TOKENS = 16384


class Teacher:
    """The model, on this worker's device."""

    def __init__(self, spec: TeacherSpec, device: torch.device) -> None:
        """Raises ModelError if the model cannot be loaded."""
        self._model = SentenceModel(spec.name_or_path, device, revision=spec.revision, max_tokens=spec.max_seq_length)
        self._device = device

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings float32 [N, D of the teacher], L2-normalized, without gradient."""
        return torch.from_numpy(self._model.embed_without_prompt(texts, batch_tokens=_BATCH_TOKENS)).to(self._device)
