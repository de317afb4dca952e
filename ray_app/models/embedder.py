"""The backbone: Qwen3 without its head, texts in packs, the last token's state as embedding.

N texts, T tokens, D dimensions. Attention has two ways, chosen once by `attention_of`: on a GPU a variable-length
FlashAttention kernel over one sequence, on CPU or in fp32 one SDPA call over rows, packed under a mask or a text each.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from ray_app.models.attention import VARLEN, Attention, attention_inputs, layout_of
from ray_app.models.packing import Layout, PackedBatch


class Embedder(nn.Module):
    """A backbone that embeds packs of texts. The same module under DeepSpeed, torchrun and in evaluation."""

    def __init__(self, backbone: nn.Module, *, attention: Attention, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention: Attention = attention
        backbone.set_attn_implementation(VARLEN if attention == "varlen" else attention)  # type: ignore[operator]
        self._ends_early = _end_early(backbone)
        if gradient_checkpointing:
            backbone.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    @property
    def layout(self) -> Layout:
        return layout_of(self.attention)

    @property
    def dimensions(self) -> int:
        """D, the width of an embedding."""
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of a step for one token: 6 a weight, without the embedding table, which is only
        looked up, and without attention's quadratic part (Kaplan et al., 2020, section 2.1); nor the last feed-forward
        part where it sees a token of each text alone.
        """
        unused = [self.backbone.get_input_embeddings()]  # type: ignore[operator]
        if self._ends_early:
            unused.append(self.backbone.layers[-1].mlp)  # type: ignore[index, union-attr]
        return 6 * (_weights(self.backbone) - sum(_weights(module) for module in unused))

    @property
    def embedding_dtype(self) -> torch.dtype:
        """float32, or float64 where the weights are: losses are never computed in bf16."""
        return torch.promote_types(next(self.backbone.parameters()).dtype, torch.float32)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings of the pack's texts, float32 [N, D], L2-normalized, in the order the texts were given."""
        inputs = attention_inputs(batch)
        if self._ends_early:
            inputs["last_N"] = batch.last_N
        hidden = self.backbone(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **inputs
        ).last_hidden_state
        pooled_ND = hidden[0] if self._ends_early else hidden.flatten(0, 1)[batch.last_N]
        return F.normalize(pooled_ND.to(self.embedding_dtype), dim=-1)


class _LastLayer(Qwen3DecoderLayer):  # type: ignore[misc]
    """The last layer of a Qwen3, whose feed-forward part sees the tokens that are embedded and no other: nothing reads
    what would come of those. It is 2 to 3% of the arithmetic of Qwen3 0.6B to 4B, 30% of a model of two layers.
    """

    def forward(self, hidden_states: Tensor, *, last_N: Tensor | None = None, **options: Any) -> Tensor:
        """States [1, N, D] of the tokens `last_N` in the flattened [R * L]. Without it the plain layer: [R, L, D]."""
        if last_N is None:
            states_RLD: Tensor = super().forward(hidden_states, **options)
            return states_RLD
        attended_RLD, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        last_ND: Tensor = (hidden_states + attended_RLD).flatten(0, 1)[last_N]
        states_ND: Tensor = last_ND + self.mlp(self.post_attention_layernorm(last_ND))
        return states_ND[None]


def _end_early(backbone: nn.Module) -> bool:
    """Whether the last layer gives states of embedded tokens alone from now on, which a Qwen3's does."""
    layers = getattr(backbone, "layers", None)
    if not layers or not isinstance(layers[-1], Qwen3DecoderLayer):
        return False
    layers[-1].__class__ = _LastLayer  # the same weights under the same names
    return True


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
