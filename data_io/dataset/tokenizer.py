"""Text to token ids: truncated to the limit, always with exactly one EOS at the end.
The embedding is the state of this EOS (docs/developers/design.md#the-recipe-and-where-we-differ).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_io.bounded_json import read_json
from data_io.errors import DataError, NotFoundInStore
from data_io.storage.store import BULK_BYTES, Store
from data_io.wording import shown

TOKENIZER_KEYS = ("tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json")
"""The two files of a tokenizer that belongs to a data set."""

# At first only this many characters per token of the limit are tokenized, so a text of 10 MB costs no more than a page.
_CHARACTERS_PER_TOKEN = 16


@dataclass(frozen=True)
class TokenTexts:
    """N texts back to back: ids int32 [T], lengths int32 [N], each at least 1; T = sum(lengths)."""

    ids: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32]


class TextTokenizer:
    """Turns texts into ids of at most `max_tokens` tokens, including the EOS. Threads may share one."""

    def __init__(self, tokenizer_json: str, *, eos_token: str, max_tokens: int) -> None:
        """`tokenizer_json` is the content of a tokenizer.json. Raises DataError if it cannot be read, or if `eos_token`
        is not in it.
        """
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # tokenizers raises no narrower class
            raise DataError(
                f"tokenizer.json cannot be read: {shown(str(error))[:200]}", remedy="restore it, or use another one"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        eos_id = self._tokenizer.token_to_id(eos_token)
        if eos_id is None:
            raise DataError(
                f"the tokenizer does not contain its EOS token {eos_token!r}",
                remedy="use a tokenizer whose eos_token is in its vocabulary",
            )
        self.eos_id: int = eos_id
        self.max_tokens = max_tokens
        self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.fingerprint = tokenizer_fingerprint(tokenizer_json, eos_token=eos_token, max_tokens=max_tokens)

    def encode(self, texts: Sequence[str]) -> TokenTexts:
        """The ids of `texts`. An empty text is only an EOS."""
        kept = self.max_tokens - 1
        limit = kept * _CHARACTERS_PER_TOKEN
        encoded = self._ids([text[:limit] for text in texts])
        # If a shortened text gives fewer tokens than the limit, tokens were lost; the last tokens before the cut may
        # also have merged differently.
        short = [i for i, text in enumerate(texts) if len(text) > limit and len(encoded[i]) < kept + 16]
        whole = dict(zip(short, self._ids([texts[i] for i in short]), strict=True))
        rows = [[*whole.get(i, ids)[:kept], self.eos_id] for i, ids in enumerate(encoded)]
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int32, count=len(rows))
        ids = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(lengths.sum()))
        return TokenTexts(ids=ids, lengths=lengths)

    def cuts(self, text: str) -> bool:
        """Whether `encode` truncates this text."""
        start = text[: self.max_tokens * _CHARACTERS_PER_TOKEN]
        if len(start) < len(text) and len(self._ids([start])[0]) >= self.max_tokens + 16:
            return True
        return len(self._ids([text])[0]) >= self.max_tokens

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def tokenizer_fingerprint(tokenizer_json: str, *, eos_token: str, max_tokens: int) -> str:
    """Sixteen hex digits that change if the ids of any text could change. Independent of the JSON file's formatting."""
    content = read_json(tokenizer_json)
    for setting in ("truncation", "padding", "post_processor"):  # replaced by our own truncation and EOS
        content.pop(setting, None)
    canonical = json.dumps([content, eos_token, max_tokens], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer by content, so that it reaches workers and the exported model without a network."""

    tokenizer_json: str
    eos_token: str
    pad_token: str

    def for_texts(self, max_tokens: int) -> TextTokenizer:
        return TextTokenizer(self.tokenizer_json, eos_token=self.eos_token, max_tokens=max_tokens)


def own_tokenizer(data: Store) -> LoadedTokenizer:
    """The tokenizer in a data set. Raises DataError if there is none, or if it is damaged."""
    if (found := read_tokenizer(data)) is None:
        raise DataError(
            f"the model is trained from scratch, model.tokenizer is not set, and {data.uri} has no tokenizer",
            remedy="set model.tokenizer to a directory or to a name on the hub, or train one for the data set: "
            "`f2llm data prepare files --tokenizer-vocabulary 8192`",
        )
    return found


def read_tokenizer(data: Store) -> LoadedTokenizer | None:
    """The tokenizer in a data set, None if there is none. Raises DataError if it is damaged."""
    found = []
    for key in TOKENIZER_KEYS:
        try:
            found.append(data.get(key, most=BULK_BYTES))
        except NotFoundInStore:
            return None
    try:
        content, settings = found[0].decode(), read_json(found[1])
        Tokenizer.from_str(content)
        eos_token = _token(settings, "eos_token")
        pad_token = _token(settings, "pad_token")
        if not all(isinstance(token, str | None) for token in (eos_token, pad_token)):
            raise ValueError("eos_token and pad_token must be strings")
    except Exception as error:  # tokenizers raises no narrower class for unreadable files
        raise _no_tokenizer(data, str(error).splitlines()[0]) from error
    if eos_token is None:
        raise _no_tokenizer(data, "tokenizer_config.json has no eos_token")
    return LoadedTokenizer(content, eos_token, pad_token or eos_token)


def _token(settings: dict[str, Any], name: str) -> str | None:
    # transformers writes a token as an object if the token has its own settings.
    token = settings.get(name)
    return token["content"] if isinstance(token, dict) else token


def _no_tokenizer(data: Store, found: str) -> DataError:
    return DataError(
        f"{data.uri}/tokenizer is not a valid tokenizer: {found}",
        remedy="prepare the data set again, or copy a tokenizer.json and its tokenizer_config.json there",
    )
