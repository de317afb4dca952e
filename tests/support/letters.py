"""A simple encoder: one token per letter, at most ten; the vector of a text is its length and first letter."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from data_io.dataset.tokenizer import TokenTexts

LIMIT = 10


class Letters:
    """Replaces ray_app.inference.encoder.Encoder. It embeds while `may_go_on` is set; a text with a "!" is an error."""

    dimensions, max_tokens = 2, LIMIT

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def tokenize(self, texts: Sequence[str]) -> TokenTexts:
        kept = [text[:LIMIT] for text in texts]
        ids = np.array([ord(letter) for text in kept for letter in text], dtype=np.int32)
        return TokenTexts(ids, np.array([len(text) for text in kept], dtype=np.int32))

    def cuts(self, text: str) -> bool:
        return len(text) > LIMIT

    def embed_in_groups(self, tokens: TokenTexts) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Texts of one length after those of another, the shortest first."""
        self.batches.append(int(tokens.lengths.sum()))
        starts = np.cumsum(tokens.lengths) - tokens.lengths
        vectors = np.stack([tokens.lengths, tokens.ids[starts]], axis=1).astype(np.float32)
        for length in np.unique(tokens.lengths):
            assert self.may_go_on.wait(30)
            if ord("!") in tokens.ids:
                raise RuntimeError("out of memory")
            (group,) = np.nonzero(tokens.lengths == length)
            yield group, vectors[group]
