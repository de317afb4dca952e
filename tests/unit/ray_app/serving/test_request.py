"""The fields of a request, and the answer to each mistake."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_app.serving.errors import Refusal, overloaded, stopping, too_large
from ray_app.serving.request import FIELDS, EmbeddingRequest, Served, parse_request

SERVED = Served(
    name="demo",
    dimensions=64,
    max_tokens=512,
    max_inputs=3,
    prompts={"query": "Instruct: Find it.\nQuery: ", "document": ""},
    created=1,
)


def parse(**fields: Any) -> EmbeddingRequest:
    return parse_request(json.dumps({"model": "demo", "input": "a text", **fields}).encode(), SERVED)


def refusal(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_request(body, SERVED)
    return caught.value


def test_openais_fields_are_accepted() -> None:
    asked = parse(input=["a", "b"], encoding_format="base64", dimensions=8, user="me")

    assert asked == EmbeddingRequest(texts=("a", "b"), encoding="base64", dimensions=8, truncate=False)


def test_one_string_is_one_text() -> None:
    assert parse(input="a text").texts == ("a text",)


def test_a_field_that_is_null_is_left_out() -> None:
    assert parse(dimensions=None, encoding_format=None, user=None, instruction=None) == parse()


@given(st.lists(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_texts_are_not_changed(texts: list[str]) -> None:
    assert parse(input=texts).texts == tuple(texts)


def test_a_named_prompt_or_an_instruction_is_put_before_each_text() -> None:
    assert parse(input=["x", "y"], prompt_name="query").texts == (
        "Instruct: Find it.\nQuery: x",
        "Instruct: Find it.\nQuery: y",
    )
    assert parse(input="x", instruction="Sort it.").texts == ("Instruct: Sort it.\nQuery: x",)
    assert parse(input="x", prompt_name="document").texts == ("x",)


@pytest.mark.parametrize(
    ("fields", "status", "param", "code", "says"),
    [
        ({"model": "other"}, 404, "model", "model_not_found", "'other' is not served here. This server serves 'demo'"),
        ({"model": None}, 400, "model", None, "'model' is missing. This server serves 'demo'"),
        ({"model": 7}, 400, "model", None, "model is an integer; it must be a string"),
        ({"input": ""}, 400, "input", "empty_input", "input is an empty string"),
        ({"input": []}, 400, "input", "empty_input", "empty array"),
        ({"input": ["a", ""]}, 400, "input", "empty_input", "input[1] is an empty string"),
        ({"input": None}, 400, "input", None, "input is null; it must be a string"),
        ({"input": {"text": "a"}}, 400, "input", None, "input is an object"),
        ({"input": ["a", None]}, 400, "input", None, "input[1] is null"),
        ({"input": [True]}, 400, "input", None, "input[0] is a boolean"),
        ({"input": [1, 2]}, 400, "input", "tokens_not_taken", "Token ids are not accepted"),
        ({"input": [[1], [2]]}, 400, "input", "tokens_not_taken", "Token ids are not accepted"),
        ({"input": ["a"] * 4}, 400, "input", "too_many_inputs", "4 texts; the limit is 3"),
        ({"dimensions": 0}, 400, "dimensions", None, "dimensions is 0; it must be between 1 and 64"),
        ({"dimensions": 65}, 400, "dimensions", None, "between 1 and 64"),
        ({"dimensions": "8"}, 400, "dimensions", None, "dimensions is a string; it must be an integer"),
        ({"dimensions": True}, 400, "dimensions", None, "dimensions is a boolean"),
        ({"encoding_format": "int8"}, 400, "encoding_format", None, "must be 'float' or 'base64'"),
        ({"prompt_name": "qurey"}, 400, "prompt_name", "unknown_prompt", "Its prompts: query, document"),
        ({"prompt_name": "query", "instruction": "x"}, 400, "instruction", None, "both set"),
        ({"truncate": "yes"}, 400, "truncate", None, "truncate is a string; it must be a boolean"),
        ({"dimension": 8}, 400, "dimension", "unknown_field", "Did you mean dimensions?"),
        ({"xyz": 1}, 400, "xyz", "unknown_field", "Known fields: model, input"),
    ],
)
def test_a_mistake_is_refused_with_what_was_found_and_expected(
    fields: dict[str, Any], status: int, param: str, code: str | None, says: str
) -> None:
    refused = refusal(json.dumps({"model": "demo", "input": "a", **fields}).encode())

    assert (refused.status, refused.param, refused.code) == (status, param, code)
    assert says in refused.message


@pytest.mark.parametrize("body", [b"", b"{", b"input=a", b'{"model": "demo", "input": "\xff"}', b'{"input": NaN}'])
def test_a_body_that_is_not_json_is_refused_with_an_example(body: bytes) -> None:
    refused = refusal(body)

    assert (refused.status, refused.code) == (400, "invalid_json")
    assert '{"model": "demo", "input": ["a text"]}' in refused.message


def test_json_that_is_not_an_object_is_refused() -> None:
    assert "The body is an array" in refusal(b"[1]").message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*FIELDS, "other"]), VALUES))
def test_any_json_object_is_a_request_or_refused(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()

    try:
        found = parse_request(body, SERVED).texts
    except Refusal as refused:
        found = (refused.message,)

    assert 1 <= len(found) <= SERVED.max_inputs
    assert all(found)


def test_a_refusal_has_openais_form_and_says_when_to_retry() -> None:
    busy, ending, large = overloaded("9 tokens wait", 7), stopping(), too_large("10", 5)

    assert busy.body["error"].keys() == {"message", "type", "param", "code"}
    assert (busy.status, busy.headers) == (429, {"Retry-After": "7"})
    assert (ending.status, ending.body["error"]["type"]) == (503, "server_error")
    assert "Retry-After" in ending.headers
    assert (large.status, large.headers, large.body["error"]["type"]) == (413, {}, "invalid_request_error")
