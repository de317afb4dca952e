"""Texts to embeddings, without gradients: used for evaluation, and as the reference that an exported model is compared
with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt, TypeAdapter
from transformers import AutoModel

from data_io.dataset.tokenizer import TextTokenizer, TokenTexts
from data_io.errors import DataError
from data_io.storage.folder_copy import read_json
from data_io.storage.store import Store
from data_io.task import format_query
from ray_app.errors import ModelError
from ray_app.inference.sentence_transformer import SentenceModel, SentenceTokenizer
from ray_app.job_spec import JobSpec
from ray_app.models.attention import attention_of, best_attention
from ray_app.models.embedder import Embedder
from ray_app.models.loading import DTYPES, build_backbone, load_pretrained, load_tokenizer
from ray_app.models.packing import Layout, pack

_CPU_BATCH_TOKENS = 2048
"""Larger batches do not fit the cache of a CPU core, and are slower."""

_EOS, _LIMIT = TypeAdapter(str), TypeAdapter(PositiveInt)
_PASS_TOKENS = 64
"""The fixed cost of a forward pass on CPU, as a number of tokens."""
_FILLER_SHARE = 0.1
"""Allowed padding as a share of a group's tokens, so that large groups of slowly growing lengths are not split."""


@dataclass(frozen=True)
class Cut:
    """Keeps the first `dimensions` values of every embedding, for models that are trained for it (Matryoshka).

    The kept values are L2-normalized again, unless `normalize` is off. None keeps all values.
    """

    dimensions: int | None = None
    normalize: bool = True


class Encoder:
    """A model and its tokenizer, ready to embed."""

    def __init__(
        self,
        model: Embedder | SentenceModel,
        tokenizer: TextTokenizer | SentenceTokenizer,
        *,
        batch_tokens: int = 16384,
        cut: Cut | None = None,
    ) -> None:
        """`batch_tokens` bounds the tokens of a batch, and so the memory. Raises ModelError for a cut that has more
        dimensions than the model.
        """
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._device = next(model.parameters()).device
        self._batch_tokens = min(batch_tokens, _CPU_BATCH_TOKENS) if self._device.type == "cpu" else batch_tokens
        # Texts of a batch have similar lengths here, so there is little padding. A mask would cost more.
        self._layout: Layout = "padded" if model.layout == "rows" else model.layout
        self._cut = cut or Cut()
        if (self._cut.dimensions or 0) > model.dimensions:
            raise ModelError(
                f"{self._cut.dimensions} dimensions are requested, but the model's embeddings have {model.dimensions}",
                remedy=f"request at most {model.dimensions} (--dimensions)",
            )

    @property
    def dimensions(self) -> int:
        """D, the number of values of a returned embedding."""
        return self._cut.dimensions or self._model.dimensions

    @property
    def max_tokens(self) -> int:
        """Limit of tokens per text, EOS included. A longer text is cut."""
        return self._tokenizer.max_tokens

    def encode(self, texts: Sequence[str], *, instruction: str = "") -> npt.NDArray[np.float32]:
        """Embeddings float32 [len(texts), D], L2-normalized. The instruction is put before each text (format_query)."""
        return self.embed(self.tokenize(texts, instruction=instruction))

    def tokenize(self, texts: Sequence[str], *, instruction: str = "") -> TokenTexts:
        """The tokens of each text with the instruction before it, cut to the model's limit, EOS included."""
        return self._tokenizer.encode([format_query(text, instruction) for text in texts])

    def cuts(self, text: str) -> bool:
        """Whether the end of this text is cut off when it is embedded."""
        return self._tokenizer.cuts(text)

    def embed(self, tokens: TokenTexts) -> npt.NDArray[np.float32]:
        """Embeddings float32 [N, D] of tokenized texts, in the same order."""
        out = np.empty((len(tokens.lengths), self.dimensions), dtype=np.float32)
        for group, vectors in self.embed_in_groups(tokens):
            out[group] = vectors
        return out

    @torch.inference_mode()
    def embed_in_groups(self, tokens: TokenTexts) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """The same, group by group, short texts first: positions [n] of the texts, and their embeddings [n, D]."""
        ends = np.cumsum(tokens.lengths, dtype=np.int64)
        for group in group_lengths(tokens.lengths, self._batch_tokens, padded=self._layout == "padded"):
            ids = np.concatenate([tokens.ids[ends[i] - tokens.lengths[i] : ends[i]] for i in group])
            packed = pack(ids, tokens.lengths[group], layout=self._layout, device=self._device)
            yield group, self._cut_down(self._model(packed)).float().cpu().numpy()

    def _cut_down(self, embeddings_ND: torch.Tensor) -> torch.Tensor:
        if self._cut.dimensions is None:
            return embeddings_ND
        kept = embeddings_ND[:, : self._cut.dimensions]
        return torch.nn.functional.normalize(kept, dim=-1) if self._cut.normalize else kept


