"""Deletes random tokens from texts: the augmentation of Contriever (arXiv 2112.09118, section 3.1).

The deleted tokens depend on the seed, the epoch and the text alone, not on the worker or on other texts of the
micro-batch. Each epoch deletes other tokens.
"""

from collections.abc import Sequence

import numpy as np

from data_io.dataset.schema import text_hash
from data_io.dataset.tokenizer import TokenTexts
from data_io.keyed_hash import mix, stream_at

_TOKENS = 5  # the tags of data_io.loading.order's draws are 1 to 4


def delete_tokens(texts: TokenTexts, strings: Sequence[str], *, share: float, seed: int, epoch: int) -> TokenTexts:
    """Delete each token with probability `share`, except the last token of a text, its EOS.

    A text that would lose all other tokens keeps its first one. `strings` are the N texts that were tokenized; `share`
    is in [0, 1).
    """
    lengths = texts.lengths.astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    keys_N = np.array([mix(seed, _TOKENS, epoch, text_hash(string)) for string in strings], dtype=np.uint64)
    places_T = np.arange(len(texts.ids)) - np.repeat(starts, lengths)
    keep_T = stream_at(np.repeat(keys_N, lengths), places_T) >= np.uint64(share * 2.0**64)
    keep_T[starts + lengths - 1] = True
    kept_N = np.add.reduceat(keep_T.astype(np.int64), starts)
    keep_T[starts[kept_N == 1]] = True
    return TokenTexts(ids=texts.ids[keep_T], lengths=np.add.reduceat(keep_T.astype(np.int64), starts).astype(np.int32))
