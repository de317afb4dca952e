"""Packs texts for one forward pass without padding, in a layout that suits the device.

N texts of lengths l_1..l_N, T = sum of the lengths. Three layouts give the same embeddings:
    sequence  [1, T]   all texts one after another, separated by cumulative lengths (FlashAttention's varlen kernels)
    rows      [R, L]   texts packed best-fit into rows as wide as the longest text, separated by a block-causal mask
    padded    [N, L]   one text per row, padding after it; causal attention needs no mask; for texts of similar length
With padding, a contrastive step spends most of its time on padding tokens. If queries and documents are padded together
at 256 tokens, it computes 2.3 token slots per useful token (bench/packed_step.py).
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Layout = Literal["sequence", "rows", "padded"]


@dataclass(frozen=True)
class PackedBatch:
    """Texts ready for one forward pass. Positions restart at 0 in every text; `last_N` locates each text's EOS token.

    input_ids: int64 [R, L], R = 1 in the sequence layout, N in the padded one.
    position_ids: int64 [R, L]; [1, L] in the padded layout, in which all rows have the same positions.
    last_N: int64 [N], index of each text's last token in the flattened [R * L], in the order the texts were given.
    segment_RL: int32 [R, L], rows layout only: for each token the number of its text, -1 for padding.
    cu_seqlens: int32 [N + 1] from 0 to T and max_length: int, sequence layout only.
    """

    input_ids: Tensor
    position_ids: Tensor
    last_N: Tensor
    tokens: int
    segment_RL: Tensor | None = None
    cu_seqlens: Tensor | None = None
    max_length: int = 0

    @property
    def slots(self) -> int:
        """Number of token slots in the forward pass; slots / tokens is the padding ratio."""
        return self.input_ids.numel()


def pack(
    ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], *, layout: Layout, device: torch.device | str = "cpu"
) -> PackedBatch:
    """Pack concatenated texts: ids int32 [T], lengths int32 [N], each at least 1, at least one text."""
    return _LAYOUTS[layout](ids, lengths, device)


def block_causal_mask(segment_RL: Tensor) -> Tensor:
    """The attention mask, bool [R, 1, L, L]: each token attends to itself and to earlier tokens of the same text."""
    width = segment_RL.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segment_RL.device).tril()
    return ((segment_RL[:, :, None] == segment_RL[:, None, :]) & causal)[:, None]


def _as_sequence(ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], device: torch.device | str) -> PackedBatch:
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    positions = np.arange(len(ids)) - np.repeat(starts, lengths)
    return PackedBatch(
        input_ids=_to(ids, device)[None],
        position_ids=_to(positions, device)[None],
        last_N=_to(ends - 1, device),
        tokens=len(ids),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32)).to(device, non_blocking=True),
        max_length=int(lengths.max()),
    )


def _as_rows(ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], device: torch.device | str) -> PackedBatch:
    width = int(lengths.max())
    row, column = _best_fit(lengths, width)
    rows = int(row.max()) + 1
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    position = np.arange(len(ids)) - np.repeat(starts, lengths)
    place = np.repeat(row * width + column, lengths) + position
    input_ids = np.zeros(rows * width, dtype=np.int64)
    position_ids = np.zeros(rows * width, dtype=np.int64)
    segment = np.full(rows * width, -1, dtype=np.int32)
    input_ids[place] = ids
    position_ids[place] = position
    segment[place] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return PackedBatch(
        input_ids=_to(input_ids, device).view(rows, width),
        position_ids=_to(position_ids, device).view(rows, width),
        last_N=_to(row * width + column + lengths - 1, device),
        tokens=len(ids),
        segment_RL=torch.from_numpy(segment).to(device).view(rows, width),
    )


def _as_padded(ids: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32], device: torch.device | str) -> PackedBatch:
    width = np.arange(lengths.max())
    input_ids = np.zeros((len(lengths), len(width)), dtype=np.int64)
    input_ids[width < lengths[:, None]] = ids
    return PackedBatch(
        input_ids=_to(input_ids, device),
        position_ids=_to(width, device)[None],
        last_N=_to(np.arange(len(lengths)) * len(width) + lengths - 1, device),
        tokens=len(ids),
    )


_LAYOUTS = {"sequence": _as_sequence, "rows": _as_rows, "padded": _as_padded}


def _best_fit(lengths: npt.NDArray[np.int32], width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and first column of each text, int64 [N]. Longest texts first, each into the fullest row with enough room."""
    row = np.empty(len(lengths), dtype=np.int64)
    column = np.empty(len(lengths), dtype=np.int64)
    room: list[tuple[int, int]] = []  # (free slots, row), sorted
    rows = 0
    for text in np.argsort(-lengths.astype(np.int64), kind="stable"):
        length = int(lengths[text])
        fit = bisect_left(room, (length, 0))
        free, target = room.pop(fit) if fit < len(room) else (width, rows)
        rows = max(rows, target + 1)
        row[text], column[text] = target, width - free
        insort(room, (free - length, target))
    return row, column


def _to(array: npt.NDArray[Any], device: torch.device | str) -> Tensor:
    return torch.from_numpy(array.astype(np.int64)).to(device, non_blocking=True)
