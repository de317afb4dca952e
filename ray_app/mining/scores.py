"""Scores of queries against a block of documents, with torch. Q queries, N documents, D dimensions."""

import torch

from ray_app.mining.selection import Hits, Ids, Scores

QUERIES_AT_ONCE = 1024
"""Queries whose scores against one block are in memory at once."""


class BlockScores:
    """Scores of Q queries against the N documents of one block, on the device of the embedding model."""

    def __init__(self, queries_QD: Scores, documents_ND: Scores, *, device: str | torch.device = "cpu") -> None:
        self._scores_QN = torch.from_numpy(queries_QD).to(device) @ torch.from_numpy(documents_ND).to(device).T

    def at(self, rows: Ids, columns: Ids) -> Scores:
        """The scores [len(rows)] at these positions."""
        picked: Scores = self._scores_QN[self._index(rows), self._index(columns)].cpu().numpy()
        return picked

    def forbid(self, rows: Ids, columns: Ids) -> None:
        """Exclude these entries from the hits."""
        self._scores_QN[self._index(rows), self._index(columns)] = -torch.inf

    def hits(self, least_Q: Scores, k: int) -> Hits:
        """All entries above `least_Q`, which can be among the best `k` of their row.

        If the least score of a row is minus infinity, its hits are the `k` best entries of the block and all entries
        that equal the last of them.
        """
        scores = self._scores_QN
        least = torch.from_numpy(least_Q).to(scores.device)
        own = torch.topk(scores, min(k, scores.shape[1]), dim=1).values[:, -1] if torch.isinf(least).any() else None
        wanted = scores > least[:, None]
        if own is not None:
            wanted &= scores >= own[:, None]
        found = torch.nonzero(wanted)
        rows, columns = found[:, 0], found[:, 1]
        return Hits(rows.cpu().numpy(), columns.cpu().numpy(), scores[rows, columns].cpu().numpy())

    def _index(self, values: Ids) -> torch.Tensor:
        return torch.from_numpy(values).to(self._scores_QN.device)
