"""Attention over packed texts: the kernel for a device and a precision, and the inputs that separate the texts."""

from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from ray_app.errors import ModelError
from ray_app.job_spec import ModelSpec
from ray_app.models.packing import Layout, PackedBatch, block_causal_mask

Attention = Literal["flash_attention_2", "varlen", "sdpa"]

_DTYPES_OF_KERNELS = (torch.float16, torch.bfloat16)
"""The types that both variable-length kernels accept; they reject fp32."""

# transformers treats every name with "flash" in it as one of its own flash kernels, so this name must not contain it.
VARLEN = "f2llm_varlen"


def best_attention(device: torch.device, dtype: torch.dtype) -> Attention:
    """The best attention for packed texts on a device, for the precision of the weights."""
    if device.type == "cpu" or dtype not in _DTYPES_OF_KERNELS:
        return "sdpa"
    return "flash_attention_2" if find_spec("flash_attn") else "varlen"


def attention_of(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Attention:
    """The attention that `spec` selects on this device. JobSpec has already checked it against `dtype`.

    Raises ModelError if the attention does not work on the device.
    """
    wanted = spec.attn_implementation
    if wanted == "auto":
        return best_attention(device, dtype)
    if device.type == "cpu" and wanted != "sdpa":
        raise ModelError(
            f"model.attn_implementation={wanted} needs a GPU, but this worker runs on {device.type}",
            remedy="set model.attn_implementation: auto, or workers.gpus: 1",
        )
    return wanted


def layout_of(attention: Attention) -> Layout:
    return "rows" if attention == "sdpa" else "sequence"


def attention_inputs(batch: PackedBatch) -> dict[str, Any]:
    """Arguments of a transformers decoder that prevent attention between the texts of a pack."""
    if batch.segment_RL is not None:
        return {"attention_mask": block_causal_mask(batch.segment_RL)}
    if batch.cu_seqlens is None:  # without a mask, transformers uses plain causal attention
        return {"attention_mask": None}
    # All four or none: if one is missing, or with a mask, transformers derives its own boundaries without an error.
    return {
        "attention_mask": None,
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": batch.max_length,
        "max_length_k": batch.max_length,
    }


def _varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """torch's own FlashAttention-2 for packed sequences: query [1, H, T, E], key and value [1, Hkv, T, E]."""
    from torch.nn.attention.varlen import varlen_attn

    assert attention_mask is None
    out_THE = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out_THE, Tensor)  # not a tuple with the log-sum-exp
    return out_THE.unsqueeze(0), None


AttentionInterface.register(VARLEN, _varlen_attention)
