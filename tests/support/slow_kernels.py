"""The GPU's variable-length attention kernels, in a slow version, so that the code that calls them runs on a CPU."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Model, modeling_flash_attention_utils

Calls = dict[str, list[dict[str, Any]]]


def _segment_attention(
    query_THE: Tensor, key_TJE: Tensor, value_TJE: Tensor, cu_seqlens: Tensor, scale: float | None
) -> Tensor:
    """A slow kernel: softmax attention per segment, with each query head on its key head."""
    group = query_THE.shape[1] // key_TJE.shape[1]
    bounds = cu_seqlens.tolist()
    assert (bounds[0], bounds[-1]) == (0, len(query_THE)), "every token is in a segment"
    outputs = []
    for first, end in pairwise(bounds):
        q, k, v = (t[first:end].transpose(0, 1) for t in (query_THE, key_TJE, value_TJE))
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        scores = q @ k.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        future = torch.ones(end - first, end - first, dtype=torch.bool).triu(1)
        outputs.append((scores.masked_fill(future, -torch.inf).softmax(-1) @ v).transpose(0, 1))
    return torch.cat(outputs)


def replace_gpu_kernels(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replace both GPU kernels with the slow kernel; returns their arguments, by name."""
    calls: Calls = {"varlen": [], "flash_attention_2": []}

    def varlen_attn(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
        scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        calls["varlen"].append(
            {"cu_seqlens": (cu_seq_q, cu_seq_k), "max_lengths": (max_q, max_k), "causal": window_size == (-1, 0)}
        )
        assert enable_gqa, "the heads differ, and the kernel wants to be told"
        return _segment_attention(query, key, value, cu_seq_q, scale)

    def flash_attn_varlen_func(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), softcap: float = 0.0, deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        calls["flash_attention_2"].append(
            {"cu_seqlens": (cu_seqlens_q, cu_seqlens_k), "max_lengths": (max_seqlen_q, max_seqlen_k), "causal": causal}
        )
        assert (dropout_p, window_size, softcap) == (0.0, (-1, -1), 0.0)
        return _segment_attention(q, k, v, cu_seqlens_q, softmax_scale)

    def other_kernel(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("transformers took the way without boundaries, across texts")

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    # transformers' own dispatch runs; only the package and the GPU that it looks for are simulated.
    monkeypatch.setattr(Qwen3Model, "_flash_attn_can_dispatch", lambda *_, **__: True)
    utilities = modeling_flash_attention_utils
    for name, value in (
        ("_loaded_implementation", "flash_attention_2"),
        ("_flash_fn", other_kernel),
        ("_flash_varlen_fn", flash_attn_varlen_func),
        ("_process_flash_kwargs_fn", utilities._lazy_define_process_function(flash_attn_varlen_func)),
    ):
        monkeypatch.setattr(utilities, name, value)
    return calls