def group_lengths(lengths: npt.NDArray[np.int32], most_tokens: int, *, padded: bool) -> list[npt.NDArray[np.int64]]:
    """Groups of positions of texts that are embedded together, the shortest texts first. A group has at most
    `most_tokens` tokens, or one text.

    If a group is `padded` to its longest text, padding counts towards `most_tokens`. The group also ends before its
    padding costs more than an additional forward pass.
    """
    order = np.argsort(lengths, kind="stable")
    starts, first, taken = [], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        slots = (place - first + 1) * length if padded else taken + length
        filler = slots - taken - length
        if place > first and (slots > most_tokens or filler > max(_PASS_TOKENS, _FILLER_SHARE * taken)):
            starts.append(place)
            first, taken = place, 0
        taken += length
    return np.split(order, starts) if len(order) else []


def initial_encoder(
    spec: JobSpec, data: Store, *, device: torch.device | str = "cpu", cut: Cut | None = None
) -> Encoder:
    """An encoder with the initial model of a job spec. `data` is the data set, for its tokenizer."""
    device = torch.device(device)
    tokenizer = load_tokenizer(spec.model, data).for_texts(spec.model.max_seq_length)
    dtype = torch.float32 if device.type == "cpu" else DTYPES[spec.train.precision]
    backbone = build_backbone(spec.model, vocabulary_size=tokenizer.vocabulary_size, dtype=dtype, seed=spec.train.seed)
    model = Embedder(backbone.to(device), attention=attention_of(spec.model, device, dtype))
    return Encoder(model, tokenizer, batch_tokens=spec.evaluation.batch_tokens, cut=cut)


def load_encoder(
    folder: Path, *, device: torch.device | str = "cpu", batch_tokens: int = 16384, cut: Cut | None = None
) -> Encoder:
    """An encoder from an exported model directory: fp32 on CPU, the stored precision on a GPU.

    Raises ModelError if the directory is not an exported model.
    """
    device = torch.device(device)
    try:
        eos_token = _EOS.validate_python(read_json(folder / "tokenizer_config.json")["eos_token"])
        tokenizer_json = (folder / "tokenizer.json").read_text(encoding="utf-8")
        limit = _LIMIT.validate_python(read_json(folder / "sentence_bert_config.json")["max_seq_length"])
        tokenizer = TextTokenizer(tokenizer_json, eos_token=eos_token, max_tokens=limit)
    except (DataError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder} is not an exported model: {error}", remedy="export one with `f2llm export RUN`"
        ) from error
    dtype = torch.float32 if device.type == "cpu" else "auto"
    backbone = load_pretrained(AutoModel, str(folder), dtype=dtype, local_files_only=True).to(device)
    model = Embedder(backbone, attention=best_attention(device, backbone.dtype))
    return Encoder(model, tokenizer, batch_tokens=batch_tokens, cut=cut)
