"""A small tokenizer for the demo, built like Qwen3's: byte-level BPE with the same pre-tokenization and EOS token.

Training counts merges over the texts. It uses no randomness and breaks ties by token, so the same texts give the same
file for any number of threads.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from data_io.dataset.tokenizer import TOKENIZER_KEYS
from data_io.errors import DataError
from data_io.storage.store import Store

EOS_TOKEN = "<|endoftext|>"  # nosec B105
VOCABULARY_SIZE = 8192
# Words with one leading space or sign, single digits, runs of signs, line ends, white space: the pattern of Qwen2.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TokenizerFiles:
    """Contents of tokenizer.json and tokenizer_config.json, which transformers.AutoTokenizer loads."""

    tokenizer_json: str
    config_json: str


def train_tokenizer(
    texts: Iterable[str], *, vocabulary_size: int = VOCABULARY_SIZE, max_tokens: int = 1024
) -> TokenizerFiles:
    """Byte-level BPE of at most `vocabulary_size` tokens. Every text ends in one EOS, which is also the padding token.

    `max_tokens` is stored as the model's limit; nothing is truncated here. Raises DataError if there is no text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        special_tokens=[EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Sorted, so that the order of sources and rows has no effect.
    distinct = sorted(set(texts))
    if not distinct:
        raise DataError("there is no text to train a tokenizer on", remedy="prepare at least one source with rows")
    tokenizer.train_from_iterator(distinct, trainer, length=len(distinct))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS_TOKEN}",
        pair=f"$A {EOS_TOKEN} $B {EOS_TOKEN}",
        special_tokens=[(EOS_TOKEN, tokenizer.token_to_id(EOS_TOKEN))],
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS_TOKEN,
        "pad_token": EOS_TOKEN,
        "model_max_length": max_tokens,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    return TokenizerFiles(tokenizer.to_str(pretty=True) + "\n", json.dumps(config, indent=2) + "\n")


def save_tokenizer(store: Store, files: TokenizerFiles) -> None:
    """Write both files under tokenizer/ of a data set."""
    for key, content in zip(TOKENIZER_KEYS, (files.tokenizer_json, files.config_json), strict=True):
        store.put_immutable(key, content.encode())
