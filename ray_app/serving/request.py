"""The body of POST /v1/embeddings: OpenAI's fields, and three fields of this server.

`prompt_name` is named as in TEI and sentence-transformers, `truncate` as in TEI, and `instruction` as in the recipe and
in `f2llm embed`. An unknown field is refused, as OpenAI does: a misspelled field would otherwise change the vectors
without an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

import orjson

from data_io.task import format_query
from ray_app.serving.errors import Refusal

T = TypeVar("T")

Encoding = Literal["float", "base64"]
_TYPES = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object",
    type(None): "null",
}  # fmt: skip
FIELDS = ("model", "input", "encoding_format", "dimensions", "user", "prompt_name", "instruction", "truncate")


@dataclass(frozen=True)
class Served:
    """The properties of the served model that requests are checked against."""

    name: str
    dimensions: int
    max_tokens: int
    max_inputs: int
    prompts: Mapping[str, str]
    created: int
    """Unix time at which the service began. The same for all its replicas."""


@dataclass(frozen=True)
class EmbeddingRequest:
    """The texts to embed, prompt included, and the form of the response."""

    texts: tuple[str, ...]
    encoding: Encoding
    dimensions: int | None
    truncate: bool


def parse_request(body: bytes, served: Served) -> EmbeddingRequest:
    """Parse the request in a body. Raises Refusal that names the mistake."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _wrong(
            f"The body is not JSON: {error}. Send an object such as {_example(served)}.", code="invalid_json"
        ) from None
    if not isinstance(fields, dict):
        raise _wrong(f"The body is {_kind(fields)}; it must be an object such as {_example(served)}.")
    for name in fields:
        if name not in FIELDS:
            close = get_close_matches(name, FIELDS, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Known fields: {', '.join(FIELDS)}."
            raise _wrong(f"The field {name!r} is unknown. {hint}", param=name, code="unknown_field")
    _check_model(fields, served)
    prefix = _prefix(fields, served)
    return EmbeddingRequest(
        texts=tuple(prefix + text for text in _texts(fields, served)),
        encoding=_encoding(fields),
        dimensions=_dimensions(fields, served),
        truncate=_typed(fields, "truncate", bool) or False,
    )


def check_model(name: str, served: Served) -> None:
    """Raises Refusal (404) for a model that is not this one."""
    if name != served.name:
        raise Refusal(
            404,
            f"The model {name!r} is not served here. This server serves {served.name!r}.",
            param="model",
            code="model_not_found",
        )


def _check_model(fields: Mapping[str, Any], served: Served) -> None:
    name = _typed(fields, "model", str)
    if name is None:
        raise _wrong(f"The field 'model' is missing. This server serves {served.name!r}.", param="model")
    check_model(name, served)


def _texts(fields: Mapping[str, Any], served: Served) -> list[str]:
    if "input" not in fields:
        raise _wrong("The field 'input' is missing. Send a string, or an array of strings.", param="input")
    value = fields["input"]
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise _wrong("The input is an empty array. Send at least one string.", param="input", code="empty_input")
    if len(texts) > served.max_inputs:
        raise _wrong(
            f"The input has {len(texts):,} texts; the limit is {served.max_inputs:,}. Send several requests.",
            param="input",
            code="too_many_inputs",
        )
    for place, text in enumerate(texts):
        where = f"input[{place}]" if isinstance(value, list) else "input"
        if isinstance(text, int | list) and not isinstance(text, bool):
            raise _wrong(
                f"{where} is {_kind(text)}. Token ids are not accepted, because ids of another tokenizer would give "
                "wrong vectors without an error. Send text (in LangChain: check_embedding_ctx_length=False).",
                param="input",
                code="tokens_not_taken",
            )
        if not isinstance(text, str):
            raise _wrong(f"{where} is {_kind(text)}; it must be a string.", param="input")
        if not text:
            raise _wrong(f"{where} is an empty string. Leave it out.", param="input", code="empty_input")
    return texts


def _prefix(fields: Mapping[str, Any], served: Served) -> str:
    name, instruction = _typed(fields, "prompt_name", str), _typed(fields, "instruction", str)
    if name is not None and instruction is not None:
        raise _wrong("prompt_name and instruction are both set. Leave one of them out.", param="instruction")
    if name is None:
        return format_query("", instruction or "")
    if name not in served.prompts:
        raise _wrong(
            f"The model has no prompt {name!r}. Its prompts: {', '.join(served.prompts)}. Or send an instruction.",
            param="prompt_name",
            code="unknown_prompt",
        )
    return served.prompts[name]


def _encoding(fields: Mapping[str, Any]) -> Encoding:
    found = _typed(fields, "encoding_format", str)
    if found in (None, "float"):
        return "float"
    if found == "base64":
        return "base64"
    raise _wrong(f"encoding_format is {found!r}; it must be 'float' or 'base64'.", param="encoding_format")


def _dimensions(fields: Mapping[str, Any], served: Served) -> int | None:
    found = _typed(fields, "dimensions", int)
    if found is not None and not 1 <= found <= served.dimensions:
        raise _wrong(
            f"dimensions is {found}; it must be between 1 and {served.dimensions}, the model's dimensions.",
            param="dimensions",
        )
    return found


def _typed(fields: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """The field's value, which must have this type. None if the field is left out or null."""
    value = fields.get(name)
    if value is None or type(value) is kind:
        return value
    raise _wrong(f"{name} is {_kind(value)}; it must be {_TYPES[kind]}.", param=name)


def _kind(value: object) -> str:
    return _TYPES[type(value)]


def _example(served: Served) -> str:
    return f'{{"model": "{served.name}", "input": ["a text"]}}'


def _wrong(message: str, *, param: str | None = None, code: str | None = None) -> Refusal:
    return Refusal(400, message, param=param, code=code)
