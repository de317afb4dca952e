"""Laws of truncation and of the EOS at the end of every text."""

import json
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from data_io.dataset.tokenizer import TOKENIZER_KEYS, TextTokenizer, read_tokenizer, tokenizer_fingerprint
from data_io.errors import DataError
from data_io.storage.store import Store, open_store

EOS = "<|endoftext|>"


def _tokenizer_json() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat", "a longer sentence with the words"], trainer)
    return str(tokenizer.to_str())


JSON = _tokenizer_json()


def _ids(tokenizer: TextTokenizer, texts: list[str]) -> list[list[int]]:
    tokens = tokenizer.encode(texts)
    return [part.tolist() for part in np.split(tokens.ids, np.cumsum(tokens.lengths)[:-1])]


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.integers(2, 40))
def test_every_text_ends_with_one_eos_and_fits(texts: list[str], max_tokens: int) -> None:
    tokenizer = TextTokenizer(JSON, eos_token=EOS, max_tokens=max_tokens)

    for ids in _ids(tokenizer, texts):
        assert ids[-1] == tokenizer.eos_id
        assert 1 <= len(ids) <= max_tokens


@given(st.text(max_size=400), st.integers(2, 12))
def test_a_truncated_text_keeps_the_first_tokens_of_the_whole(text: str, max_tokens: int) -> None:
    whole = _ids(TextTokenizer(JSON, eos_token=EOS, max_tokens=10_000), [text])[0]

    cut = _ids(TextTokenizer(JSON, eos_token=EOS, max_tokens=max_tokens), [text])[0]

    assert cut[:-1] == whole[:-1][: max_tokens - 1]


@given(st.text(max_size=400), st.integers(2, 12))
def test_a_text_is_truncated_if_its_tokens_and_the_eos_do_not_fit(text: str, max_tokens: int) -> None:
    whole = TextTokenizer(JSON, eos_token=EOS, max_tokens=10_000).encode([text]).lengths[0]

    assert TextTokenizer(JSON, eos_token=EOS, max_tokens=max_tokens).cuts(text) == (whole > max_tokens)


@pytest.mark.parametrize("unit", ["the ", " ", "ab", "é", "the cat sat on the mat "])
@pytest.mark.parametrize("max_tokens", [2, 9, 33])
def test_a_very_long_text_gives_the_same_tokens_as_tokenizing_all_of_it(unit: str, max_tokens: int) -> None:
    text = unit * 5_000
    expected = Tokenizer.from_str(JSON).encode(text, add_special_tokens=False).ids[: max_tokens - 1]

    ids = _ids(TextTokenizer(JSON, eos_token=EOS, max_tokens=max_tokens), [text])[0]

    assert ids[:-1] == expected


def test_an_empty_text_is_its_eos_alone() -> None:
    tokenizer = TextTokenizer(JSON, eos_token=EOS, max_tokens=8)

    assert _ids(tokenizer, ["", "the"])[0] == [tokenizer.eos_id]


def test_a_tokenizer_without_the_eos_is_refused() -> None:
    with pytest.raises(DataError, match="the tokenizer does not contain its EOS token '</s>'"):
        TextTokenizer(JSON, eos_token="</s>", max_tokens=8)


def test_the_fingerprint_depends_on_ids_and_not_on_layout_or_replaced_settings() -> None:
    tokenizer = Tokenizer.from_str(JSON)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    tokenizer.enable_truncation(5)
    other = json.loads(JSON)
    other["model"]["merges"] = other["model"]["merges"][:-1]
    same = tokenizer_fingerprint(JSON, eos_token=EOS, max_tokens=8)

    assert (
        tokenizer_fingerprint(json.dumps(json.loads(tokenizer.to_str()), indent=2), eos_token=EOS, max_tokens=8) == same
    )
    assert tokenizer_fingerprint(json.dumps(other), eos_token=EOS, max_tokens=8) != same
    assert tokenizer_fingerprint(JSON, eos_token=EOS, max_tokens=9) != same


def _data(content: str, settings: str) -> Store:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    for key, text in zip(TOKENIZER_KEYS, (content, settings), strict=True):
        store.put(key, text.encode())
    return store


@pytest.mark.parametrize("token", [EOS, {"content": EOS, "lstrip": False}], ids=["text", "object"])
def test_a_data_sets_tokenizer_pads_with_its_eos_by_default(token: object) -> None:
    found = read_tokenizer(_data(JSON, json.dumps({"eos_token": token})))

    assert found is not None
    assert (found.tokenizer_json, found.eos_token, found.pad_token) == (JSON, EOS, EOS)


@pytest.mark.parametrize("kept", [[], [0], [1]])
def test_a_data_set_needs_no_tokenizer(kept: list[int]) -> None:
    store = _data(JSON, json.dumps({"eos_token": EOS}))
    store.delete(key for i, key in enumerate(TOKENIZER_KEYS) if i not in kept)

    assert read_tokenizer(store) is None


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        ("{}", '{"eos_token": "</s>"}', "is not a valid tokenizer"),
        (JSON[:50], '{"eos_token": "</s>"}', "is not a valid tokenizer"),
        (JSON, "{", "is not a valid tokenizer"),
        (JSON, "{}", "has no eos_token"),
    ],
)
def test_a_damaged_tokenizer_is_named_with_its_data_set(content: str, settings: str, says: str) -> None:
    store = _data(content, settings)

    with pytest.raises(DataError, match=says) as caught:
        read_tokenizer(store)

    assert f"{store.uri}/tokenizer" in caught.value.message
